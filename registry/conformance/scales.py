"""Are the scales numbers? The only values that are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from registry.conformance.findings import Finding, error
from registry.conformance.reading import Checkpoint, Tensor

_NAMES = (
    *(".weight_scale", ".weight_scale_inv", ".weight_scale_2", ".weight_global_scale"),
    *(".input_scale", ".input_global_scale", ".k_scale", ".v_scale", ".pre_quant_scale"),
)
_AGAIN = "quantize the parent again, with other calibration prompts"


def values(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Find scales that are not finite, or all zero."""
    for name, tensor in sorted(checkpoint.tensors.items()):
        if not name.endswith(_NAMES):
            continue
        finite, zero = _look(tensor)
        if not finite:
            told = "NaN or infinite: every answer through this layer is nonsense"
            yield error("scale-not-finite", name, told, _AGAIN)
        elif zero and tensor.size:
            yield error("scale-zero", name, "all zero: the layer gives nothing", _AGAIN)


def _look(tensor: Tensor) -> tuple[bool, bool]:
    """Return whether all values are finite, and whether all are zero."""
    finite, zero = True, True
    for chunk in tensor.chunks():
        numbers = _numbers(chunk, tensor.dtype)
        finite = finite and bool(np.isfinite(numbers).all())
        zero = zero and not numbers.any()
    return finite, zero


def _numbers(raw: bytes, dtype: str) -> np.ndarray[Any, np.dtype[Any]]:
    if dtype == "BF16":  # the upper half of a float32
        return (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
    if dtype in ("F16", "F32", "F64"):
        return np.frombuffer(raw, {"F16": np.float16, "F32": np.float32, "F64": np.float64}[dtype])
    bits = np.frombuffer(raw, np.uint8)
    if dtype == "F8_E4M3":  # no infinity; all bits but the sign set is NaN
        return np.where(bits & 0x7F == 0x7F, np.nan, (bits & 0x7F).astype(np.float32))
    if dtype in ("F8_E8M0", "U8"):  # powers of two: zero bits are 2^-127, all bits are NaN
        return np.where(bits == 0xFF, np.nan, np.float32(1))
    return bits
