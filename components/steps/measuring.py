"""How good a checkpoint is on the evaluation set: measured once, remembered by what went in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from components.steps.context import Context, write_atomically
from components.steps.memo import remembered
from components.steps.scoring import Item, measure
from penstock.core.spec import ModelSpec
from registry.datasets import read_rows
from serving.completer import Message


@dataclass(frozen=True, slots=True)
class Asked:
    """An evaluation set, and how it is asked."""

    path: Path
    digest: str
    max_new_tokens: int

    @classmethod
    def of(cls, model: ModelSpec, data: Mapping[str, Any]) -> Asked:
        """Return a spec's, as `resolve` pinned it."""
        found = data["evaluate"]
        return cls(Path(found["path"]), found["digest"], model.evaluation.max_new_tokens)

    @property
    def items(self) -> list[Item]:
        """The questions."""
        return items_of(self.path)


def measured(
    context: Context, folder: Path, root: str, asked: Asked, kept: Path
) -> tuple[dict[str, Any], bool]:
    """Return what `scoring.measure` found of a checkpoint, and whether an earlier run did.

    Args:
        context: Of the step.
        folder: The checkpoint.
        root: Its digest.
        asked: What it is asked.
        kept: Folder of this run for the result.
    """
    key = {
        "what": "evaluation",
        "root": root,
        "data": asked.digest,
        "max_new_tokens": asked.max_new_tokens,
    }

    def make(target: Path) -> None:
        found = _measure(context, folder, asked)
        write_atomically(target / "measured.json", json.dumps(found, indent=1) + "\n")

    reused = remembered(context.settings.home / "memo", key, kept, make)
    body: dict[str, Any] = json.loads((kept / "measured.json").read_text())
    return body, reused


def items_of(path: Path) -> list[Item]:
    """Return a data set as questions."""
    return [
        Item(row.id, row.skill, cast("list[Message]", row.conversation), row.answer)
        for row in read_rows(path)
    ]


def _measure(context: Context, folder: Path, asked: Asked) -> dict[str, Any]:
    from serving.engine.inprocess import InProcessCompleter

    completer = InProcessCompleter(folder)
    try:
        return measure(
            completer,
            asked.items,
            max_new_tokens=asked.max_new_tokens,
            on_progress=lambda done, total: context.progress(done, total, "answers"),
        )
    finally:
        completer.close()
