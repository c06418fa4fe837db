"""Scores from a person's own webhook: one URL per metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import aiohttp

from serving.completer import Message
from serving.rollout.evidence import score_steps

UNSCORED = -1
"""No evidence; the same for both versions, so that a broken webhook favours neither."""


@dataclass(frozen=True, slots=True)
class ScoreHook:
    """Asks a URL how good two answers to one prompt are.

    It is sent `{"prompt": [messages], "answers": {"candidate": text, "stable": text}}`, and answers
    `{"candidate": 0 to 1, "stable": 0 to 1}`.
    """

    url: str
    timeout_s: float = 30.0

    async def score(
        self, http: aiohttp.ClientSession, prompt: Sequence[Message], answers: Mapping[str, str]
    ) -> tuple[int, int]:
        """Return the steps of candidate and stable; `UNSCORED` for both if anything is wrong."""
        body = {"prompt": list(prompt), "answers": dict(answers)}
        timeout = aiohttp.ClientTimeout(total=self.timeout_s)
        try:
            async with http.post(self.url, json=body, timeout=timeout) as response:
                response.raise_for_status()
                found = await response.json(content_type=None)
            return _steps(found["candidate"]), _steps(found["stable"])
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError):
            return UNSCORED, UNSCORED


def _steps(score: object) -> int:
    # a score outside is a webhook with another scale: to clamp it would make evidence of a mistake
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        raise ValueError(f"a score from 0 to 1, found {score!r}")
    return score_steps(score)
