"""Evidence without users: the same prompts to both versions, at the same time, side by side.

Both answers to a prompt are asked for together, so both versions work under the same load, and
which request leaves first differs from prompt to prompt. TTFT and TPOT are seen from here, with
the definitions of `serving.sse`, through the gateway as users would see them.

Order: prompts are sorted by a hash of seed and conversation, and the cursor is the last hash that
was sent. So a cursor means the same over any restart, also when prompts came or went meanwhile;
a conversation that stands twice is sent once; and nothing behind the cursor is sent again. When no
prompt is left, the replay is `exhausted`: to begin again brings answers, not new evidence, because
the same prompts are not independent of themselves.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp
import numpy as np

from serving.completer import Message
from serving.doors import Doors
from serving.local.requestlog import Entry
from serving.rollout.evidence import NO_PAIRS, SCORE_STEPS, Pairs, bucket_of
from serving.sources.ask import Answer, Asker
from serving.sources.scores import UNSCORED, ScoreHook

QUALITY, TTFT, TPOT = "quality", "ttft_p95", "tpot_p95"
_UNDEFINED = -1
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation that waits for an answer."""

    messages: tuple[Message, ...]
    expected: str | None = None
    """The right answer, where it is known."""

    def key(self, seed: int) -> str:
        """Return where it stands in the order of a seed; what is expected does not matter."""
        text = json.dumps(self.messages, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(f"{seed}\0{text}".encode(errors="replace")).hexdigest()[:24]


def prompts_of(entries: Iterable[Entry]) -> list[Prompt]:
    """Return the conversations in a request log: chats that were answered, and not cut off."""
    found = []
    for entry in entries:
        if entry.status != 200 or not entry.path.endswith("/chat/completions"):
            continue
        try:
            turns = [(turn["role"], turn["content"]) for turn in json.loads(entry.body)["messages"]]
        except (ValueError, KeyError, TypeError):
            continue
        if turns and all(isinstance(part, str) for turn in turns for part in turn):
            found.append(Prompt(tuple(Message(role=role, content=text) for role, text in turns)))
    return found


@dataclass(frozen=True, slots=True)
class Load:
    """How prompts are sent."""

    concurrency: int = 4
    """Prompts in flight; each is two requests."""

    max_new_tokens: int = 64
    timeout_s: float = 60.0
    """An answer that takes longer did not come."""


@dataclass(frozen=True, slots=True)
class Versions:
    """Two versions of one model."""

    doors: Doors
    name: str
    candidate: str
    stable: str


@dataclass(frozen=True, slots=True)
class _Row:
    """One prompt, answered by both."""

    candidate: Answer
    stable: Answer
    scores: Mapping[str, tuple[int, int]] = field(default_factory=dict)


class PairedReplayer:
    """Asks both versions of a model the same prompts.

    Args:
        versions: Whom to ask.
        prompts: What to ask; in which order, the seed decides.
        seed: Of the order.
        load: How much at once.
        hooks: Metric to the webhook that scores it.
        replaced: Returns whether somebody took the candidate's replicas away, and others start.
    """

    def __init__(
        self,
        versions: Versions,
        prompts: Iterable[Prompt],
        *,
        seed: int,
        load: Load | None = None,
        hooks: Mapping[str, ScoreHook] | None = None,
        replaced: Callable[[], bool] = lambda: False,
    ) -> None:
        self._versions, self._replaced = versions, replaced
        self._load = load or Load()
        self._hooks = dict(hooks or {})
        known: dict[str, Prompt] = {}
        for prompt in prompts:
            key = prompt.key(seed)
            if key not in known or known[key].expected is None:
                known[key] = prompt
        self._order = sorted(known.items())

    def remaining(self, cursor: str | None) -> int:
        """Return how many prompts lie behind a cursor."""
        return sum(1 for key, _prompt in self._order if key > (cursor or ""))

    def exhausted(self, cursor: str | None) -> bool:
        """Return whether no prompt is left: more of this replay would be no new evidence."""
        return not self._order or self._order[-1][0] <= (cursor or "")

    def replay(self, cursor: str | None, count: int) -> tuple[Pairs, str]:
        """Return the answers to the next `count` prompts, and the cursor behind them.

        Fewer where prompts run out, or where the stable version could not be reached: there is
        nothing to compare with then, and the prompt is spent. A candidate that cannot be reached
        is an error of the candidate, unless somebody took its replicas away.

        Raises:
            NotReady: Neither can be reached: no evidence, and the cursor stays.
            ServingError: There is no such version.
        """
        ahead = (each for each in self._order if each[0] > (cursor or ""))
        chosen = list(itertools.islice(ahead, count))
        if not chosen:
            return NO_PAIRS, cursor or ""
        rows = asyncio.run(self._rows(chosen))
        compared = [row for row in rows if row.stable.reached]
        if any(row.candidate.lost for row in compared) and self._replaced():
            compared = [row for row in compared if not row.candidate.lost]
        return _pairs(compared, [QUALITY, *self._hooks]), chosen[-1][0]

    async def _rows(self, chosen: Sequence[tuple[str, Prompt]]) -> list[_Row]:
        places = asyncio.Semaphore(self._load.concurrency)
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=self._load.timeout_s),
        ) as http:
            asker = Asker(
                http, self._versions.doors, self._versions.name, self._load.max_new_tokens
            )

            async def one(key: str, prompt: Prompt) -> _Row:
                async with places:
                    return await self._row(asker, prompt, stable_first=int(key, 16) % 2 == 1)

            rows = await _together([one(key, prompt) for key, prompt in chosen])
            if any(row.candidate.broken or row.stable.broken for row in rows):
                await asker.check()  # was it a version that broke off, or the gateway that ended?
            return rows

    async def _row(self, asker: Asker, prompt: Prompt, *, stable_first: bool) -> _Row:
        order = [self._versions.candidate, self._versions.stable]
        if stable_first:
            order.reverse()
        # tasks start in the order they are made: this is the order in which the requests leave
        answers = await _together([asker.ask(service, prompt.messages) for service in order])
        if stable_first:
            answers.reverse()
        candidate, stable = answers
        scores = {QUALITY: (_right(candidate, prompt), _right(stable, prompt))}
        if not candidate.failed and not stable.failed:
            texts = {"candidate": candidate.text, "stable": stable.text}
            for metric, hook in self._hooks.items():
                scores[metric] = await hook.score(asker.http, prompt.messages, texts)
        return _Row(candidate, stable, scores)


