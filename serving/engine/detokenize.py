"""Tokens to text, piece by piece: a character whose bytes span tokens appears when it is whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"
LONGEST_WAIT = 4
"""Tokens to wait for the rest of a character; UTF-8 needs at most four bytes."""


class Detokenizer:
    """Decodes a growing list of tokens; the pieces join to what decoding the whole list gives.

    A token's text may depend on its left neighbours (spaces, split characters), so each piece is
    the difference of two decodings that both start at the last place where the text was whole.

    Args:
        decode: Text of a list of token ids.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._window: list[int] = []
        self._shown = 0
        """Tokens of the window whose text has been returned."""
        self._shown_text = ""

    def push(self, token_id: int) -> str:
        """Returns the text that became whole with this token; may be empty."""
        self._window.append(token_id)
        text = self._decode(self._window)
        waiting = len(self._window) - self._shown
        if text.endswith(REPLACEMENT) and waiting < LONGEST_WAIT:
            return ""
        return self._advance(text)

    def flush(self) -> str:
        """Returns the text of tokens still waiting, at the end of the stream."""
        return self._advance(self._decode(self._window))

    def _advance(self, text: str) -> str:
        piece = text[len(self._shown_text) :]
        if not piece:
            return ""
        # keep the shown tokens as left context of the next; drop what was context before
        self._window = self._window[self._shown :]
        self._shown = len(self._window)
        self._shown_text = self._decode(self._window)
        return piece
