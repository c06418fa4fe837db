"""A cluster of one node for tests: Kubernetes, KServe and Envoy Gateway, without Docker."""
