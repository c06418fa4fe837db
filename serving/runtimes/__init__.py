"""What serves a checkpoint: every engine as data, and its arguments from the spec.

Pure. Kubernetes' objects are made of this in `serving.kserve.runtimes`.
"""
