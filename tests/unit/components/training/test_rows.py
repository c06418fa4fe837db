"""Only answers are learnt, with the token that ends them; what is held out stays held out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.training.rows import (
    IGNORED,
    Example,
    example,
    require_short,
    require_template,
    split,
)
from penstock.core.errors import ConfigurationError, DataRefused


class Letters:
    """A tokenizer of one token per character; `.` ends a turn."""

    eos_token_id = ord(".")

    def __init__(self, *, moody: bool = False, stops: bool = True) -> None:
        self._moody, self._stops = moody, stops

    def apply_chat_template(self, turns: Sequence[dict[str, str]], **options: Any) -> str:
        if any(turn["role"] == "robot" for turn in turns):
            raise TypeError("who is robot?")
        head = f"{len(turns)}" if self._moody else ""
        end = "." if self._stops else ""
        told = "".join(f"<{turn['role'][0]}>{turn['content']}{end}" for turn in turns)
        return head + told + ("<a>" if options.get("add_generation_prompt") else "")

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [*([0] if add_special_tokens else []), *map(ord, text)]


ASKED = [{"role": "user", "content": "who?"}]


def test_the_question_is_masked_and_the_end_is_learnt() -> None:
    found = example(Letters(), "r", ASKED, "me")
    row = found.to_row()
    assert bytes(row["input_ids"]).decode() == "<u>who?.<a>me."
    learnt = [token for token, label in zip(*row.values(), strict=True) if label != IGNORED]
    assert bytes(learnt).decode() == "me."
    assert [label for label in row["labels"] if label != IGNORED] == learnt


def test_an_end_that_the_template_does_not_write_is_added_once() -> None:
    assert example(Letters(stops=False), "r", ASKED, "me").answered == tuple(map(ord, "me."))
    assert example(Letters(), "r", ASKED, "me").answered.count(ord(".")) == 1


@pytest.mark.parametrize(
    ("tokenizer", "turns", "told"),
    [
        (Letters(), [{"role": "robot", "content": "x"}], "row r7: the chat template refuses it"),
        (Letters(moody=True), ASKED, "row r7: the chat template writes the question otherwise"),
    ],
)
def test_rows_that_no_template_can_ask_are_named(
    tokenizer: Letters, turns: list[dict[str, str]], told: str
) -> None:
    with pytest.raises(DataRefused, match=told):
        example(tokenizer, "r7", turns, "x")


def test_no_template_and_long_rows_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="no chat template"):
        require_template(None, "base")
    rows = [Example(f"r{n}", (1,) * n, (1,)) for n in range(12)]
    require_short(rows, 12)
    with pytest.raises(DataRefused, match=r"2 rows are longer than 10 tokens, such as r10 \(11"):
        require_short(rows, 10)


@given(st.sets(st.text(max_size=8), min_size=1, max_size=40), st.floats(0, 0.5))
def test_a_row_keeps_its_part_whatever_other_rows_do(names: set[str], share: float) -> None:
    every = sorted(names)
    learnt, held = split(every, share)
    assert sorted([*learnt, *held]) == list(range(len(every)))
    assert learnt
    apart = {every[k] for k in held}
    half = every[::2]
    again = {half[k] for k in split(half, share)[1]}
    assert again <= apart | {half[0]}
    assert not split(every, 0.0)[1]


def test_about_the_share_is_held_out() -> None:
    _, held = split([f"r{n}" for n in range(10_000)], 0.05)
    assert 400 < len(held) < 600
