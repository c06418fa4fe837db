"""What a run serves beside devices, decided from the weights' headers before anything is pulled."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from penstock.core.errors import DataRefused, LifecycleError
from penstock.core.identity import ModelRef
from penstock.core.spec import ModelSpec
from registry.headers import look
from registry.pull import Hub
from serving.sizing.resolve import by_default, resolve, unknown
from serving.sizing.shape import Shape, shape_of

_CHOSEN = ("runtime", "precision", "serving")


def plan(model: ModelSpec, source: ModelRef, hub: Hub) -> tuple[ModelSpec, dict[str, Any]]:
    """Return the spec with nothing left open, and why it is so, for the record of the run.

    Where the headers cannot be read the runtime's default serves the checkpoint as it came, and the
    record says so: what keeps them from being read may keep them from being pulled, which tells it
    better.

    Args:
        model: The spec; it leaves runtime or precision open.
        source: Where its checkpoint comes from, pinned.
        hub: Whom to ask.

    Raises:
        ConfigurationError: It does not fit, or contradicts itself, with what would work.
        DataRefused: It fits only if it is made smaller, and nothing could show what that costs.
    """
    why = unknown(model)
    try:
        shape = None if why else _shape(source, hub)
    except LifecycleError as problem:
        shape, why = None, str(problem).partition("\n")[0]
    if shape is None:
        named = by_default(model)
        told = f"not planned, {named.runtime} by default: {why}"
        return named, {"made": False, "told": told, "reasons": [], "warnings": [], "rejected": []}
    found = resolve(model, shape)
    if model.precision == "auto" and found.spec.precision and not model.data.evaluate:
        raise DataRefused(
            f"as it came it does not fit, so {found.told} would be served; data.evaluate is not "
            "set, so nothing could show that it may replace the checkpoint",
            hint="set data.evaluate; penstock plan --explain shows what as it came would need",
        )
    return found.spec, {
        "made": True,
        "told": f"{found.told}, context {found.plan.trial.context:,}",
        "reasons": list(found.reasons),
        "warnings": list(found.warnings),
        "rejected": [asdict(each) for each in found.rejected],
    }


def require(model: ModelSpec, asked: ModelSpec, folder: Path) -> None:
    """Raise if what was made does not fit, or if nothing was and what came does not.

    Args:
        model: The spec as `plan` returned it.
        asked: The spec as it was written.
        folder: Checkpoint that is to be served.
    """
    serving = model.serving.model_copy(update={"concurrency": asked.serving.concurrency})
    as_it_is = model.model_copy(update={"precision": (), "serving": serving})
    resolve(as_it_is, _shape(ModelRef("file", str(folder)), Hub("")))


def chosen(model: ModelSpec) -> dict[str, Any]:
    """Return the fields that a plan decides, as JSON."""
    body = json.loads(model.to_json())
    return {name: body[name] for name in _CHOSEN}


def _shape(source: ModelRef, hub: Hub) -> Shape:
    seen = look(source, hub)
    return shape_of(seen.config, seen.tensors, seen.modelopt)
