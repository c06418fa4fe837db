"""The objects Penstock writes on a cluster with KServe: pure functions, no I/O.

Read against KServe v0.20.0, Gateway API v1.5 and Envoy Gateway v1.8.0; `Standard` mode.
"""
