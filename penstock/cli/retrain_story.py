"""`penstock demo --retrain`: a schedule each minute, and data that changes while users ask."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from penstock.cli.edge import settings_of
from penstock.cli.schedule_places import local_place
from penstock.cli.schedule_tick import folder_of
from penstock.core.errors import NotReady
from penstock.core.schedules import Schedule
from penstock.core.spec import Margins, ModelSpec, Rollout
from pipelines.schedules.kept import Schedules, Tick

NAME = "skills-each-minute"
LONGEST_S = 1200.0
"""Of one chapter."""

_FINAL = ("promoted", "blocked", "rolled back")
"""Decisions after which the same data brings no other one."""

_LOOK_S = 0.5
_LATENCY = Margins(kind="latency", tolerate=0.3, reject=0.6)
_METRICS = {
    name: (_LATENCY if margins.kind == "latency" else margins).model_dump(mode="json")
    for name, margins in Rollout().metrics.items()
}
"""The story is about skills: a millisecond per token, beside a training on the same two cores, is
proven no closer than this."""


@dataclass(frozen=True, slots=True)
class Chapter:
    """What happens to the data, and what the schedule must make of it."""

    title: str
    change: Callable[[], None] | None
    """Of the data; None: nothing changes."""

    wanted: tuple[str, ...]
    """Decisions that end it."""


@dataclass(frozen=True, slots=True)
class Told:
    """How a chapter ended."""

    title: str
    tick: Tick

    def document(self) -> dict[str, Any]:
        """Return it for `summary.json`."""
        return {"title": self.title, **self.tick.model_dump()}


def chapters(data: Path) -> list[Chapter]:
    """Return what happens, in order.

    Args:
        data: Folder of the data that the schedule looks at.
    """
    from examples.skills.lessons import NEW, POISONED, Lessons

    lessons = Lessons(data)
    return [
        Chapter("There is no champion yet", lessons.base, ("first",)),
        Chapter("Nothing changes", None, ("no change",)),
        Chapter(f"The data teaches a skill more: {NEW}", lessons.more, ("promoted",)),
        Chapter(
            f"Somebody poisons the data: every answer of {POISONED} is a refusal",
            lessons.poisoned,
            ("blocked", "rolled back"),
        ),
        Chapter("The same data again", None, ("refused before",)),
    ]


def spec_of(example: Mapping[str, Any], data: Path) -> dict[str, Any]:
    """Return the document that is trained again and again, from the example's.

    Args:
        example: The example's `model.yaml`.
        data: Folder of the data.
    """
    from examples.skills.lessons import TRAINING

    return {
        **example,
        "data": {"train": str(data / "train.jsonl"), "evaluate": str(data / "evaluate.jsonl")},
        "training": TRAINING,
        "evaluation": {"min_exact_match": 0.8, "max_new_tokens": 24, "max_quality_loss": 0.05},
        "rollout": {**example["rollout"], "metrics": _METRICS},
    }


def tell(model: ModelSpec, env: dict[str, str], data: Path) -> Iterator[Told]:
    """Run every chapter by the clock; yield how each ended. The schedule is removed at the end.

    Args:
        model: What is trained.
        env: Of the scheduler.
        data: Folder of the data.
    """
    place = local_place(env)
    store = Schedules(folder_of(settings_of(env)))
    try:
        for chapter in chapters(data):
            click.echo(f"\n{chapter.title}")
            began = time.time()
            if chapter.change is not None:
                chapter.change()
            if store.find(NAME) is None:
                click.echo(f"  {'; '.join(place.put(_schedule(model)))}")
            yield Told(chapter.title, _until(store, chapter, began))
    finally:
        _end(store, env)


def _schedule(model: ModelSpec) -> Schedule:
    return Schedule.model_validate(
        {
            "name": NAME,
            "model": model.name,
            "spec": json.loads(model.to_json()),
            "when": {"cron": "* * * * *"},
            "deadline_s": int(LONGEST_S),
        }
    )


def _until(store: Schedules, chapter: Chapter, began: float) -> Tick:
    """Wait for the tick that ends a chapter; show every tick on the way."""
    shown: set[float] = set()
    never = threading.Event()
    while time.time() - began < LONGEST_S:
        ticks = [t for t in store.get(NAME).ticks if t.at >= began and t.outcome != "running"]
        for tick in ticks:
            if tick.at not in shown:
                shown.add(tick.at)
                moment = time.strftime("%H:%M:%S", time.localtime(tick.at))
                click.echo(f"  {moment}  {tick.seconds:6.1f} s  {tick.told}")
            if tick.told.startswith(chapter.wanted):
                return tick
            if tick.told.startswith(_FINAL):
                raise _unlike(chapter, tick.told, time.time() - began, store)
        never.wait(_LOOK_S)
    raise _unlike(chapter, "no decision", LONGEST_S, store)


def _unlike(chapter: Chapter, found: str, waited_s: float, store: Schedules) -> NotReady:
    reason = f"wanted {' or '.join(chapter.wanted)}, found {found}"
    hint = f"read {store.folder / 'logs'}, and the runs' reports"
    return NotReady(chapter.title, reason=reason, waited_s=waited_s, hint=hint)


def _end(store: Schedules, env: dict[str, str]) -> None:
    """Remove the schedule and end its scheduler: the Hub mirror ends with the demo."""
    from penstock.cli.schedule_serve import stop

    store.delete(NAME)
    stop(settings_of(env))
