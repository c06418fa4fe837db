"""Runs the quantizer and returns its answer, its time and its peak memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from components import child
from components.child import Ran, Voice
from penstock.core.errors import RecipeImpossible

WORKER = ("-m", "components.quantization.worker")
_VOICE = Voice(
    who="the quantizer",
    error=RecipeImpossible,
    killed="give it more memory, or choose a recipe without calibration",
    failed="choose another recipe",
)


def run(
    request: Mapping[str, Any],
    on_progress: Callable[[int, int, str], None],
    *,
    worker: tuple[str, ...] = WORKER,
) -> Ran:
    """Run one request to its end; the worker dies with this process.

    Args:
        request: JSON; `task` says what is done, see `worker`.
        on_progress: Told (stages done, stages in all, what is done now).
        worker: Arguments of the interpreter.

    Raises:
        DiskFull: The worker could not write.
        RecipeImpossible: The library refused, or the worker was killed.
    """

    def on_line(body: Mapping[str, Any]) -> None:
        if "progress" in body:
            on_progress(*body["progress"])

    return child.run(request, on_line, worker=worker, voice=_VOICE)
