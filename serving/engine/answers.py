"""From a request's tokens to text, and from text to the JSON of the OpenAI API."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from serving.engine.batcher import Batcher, Generation
from serving.engine.detokenize import Detokenizer
from serving.engine.loading import Loaded
from serving.engine.sampler import TokenLogprob
from serving.engine.stops import StopMatcher


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer."""

    text: str
    logprobs: Sequence[TokenLogprob] = ()
    finish_reason: str | None = None
    """`stop` or `length` on the last piece."""


@dataclass(slots=True)
class Answer:
    """One request being answered; iterate over it once, inside the handler of the request.

    However the iteration ends, also by the client's disappearance, the request leaves the batch.
    """

    loaded: Loaded
    batcher: Batcher
    generation: Generation
    stops: Sequence[str]
    created: int = field(default_factory=lambda: int(time.time()))
    completion_tokens: int = 0

    @property
    def usage(self) -> dict[str, int]:
        """Token counts in OpenAI's shape."""
        prompt = len(self.generation.prompt_ids)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self.completion_tokens,
            "total_tokens": prompt + self.completion_tokens,
        }

    async def pieces(self) -> AsyncIterator[Piece]:
        """Yields the answer as it grows; the last piece has the finish reason."""
        text = _TextStream(self.loaded, self.stops)
        outcome = "abort"
        try:
            while True:
                tokens = await self.generation.step()
                shown = text.push(tokens.ids)
                before = self.completion_tokens
                self.completion_tokens += text.consumed
                logprobs = self.generation.logprobs[before : self.completion_tokens]
                if tokens.finished or text.stopped:
                    outcome = self._finish_reason(tokens.ids, stopped=text.stopped)
                    yield Piece(shown + text.flush(), logprobs, outcome)
                    return
                if shown or logprobs:
                    yield Piece(shown, logprobs)
        except Exception:
            outcome = "error"
            raise
        finally:
            self.batcher.finish(self.generation, outcome)

    def _finish_reason(self, ids: Sequence[int], *, stopped: bool) -> str:
        at_end = bool(ids) and ids[-1] in self.generation.eos_token_ids
        return "stop" if stopped or at_end else "length"


class _TextStream:
    """Detokenizes, and cuts at the first stop string."""

    def __init__(self, loaded: Loaded, stops: Sequence[str]) -> None:
        self._detokenizer = Detokenizer(loaded.decode)
        self._matcher = StopMatcher(stops)
        self.consumed = 0
        """Tokens taken from the last push; fewer than given when a stop string came."""

    @property
    def stopped(self) -> bool:
        return self._matcher.matched

    def push(self, ids: Sequence[int]) -> str:
        shown = ""
        self.consumed = 0
        for token_id in ids:
            shown += self._matcher.push(self._detokenizer.push(token_id))
            self.consumed += 1
            if self._matcher.matched:
                break
        return shown

    def flush(self) -> str:
        if self._matcher.matched:
            return ""
        return self._matcher.push(self._detokenizer.flush()) + self._matcher.flush()


class Format(Protocol):
    """How an endpoint writes an answer."""

    def whole(self, text: str, logprobs: Sequence[TokenLogprob], reason: str) -> dict[str, Any]:
        """Returns the body of an answer given at once, without usage."""
        ...

    def opening(self) -> dict[str, Any] | None:
        """Returns the chunk before the first token, if the endpoint has one."""
        ...

    def chunk(self, piece: Piece) -> dict[str, Any]:
        """Returns the chunk of one piece."""
        ...

    def usage(self, usage: dict[str, int]) -> dict[str, Any]:
        """Returns the last chunk of a stream with token counts."""
        ...


@dataclass(frozen=True, slots=True)
class _Writer:
    """What both formats share: the fields around the choice."""

    loaded: Loaded
    model_name: str
    answer: Answer
    with_logprobs: bool

    def body(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        prefix = "cmpl" if kind == "text_completion" else "chatcmpl"
        return {
            "id": f"{prefix}-{self.answer.generation.request_id}",
            "object": kind,
            "created": self.answer.created,
            "model": self.model_name,
            "choices": choices,
        }

    def token(self, token_id: int, logprob: float) -> dict[str, Any]:
        text = self.loaded.token_text(token_id)
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


class ChatFormat(_Writer):
    """The bodies of `/v1/chat/completions`."""

    def whole(self, text: str, logprobs: Sequence[TokenLogprob], reason: str) -> dict[str, Any]:
        """Returns the body of an answer given at once, without usage."""
        message = {"role": "assistant", "content": text, "refusal": None}
        return self.body(
            "chat.completion",
            [
                {
                    "index": 0,
                    "message": message,
                    "logprobs": self._logprobs(logprobs),
                    "finish_reason": reason,
                }
            ],
        )

    def opening(self) -> dict[str, Any]:
        """Returns the chunk that names the role."""
        return self._delta({"role": "assistant", "content": ""}, None, None)

    def chunk(self, piece: Piece) -> dict[str, Any]:
        """Returns the chunk of one piece."""
        delta = {"content": piece.text} if piece.text else {}
        return self._delta(delta, self._logprobs(piece.logprobs), piece.finish_reason)

    def usage(self, usage: dict[str, int]) -> dict[str, Any]:
        """Returns the last chunk of a stream with token counts."""
        return {**self.body("chat.completion.chunk", []), "usage": usage}

    def _delta(
        self, delta: dict[str, str], logprobs: dict[str, Any] | None, reason: str | None
    ) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return self.body("chat.completion.chunk", [choice])

    def _logprobs(self, logprobs: Sequence[TokenLogprob]) -> dict[str, Any] | None:
        if not self.with_logprobs:
            return None
        content = [
            {
                **self.token(each.token_id, each.logprob),
                "top_logprobs": [self.token(*pair) for pair in each.alternatives],
            }
            for each in logprobs
        ]
        return {"content": content, "refusal": None}


class CompletionFormat(_Writer):
    """The bodies of `/v1/completions`."""

    def whole(self, text: str, logprobs: Sequence[TokenLogprob], reason: str) -> dict[str, Any]:
        """Returns the body of an answer given at once, without usage."""
        return self.chunk(Piece(text, logprobs, reason))

    def opening(self) -> None:
        """Returns nothing: completions have no role to name."""

    def chunk(self, piece: Piece) -> dict[str, Any]:
        """Returns the chunk of one piece."""
        return self.body(
            "text_completion",
            [
                {
                    "index": 0,
                    "text": piece.text,
                    "logprobs": self._logprobs(piece.logprobs),
                    "finish_reason": piece.finish_reason,
                }
            ],
        )

    def usage(self, usage: dict[str, int]) -> dict[str, Any]:
        """Returns the last chunk of a stream with token counts."""
        return {**self.body("text_completion", []), "usage": usage}

    def _logprobs(self, logprobs: Sequence[TokenLogprob]) -> dict[str, Any] | None:
        if not self.with_logprobs:
            return None
        tokens = [self.token(each.token_id, each.logprob) for each in logprobs]
        return {
            "tokens": [token["token"] for token in tokens],
            "token_logprobs": [each.logprob for each in logprobs],
            "top_logprobs": [
                {self.token(*pair)["token"]: pair[1] for pair in each.alternatives}
                for each in logprobs
            ],
        }
