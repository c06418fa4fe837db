"""When the tokens of a streamed answer came: one definition, for the gateway and for the replay.

An event carries content if it has a non-empty string of output: `content` (chat), `text`
(completions), reasoning, or arguments of a tool call. So neither the event that names the role,
nor the one with the finish reason, nor `[DONE]` count. TTFT ends with the first event that
carries content. TPOT is (last - first) / (n - 1) over the n events that do; an engine that sends
several tokens in one event has a longer time per event, in both versions alike.
"""

from __future__ import annotations

import re

_DATA = b"data:"
# a quote inside a JSON string is escaped, so what a model writes cannot look like a key
_CONTENT = re.compile(rb'"(?:content|text|reasoning_content|reasoning|arguments)"\s*:\s*"(?!")')
_ERROR = re.compile(rb'data:\s*\{\s*"(?:error"\s*:\s*\{|object"\s*:\s*"error")')


class StreamClock:
    """Watches one answer go by.

    Args:
        start: When the request was sent, on the clock of `feed`.
    """

    __slots__ = ("_first", "_last", "_rest", "_start", "events", "failed")

    def __init__(self, start: float) -> None:
        self._start = start
        self._first = self._last = 0.0
        self._rest = b""
        self.events = 0
        """Events that carried content."""

        self.failed = False
        """Whether the engine sent an error instead of the rest: the status was 200 already."""

    def feed(self, chunk: bytes, now: float) -> list[bytes]:
        """Count what came at `now`; return the lines that are complete, as `data_of` takes them."""
        lines = (self._rest + chunk if self._rest else chunk).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if not line.startswith(_DATA):
                continue
            if _CONTENT.search(line) is not None:
                if self.events == 0:
                    self._first = now
                self._last = now
                self.events += 1
            elif _ERROR.match(line) is not None:
                self.failed = True
        return lines

    @property
    def ttft_s(self) -> float | None:
        """Time to the first token; None before it came."""
        return self._first - self._start if self.events else None

    @property
    def tpot_s(self) -> float | None:
        """Time per output token, first one excluded; None for fewer than two."""
        return (self._last - self._first) / (self.events - 1) if self.events > 1 else None


def data_of(line: bytes) -> bytes:
    """Return the JSON of an event's line; empty for other lines and for `[DONE]`."""
    data = line.removeprefix(_DATA).strip()
    return b"" if not line.startswith(_DATA) or data == b"[DONE]" else data
