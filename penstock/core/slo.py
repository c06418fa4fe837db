"""Latency vocabulary: one definition per metric, in one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RequestTiming:
    """Client-side timestamps of one streamed completion, in seconds of one monotonic clock."""

    sent: float
    first_token: float
    last_token: float
    output_tokens: int

    @property
    def ttft_s(self) -> float:
        """Time to first token: queueing and prefill."""
        return self.first_token - self.sent

    @property
    def tpot_s(self) -> float | None:
        """Time per output token, first one excluded (vLLM's definition); None for one token."""
        if self.output_tokens < 2:
            return None
        return (self.last_token - self.first_token) / (self.output_tokens - 1)

    @property
    def e2e_s(self) -> float:
        """From sent to the last token."""
        return self.last_token - self.sent
