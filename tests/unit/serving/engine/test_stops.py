from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from serving.engine.stops import StopMatcher

TEXT = st.text(alphabet="ab\n", max_size=30)
STOPS = st.lists(st.text(alphabet="ab\n", min_size=1, max_size=4), max_size=4)


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


def shown(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    matcher = StopMatcher(stops)
    text = "".join(matcher.push(piece) for piece in pieces)
    return text + matcher.flush(), matcher.matched


@given(TEXT, STOPS, st.lists(st.integers(0, 100), max_size=10))
def test_the_cuts_between_pieces_do_not_matter(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    assert shown(pieces_of(text, cuts), stops) == shown(list(text), stops)


@given(TEXT, STOPS)
def test_no_stop_string_is_shown_and_nothing_else_is_lost(text: str, stops: list[str]) -> None:
    passed, matched = shown(list(text), stops)
    assert text.startswith(passed)
    assert not any(stop in passed for stop in stops)
    assert matched == any(stop in text for stop in stops)
    assert matched or passed == text


def test_text_that_cannot_become_a_stop_string_is_not_held_back() -> None:
    matcher = StopMatcher(["END"])
    assert matcher.push("abE") == "ab"
    assert matcher.push("x") == "Ex"
    assert matcher.push("EN") == ""
    assert matcher.flush() == "EN"
