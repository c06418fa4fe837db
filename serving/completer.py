"""What answers a prompt: an OpenAI-compatible endpoint, or a checkpoint loaded in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypedDict


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Completion:
    """One greedy answer with its cost."""

    text: str
    finish_reason: str
    """`stop` or `length`, as OpenAI names them."""

    prompt_tokens: int
    completion_tokens: int
    ttft_s: float | None
    """None where it was not observed (batched in process)."""

    e2e_s: float


class Completer(Protocol):
    """Answers conversations greedily (temperature 0), several at a time."""

    @property
    def description(self) -> str:
        """Where the answers come from, for reports: a URL, or `in process: <folder>`."""
        ...

    def complete(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        max_new_tokens: int,
        on_done: Callable[[int], None] = ...,
    ) -> list[Completion]:
        """Return one completion per conversation, in order; `on_done(n)` reports progress."""
        ...

    def answer_log_likelihoods(
        self, conversations: Sequence[Sequence[Message]], answers: Sequence[str]
    ) -> list[tuple[float, int]] | None:
        """Return per item the natural-log likelihood of the answer, and its token count.

        None where the endpoint cannot tell; perplexity is then skipped, with that reason.
        """
        ...

    def close(self) -> None:
        """Release threads, connections and memory."""
        ...
