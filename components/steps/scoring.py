"""Scores answers: right or not, per item; shares with intervals."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serving.completer import Completer, Message

Z95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""


@dataclass(frozen=True, slots=True)
class Item:
    """One question of the suite."""

    identity: str
    skill: str
    conversation: Sequence[Message]
    answer: str


@dataclass(frozen=True, slots=True)
class Share:
    """Right answers with their Wilson interval (95 %)."""

    n: int
    correct: int

    @property
    def share(self) -> float:
        """Right answers over all; 0 for none."""
        return self.correct / self.n if self.n else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's score interval; (0, 1) when nothing was asked.

        Source: Wilson, JASA 22 (1927), 209-212.
        """
        if self.n == 0:
            return 0.0, 1.0
        n, p = self.n, self.share
        middle = p + Z95**2 / (2 * n)
        half = Z95 * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n * n))
        scale = 1 + Z95**2 / n
        low = 0.0 if self.correct == 0 else (middle - half) / scale
        high = 1.0 if self.correct == n else (middle + half) / scale
        return low, high

    def to_json(self) -> dict[str, Any]:
        """Return counts, share and interval."""
        low, high = self.interval
        return {
            "n": self.n,
            "correct": self.correct,
            "share": self.share,
            "low": low,
            "high": high,
        }


def measure(
    completer: Completer,
    items: Sequence[Item],
    *,
    max_new_tokens: int,
    on_progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Return exact match overall and per skill, perplexity of the answers, and every item.

    Args:
        completer: What answers.
        items: What is asked.
        max_new_tokens: Longest answer.
        on_progress: Told (answers so far, answers in all).
    """
    conversations = [item.conversation for item in items]
    start = time.process_time()
    completions = completer.complete(
        conversations,
        max_new_tokens=max_new_tokens,
        on_done=lambda done: on_progress(done, len(items)),
    )
    cpu_s = time.process_time() - start  # of this process: whoever else works here does not count
    records = [
        {
            "id": item.identity,
            "skill": item.skill,
            "expected": item.answer,
            "answered": completion.text,
            "correct": completion.text.strip() == item.answer.strip(),
            "tokens": completion.completion_tokens,
        }
        for item, completion in zip(items, completions, strict=True)
    ]
    likelihoods = completer.answer_log_likelihoods(conversations, [i.answer for i in items])
    tokens = [c.completion_tokens for c in completions]
    return {
        "exact_match": share_of(records).to_json(),
        "skills": [
            {"skill": skill, **share_of(r for r in records if r["skill"] == skill).to_json()}
            for skill in sorted({str(r["skill"]) for r in records})
        ],
        "perplexity": perplexity(likelihoods),
        "perplexity_skipped": "" if likelihoods else "the endpoint does not score given answers",
        "latency": latency([c.ttft_s for c in completions], [c.e2e_s for c in completions]),
        "tokens": sum(tokens),
        "speed": {"tokens": sum(tokens), "cpu_s": cpu_s},
        "answered_by": completer.description,
        "items": records,
    }


def share_of(records: Iterable[Mapping[str, Any]]) -> Share:
    """Return the share of right answers."""
    told = [bool(record["correct"]) for record in records]
    return Share(len(told), sum(told))


def perplexity(likelihoods: Sequence[tuple[float, int]] | None) -> float | None:
    """Return exp(-mean log-likelihood per answer token); None where it cannot be known."""
    tokens = sum(count for _, count in likelihoods or ())
    if not likelihoods or tokens == 0:
        return None
    return math.exp(-sum(log for log, _ in likelihoods) / tokens)


def latency(ttft_s: Sequence[float | None], e2e_s: Sequence[float]) -> dict[str, Any] | None:
    """Return p50 and p95 in seconds; None where first tokens were not observed."""
    seen = sorted(t for t in ttft_s if t is not None)
    if not seen:
        return None
    ends = sorted(e2e_s)
    return {
        "requests": len(seen),
        "ttft_s": {"p50": quantile(seen, 0.5), "p95": quantile(seen, 0.95)},
        "e2e_s": {"p50": quantile(ends, 0.5), "p95": quantile(ends, 0.95)},
    }


def quantile(ordered: Sequence[float], q: float) -> float:
    """Return the smallest value that at least a share `q` of the values does not exceed."""
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]
