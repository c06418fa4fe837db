"""Loads the parent inside the worker: weights in memory once, and names of what is quantized."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from registry.conformance.reading import Tensor, read

Tell = Callable[[int, int, str], None]
"""Is told (stages done, stages in all, what is done now)."""

_FLOATS = ("F64", "F32", "F16", "BF16")


def load(folder: Path, *, gpu: bool) -> Any:
    """Return the model in evaluation mode, in its configuration's type.

    The files are read, not mapped: a mapped parent would stay resident beside its quantized
    copy until the end, and 1.3 times the checkpoint's size would not suffice.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    dtype = config.dtype if config.dtype is not None else "auto"
    weights = {t.name: _tensor(t, config.dtype) for t in read(folder).tensors.values()}
    kind = AutoModelForCausalLM._model_mapping[type(config)]  # noqa: SLF001 - the public class
    # takes a state_dict only together with no folder, which it cannot choose a class from
    model = kind.from_pretrained(None, config=config, state_dict=weights, dtype=dtype)
    weights.clear()
    model.config.name_or_path = model.name_or_path = str(folder)
    model.eval()
    return model.to("cuda") if gpu else model


def _tensor(tensor: Tensor, dtype: Any) -> Any:
    import torch
    from safetensors.torch import _TYPES

    values = torch.empty(tensor.shape, dtype=_TYPES[tensor.dtype])
    room = memoryview(values.view(-1).view(torch.uint8).numpy())
    with tensor.file.open("rb", buffering=0) as file:
        file.seek(tensor.start)
        done = 0
        while done < len(room):
            count = file.readinto(room[done:])
            if not count:
                raise OSError(f"{tensor.file}: {tensor.name} ends early")
            done += count
    if dtype is not None and tensor.dtype in _FLOATS:
        return values.to(dtype)
    return values


def batches(request: Mapping[str, Any]) -> list[list[int]]:
    """Return the calibration's token ids, one list per prompt."""
    return [list(map(int, row)) for row in request["tokens"]]
