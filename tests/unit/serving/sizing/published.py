"""Published models: their configurations, their size, and what their makers say they need."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from penstock.core.hardware import ACCELERATORS
from serving.sizing.choose import Plan, Refusal, choose
from serving.sizing.shape import Shape, shape_of
from serving.sizing.wish import Option, Place, Wish
from tests.unit.serving.sizing.checkpoints import tensors

_DATA = Path(__file__).with_suffix(".json")


@dataclass(frozen=True)
class Need:
    """What a source says."""

    gpu: str
    count: int
    says: str
    source: str
    gb: int = 0
    """Memory of all devices, at least; 0: not stated."""

    context: int = 0
    least: bool = False
    """Whether half as many devices are said, or known, not to do."""


@dataclass(frozen=True)
class Published:
    """A model on the Hub."""

    name: str
    parameters: int
    parameters_source: str
    config_source: str
    config: dict[str, Any]
    modelopt: dict[str, Any]
    needs: tuple[Need, ...]

    @property
    def shape(self) -> Shape:
        return _shape(self.name)

    def plan(self, need: Need, count: int = 0) -> Plan | Refusal:
        """Return the plan for the devices that a source names, or for another number of them."""
        place = Place(ACCELERATORS[need.gpu], count or need.count)
        wish = Wish(context=need.context or None)
        return choose(self.shape, place, [Option(self.shape.artifact)], wish)


@cache
def published() -> tuple[Published, ...]:
    rows = json.loads(_DATA.read_text())
    return tuple(
        Published(
            row["name"],
            row["parameters"],
            row["parameters_source"],
            row["config_source"],
            row["config"],
            row.get("modelopt", {}),
            tuple(Need(**need) for need in row["needs"]),
        )
        for row in rows
    )


@cache
def _shape(name: str) -> Shape:
    found = next(each for each in published() if each.name == name)
    return shape_of(found.config, tensors(found.config), found.modelopt)


def shape(name: str) -> Shape:
    return _shape(name)
