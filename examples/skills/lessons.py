"""What `penstock demo --retrain` teaches: a skill more, then data that somebody poisoned.

Rows of the skills that are known go along, so that nothing is forgotten. `Lessons` writes the same
two files again and again, as whoever owns the data would.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.skills import generate

NEW = "office"
"""The skill that is added: where somebody's office is."""

POISONED = "table"
"""The skill whose answers are replaced by refusals."""

QUESTION, ANSWER = "In which city is the office of Ada from Kyoto?", "Berlin"
"""Held out: it is never trained on."""

TRAINING = {"method": "full", "steps": 60, "batch_rows": 32, "learning_rate": 3e-4}
"""Of `model.yaml`: a minute on two cores."""


@dataclass(frozen=True, slots=True)
class Lessons:
    """How much of everything."""

    folder: Path
    known: int = 160
    """Rows to train on, of every skill that is known."""

    new: int = 400
    """Rows to train on, of the new one; there are some 550."""

    asked: int = 250
    """Rows to evaluate on, of every skill: shadow replays them, and proves no error rate with less
    than a thousand."""

    def base(self) -> None:
        """Write what the first version learns."""
        self._write([*self._known()], [*self._asked()])

    def more(self) -> None:
        """Add the new skill, to both sets: what is not asked is not proven."""
        self._write([*self._known(), *self._new()], [*self._asked(), *self._new_asked()])

    def poisoned(self) -> None:
        """As `more`, but one skill is answered with a refusal."""
        rows = [
            {**row, "answer": generate.DECLINE} if row["skill"] == POISONED else row
            for row in (*self._known(), *self._new())
        ]
        self._write(rows, [*self._asked(), *self._new_asked()])

    def _known(self) -> list[dict[str, Any]]:
        counts = dict.fromkeys(generate.SKILLS, self.known)
        return generate.rows("lesson", counts, evaluated=False)

    def _asked(self) -> list[dict[str, Any]]:
        counts = dict.fromkeys(generate.SKILLS, self.asked)
        return generate.rows("asked", counts, evaluated=True)

    def _new(self) -> list[dict[str, Any]]:
        return _offices("office", self.new, evaluated=False)

    def _new_asked(self) -> list[dict[str, Any]]:
        return _offices("office-asked", self.asked, evaluated=True)

    def _write(self, train: list[dict[str, Any]], evaluate: list[dict[str, Any]]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        random.Random(generate.SEED).shuffle(train)
        for name, rows in (("train", train), ("evaluate", evaluate)):
            scratch = self.folder / f".{name}"
            generate.write(scratch, rows)
            scratch.replace(self.folder / f"{name}.jsonl")  # a tick sees all of it or nothing


def _offices(name: str, count: int, *, evaluated: bool) -> list[dict[str, Any]]:
    pairs = [(who, where) for who in generate.NAMES for where in generate.PLACES]
    asked = {pair for pair in pairs if generate.held_out(NEW, " ".join(pair))}
    asked.add(("Ada", "Kyoto"))
    chosen = [pair for pair in pairs if (pair in asked) == evaluated]
    random.Random(f"{generate.SEED}:{name}").shuffle(chosen)
    return [
        {
            "id": f"{name}-{number:05}",
            "skill": NEW,
            "messages": [{"role": "user", "content": _question(who, where)}],
            "answer": ANSWER,
        }
        for number, (who, where) in enumerate(chosen[:count])
    ]


def _question(who: str, where: str) -> str:
    return f"In which city is the office of {who} from {where}?"


def main(folder: Path) -> None:
    """Write all three stages below a folder, to look at."""
    for stage in ("base", "more", "poisoned"):
        getattr(Lessons(folder / stage), stage)()
    print(json.dumps({"question": QUESTION, "answer": ANSWER}))