async def _together(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Return the results in order; the first failure cancels the others and is raised itself."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in coroutines]
    except ExceptionGroup as several:
        raise several.exceptions[0] from several
    return [task.result() for task in tasks]


def _right(answer: Answer, prompt: Prompt) -> int:
    if answer.failed or prompt.expected is None:
        return UNSCORED
    return SCORE_STEPS if answer.text.strip() == prompt.expected.strip() else 0


def _pairs(rows: Sequence[_Row], metrics: Iterable[str]) -> Pairs:
    if not rows:
        return NO_PAIRS
    both = [(row.candidate, row.stable) for row in rows]
    unscored = (UNSCORED, UNSCORED)
    return Pairs(
        errors=np.array([[int(a.failed) for a in pair] for pair in both], dtype=np.int64),
        latency={
            TTFT: np.array([[_bucket(a.ttft_s) for a in pair] for pair in both], dtype=np.int64),
            TPOT: np.array([[_bucket(a.tpot_s) for a in pair] for pair in both], dtype=np.int64),
        },
        scores={
            metric: np.array([row.scores.get(metric, unscored) for row in rows], dtype=np.int64)
            for metric in metrics
        },
    )


def _bucket(seconds: float | None) -> int:
    return _UNDEFINED if seconds is None else bucket_of(seconds)
