"""What runs: clusters, manifests, the CPU engine and the gateway."""
