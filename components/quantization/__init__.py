"""Makes quantized checkpoints, each in a process of its own; `produce.produce` is the door."""
