"""How much the answers change when only some layers are rounded; inside the worker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.quantization.loading import Tell, batches, load

_POSITIONS = 64
"""Last tokens of a prompt whose distributions are compared: bounds what is kept of the parent."""


def measure(request: Mapping[str, Any], tell: Tell) -> list[dict[str, Any]]:
    """Return, per group of layers: names, weights, and the mean KL divergence in nats.

    Each group alone is rounded to nearest in 4 bits, symmetric, as `w4a16` does it, and the
    parent's next-token distributions are compared with what comes out; all other layers stay.
    """
    import torch

    tell(1, 2, "loading")
    model = load(Path(request["parent"]), gpu=request["gpu"])
    rows = [torch.tensor([row], device=model.device) for row in batches(request)]
    found = []
    groups: list[list[str]] = request["groups"]
    with torch.inference_mode():
        parent = [_log_probabilities(model, row) for row in rows]
        for number, names in enumerate(groups):
            tell(number, len(groups), f"rounding {names[0]}")
            modules = [model.get_submodule(name) for name in names]
            with _rounded(modules, int(request["group_size"])):
                kl = _mean_kl(model, rows, parent)
            weights = sum(module.weight.numel() for module in modules)
            found.append({"names": names, "kl": kl, "weights": weights})
    return found


def _log_probabilities(model: Any, row: Any) -> Any:
    logits = model(row, use_cache=False, logits_to_keep=_POSITIONS).logits
    return logits[0].float().log_softmax(-1)


def _mean_kl(model: Any, rows: Sequence[Any], parent: Sequence[Any]) -> float:
    total, count = 0.0, 0
    for row, before in zip(rows, parent, strict=True):
        after = _log_probabilities(model, row)
        total += float((before.exp() * (before - after)).sum())
        count += len(before)
    return max(0.0, total / count)


@contextmanager
def _rounded(modules: Sequence[Any], group_size: int) -> Iterator[None]:
    kept = [module.weight.data for module in modules]
    for module in modules:
        module.weight.data = round_to_nearest(module.weight.data, group_size)
    try:
        yield
    finally:
        for module, values in zip(modules, kept, strict=True):
            module.weight.data = values


def round_to_nearest(weight: Any, group_size: int) -> Any:
    """Return a weight as 4-bit integers with a scale per group hold it; the shape stays.

    Args:
        weight: (outputs, inputs); the groups divide the inputs.
        group_size: Weights per scale.
    """
    outputs, inputs = weight.shape
    groups = weight.float().view(outputs, inputs // group_size, group_size)
    scale = (groups.abs().amax(-1, keepdim=True) / 7.5).to(weight.dtype).float()
    scale = scale.clamp(min=1e-12)
    rounded = (groups / scale).round().clamp(-8, 7) * scale
    return rounded.view(outputs, inputs).to(weight.dtype)
