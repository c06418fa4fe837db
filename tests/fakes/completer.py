"""A completer that answers from a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from penstock.core.errors import ServingError
from serving.completer import Completion, Message


class FakeCompleter:
    """Answers the last message from a table; a token is a word.

    Args:
        answers: Last message to answer; what is missing is answered with `default`.
        default: The answer to everything else.
        scores: Whether it can score given answers; every token then has probability 1/2.
    """

    def __init__(
        self, answers: Mapping[str, str], *, default: str = "", scores: bool = True
    ) -> None:
        self._answers = answers
        self._default = default
        self._scores = scores
        self.closed = False

    @property
    def description(self) -> str:
        return "a table"

    def complete(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        max_new_tokens: int,
        on_done: Callable[[int], None] = lambda _count: None,
    ) -> list[Completion]:
        self._refuse_closed()
        found = []
        for conversation in conversations:
            found.append(self._answer(conversation, max_new_tokens))
            on_done(len(found))
        return found

    def answer_log_likelihoods(
        self, conversations: Sequence[Sequence[Message]], answers: Sequence[str]
    ) -> list[tuple[float, int]] | None:
        self._refuse_closed()
        if not self._scores:
            return None
        counts = [len(answer.split()) + 1 for answer in answers]
        return [(count * math.log(0.5), count) for count in counts]

    def close(self) -> None:
        self.closed = True

    def _answer(self, conversation: Sequence[Message], max_new_tokens: int) -> Completion:
        words = self._answers.get(conversation[-1]["content"], self._default).split(" ")
        cut = words[:max_new_tokens]
        return Completion(
            text=" ".join(cut),
            finish_reason="stop" if len(words) < max_new_tokens else "length",
            prompt_tokens=sum(len(turn["content"].split()) for turn in conversation),
            completion_tokens=min(len(words) + 1, max_new_tokens),
            ttft_s=None,
            e2e_s=0.0,
        )

    def _refuse_closed(self) -> None:
        if self.closed:
            raise ServingError("a table: already closed")
