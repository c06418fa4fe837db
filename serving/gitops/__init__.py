"""Git as the place where a cluster's objects are written; see docs/gitops.md.

`folder` is a `Cluster` of files, `steps` writes what has no look of a rollout behind it; `manifest`
and `drift` are pure.
"""
