"""Where models are served: this machine, or a cluster with KServe. One protocol, `Target`."""
