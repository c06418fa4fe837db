"""Image of every component, in one place; a cluster's registry is put in front at compile time.

The name contains `python` because kfp.local warns about images that might lack it.
"""

from penstock import __version__

STEPS = f"penstock-python:{__version__}"
"""Holds the wheel with the `steps` extra, kfp (no dependencies), sh and python3."""

QUANTIZE = f"penstock-quantize-python:{__version__}"
"""Holds the wheel with the `quantize` extra."""

TRTLLM = f"penstock-trtllm-python:{__version__}"
"""Holds TensorRT-LLM, and the wheel in an environment of its own."""

TRAIN = f"penstock-train-python:{__version__}"
"""Holds the wheel with the `train` extra."""
