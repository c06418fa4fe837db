from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from components.guard.fixed import judge
from components.guard.items import Judged
from components.steps.judged import section


def _table(_head: Sequence[str] | None, rows: Sequence[Sequence[str]]) -> str:
    return "|".join(f"{name}={value}" for name, value in rows)


def _verdict(**more: Any) -> dict[str, Any]:
    items = [Judged(str(n), "add", 4, parent=True, candidate=n > 0) for n in range(300)]
    return {**judge(items, margin=0.05).to_json(), "not_compared": "", **more}


def test_the_verdict_is_shown_with_its_numbers() -> None:
    page = section({"verdict": _verdict()}, _table)
    assert '<span class="badge accept">accept</span>' in page
    assert "items that both answered=300|gained / lost=0 / 1" in page
    assert "distributions" not in page
    silent = section({"verdict": _verdict(not_compared="it tells <nothing>")}, _table)
    assert "distributions=not compared: it tells <nothing>" in silent, "the table escapes"


def test_what_was_not_judged_says_why() -> None:
    assert section({}, _table) == ""
    assert section({"refused": "another <node>"}, _table) == "<p>Refused: another &lt;node&gt;</p>"
    came = {"outcome": "accept", "reason": "the checkpoint is served as it came"}
    assert section({"verdict": came}, _table).endswith("the checkpoint is served as it came</p>")
