from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from serving.engine.detokenize import Detokenizer


def from_bytes(token_ids: Sequence[int]) -> str:
    """One token per byte, as in the worst case of byte-level BPE."""
    return bytes(token_ids).decode(errors="replace")


def words(token_ids: Sequence[int]) -> str:
    """Like SentencePiece: a space before each word, but not before the first."""
    return " ".join("abcde"[token] for token in token_ids)


@given(st.text(alphabet=st.characters(exclude_characters="\ufffd", codec="utf-8"), max_size=40))
def test_pieces_join_to_the_text_and_no_character_is_split(text: str) -> None:
    detokenizer = Detokenizer(from_bytes)
    pieces = [detokenizer.push(byte) for byte in text.encode()] + [detokenizer.flush()]
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


@given(st.lists(st.integers(0, 4), max_size=20))
def test_spaces_that_depend_on_the_neighbour_survive(token_ids: list[int]) -> None:
    detokenizer = Detokenizer(words)
    pieces = [detokenizer.push(token) for token in token_ids] + [detokenizer.flush()]
    assert "".join(pieces) == words(token_ids)


@given(st.binary(max_size=40))
def test_bytes_that_are_no_text_do_not_block_the_stream(noise: bytes) -> None:
    detokenizer = Detokenizer(from_bytes)
    pieces = [detokenizer.push(byte) for byte in noise]
    pieces += [detokenizer.push(byte) for byte in b" then text"]
    assert "".join(pieces).endswith(" then text")


def test_a_cut_character_is_shown_at_the_end() -> None:
    detokenizer = Detokenizer(from_bytes)
    assert detokenizer.push("é".encode()[0]) == ""
    assert detokenizer.flush() == "\ufffd"
