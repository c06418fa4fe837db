"""KFP pipelines: the lifecycle, compiled for a cluster or run on this machine."""
