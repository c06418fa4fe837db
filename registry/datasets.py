"""Data sets: JSONL, one question with its answer per line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from penstock.core.errors import ConfigurationError, DataRefused


class Turn(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    role: str
    content: str


class Row(BaseModel):
    """One item: what is asked, and what is right."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: str = Field(min_length=1)
    skill: str = "all"
    messages: list[Turn] = Field(min_length=1)
    answer: str = ""

    @property
    def prompt(self) -> str:
        """The conversation as one text, to compare rows by."""
        return "\n".join(f"{turn.role}: {turn.content}" for turn in self.messages)

    @property
    def conversation(self) -> list[dict[str, str]]:
        """The conversation as chat APIs take it."""
        return [turn.model_dump() for turn in self.messages]


def read_rows(path: Path) -> list[Row]:
    """Return a data set; `DataRefused` names the first malformed lines, or says it is empty."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # JSON may hold other line ends
    except OSError as problem:
        raise ConfigurationError(
            f"{path}: cannot be read: {problem.strerror}", hint="correct data in model.yaml"
        ) from problem
    except UnicodeDecodeError as problem:
        raise DataRefused(f"{path}: not UTF-8 at byte {problem.start}") from problem
    rows, wrong = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(Row.model_validate(json.loads(line)))
        except (ValueError, ValidationError) as problem:
            wrong.append(f"line {number}: {_first(problem)}")
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise DataRefused(
            f"{path}: {'; '.join(wrong[:3])}{more}",
            hint='each line: {"id", "skill", "messages": [{"role", "content"}], "answer"}',
        )
    if not rows:
        raise DataRefused(f"{path}: no rows", hint="an empty set proves nothing; add rows")
    return rows


def _first(problem: Exception) -> str:
    if isinstance(problem, ValidationError):
        error: Any = problem.errors()[0]
        where = ".".join(map(str, error["loc"])) or "row"
        return f"{where}: {error['msg']}"
    return str(problem)
