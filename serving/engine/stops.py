"""Stop strings over a stream: text that may still become one is held back."""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Passes text through until a stop string appears; the string itself is never passed.

    Whatever the pieces are cut into, the text passed is the text before the first stop string.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._longest = max(map(len, self._stops), default=0)
        self._held = ""
        self.matched = False

    def push(self, piece: str) -> str:
        """Returns what may be shown now; sets `matched` when a stop string is complete."""
        if self.matched:
            return ""
        if not self._stops:
            return piece
        text = self._held + piece
        ends = [
            (found + len(stop), found) for stop in self._stops if (found := text.find(stop)) >= 0
        ]
        if ends:
            # the string that completes first stops the stream, however the pieces arrive
            self.matched = True
            self._held = ""
            first_end = min(ends)[0]
            return text[: min(start for end, start in ends if end == first_end)]
        keep = self._possible_start(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """Returns what was held back; the stream ended without completing a stop string."""
        held, self._held = self._held, ""
        return held

    def _possible_start(self, text: str) -> int:
        """Returns the length of the longest ending of `text` that begins a stop string."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            ending = text[len(text) - length :]
            if any(stop.startswith(ending) for stop in self._stops):
                return length
        return 0
