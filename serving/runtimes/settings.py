"""One thing an engine is told: the field of model.yaml it comes from, and the engine's words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MODEL = "/mnt/models"
"""Where the checkpoint lies, in every pod."""


def inside(path: str) -> str:
    """Return where a path of the checkpoint is."""
    return f"{MODEL}/{path}"


@dataclass(frozen=True, slots=True)
class Option:
    """An option of the command line."""

    field: str
    """Of model.yaml; empty: it is always set, whatever the spec says."""

    name: str
    values: tuple[str, ...] = ()
    """None: a switch."""

    def words(self) -> list[str]:
        """Return it as arguments; with `=`, so that no value is taken for an option."""
        if len(self.values) == 1:
            return [f"{self.name}={self.values[0]}"]
        return [self.name, *self.values]


@dataclass(frozen=True, slots=True)
class Entry:
    """A key of the engine's own document, for what its command line has no option for."""

    field: str
    key: str
    """Dots lead into mappings."""

    value: Any


Setting = Option | Entry


def option(field: str, name: str, value: object) -> Iterator[Option]:
    """Yield an option with a value, unless there is none."""
    if value is not None:
        yield Option(field, name, (str(value),))


def compact(value: object) -> str:
    """Return JSON without spaces, the same every time."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def document(entries: Iterable[Entry]) -> dict[str, Any]:
    """Return the engine's document."""
    body: dict[str, Any] = {}
    for entry in entries:
        *above, last = entry.key.split(".")
        place = body
        for key in above:
            place = place.setdefault(key, {})
        place[last] = entry.value
    return body


def adapters(folders: Mapping[str, str]) -> tuple[str, ...]:
    """Return LoRA adapters as NAME=FOLDER, which vLLM and SGLang read alike."""
    return tuple(f"{name}={inside(folder)}" for name, folder in folders.items())
