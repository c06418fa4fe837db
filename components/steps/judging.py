"""Judges one version against another: folders in this process, or models at endpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from components.guard import endpoint, fixed, inprocess, sequential
from components.guard.items import Distance, Judged
from components.guard.measures import Measure, measures
from components.guard.verdict import Verdict
from components.steps.scoring import Item
from penstock.core.errors import ConfigurationError
from serving.completer import Completer

MOST_COMPARED = 200
"""Items whose tokens are compared one by one; every item may be answered."""

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Side:
    """A checkpoint's folder, or a model at an OpenAI-compatible endpoint."""

    where: str
    """A path, or a URL."""

    model: str = ""
    """Its name at the endpoint."""

    api_key: str | None = None

    @property
    def served(self) -> bool:
        """Whether it is at an endpoint."""
        return self.where.startswith(("http://", "https://"))

    def check(self) -> None:
        """Raise `ConfigurationError` for what can be neither loaded nor asked."""
        if self.served:
            if not self.model:
                raise ConfigurationError(
                    f"{self.where}: an endpoint needs --model, the model's name there",
                    hint=f"curl {self.where}/v1/models",
                )
        elif not Path(self.where).is_dir():
            raise ConfigurationError(f"{self.where}: neither a folder nor a URL")

    def open(self) -> Completer:
        """Return what answers for it; to be closed."""
        self.check()
        if self.served:
            from serving.endpoint import EndpointCompleter

            return EndpointCompleter(self.where, self.model, api_key=self.api_key)
        from serving.engine.inprocess import InProcessCompleter

        return InProcessCompleter(Path(self.where))


@dataclass(frozen=True, slots=True)
class Questions:
    """What both are asked, and how much worse the candidate may be."""

    items: Sequence[Item]
    margin: float
    """Share of right answers that may be lost."""

    max_new_tokens: int
    stop_early: bool = False
    """Ask in a seeded random order, and end as soon as the verdict is known."""


def judge(parent: Side, candidate: Side, asked: Questions, on_progress: Progress) -> Verdict:
    """Return whether the candidate may replace the parent.

    Distributions are compared between two folders, or between two endpoints; between a folder and
    an endpoint only answers are.

    Args:
        parent: What is there.
        candidate: What may replace it.
        asked: The items.
        on_progress: Told (done, in all, what).
    """
    items = {item.identity: item for item in asked.items}
    for side in (parent, candidate):
        side.check()
    found = _measures(parent, candidate, asked, on_progress)  # loads one of two at a time
    with closing(parent.open()) as one, closing(candidate.open()) as other:
        done = 0

        def ask(identities: Sequence[str]) -> list[Judged]:
            nonlocal done
            batch = [items[identity] for identity in identities]
            judged = _answered(one, other, batch, asked.max_new_tokens)
            done += len(batch)
            on_progress(done, len(items), "answers")
            return judged

        if asked.stop_early:
            return sequential.judge_as_answered(
                list(items), ask, margin=asked.margin, measures=found
            )
        return fixed.judge(ask(list(items)), margin=asked.margin, measures=found)


def sample(items: Sequence[Item]) -> Sequence[Item]:
    """Return the items whose tokens are compared: spread evenly, `MOST_COMPARED` or fewer."""
    return items[:: max(1, -(-len(items) // MOST_COMPARED))]


def _answered(
    one: Completer, other: Completer, batch: Sequence[Item], max_new_tokens: int
) -> list[Judged]:
    conversations = [item.conversation for item in batch]
    answers = [side.complete(conversations, max_new_tokens=max_new_tokens) for side in (one, other)]
    return [
        Judged(
            item.identity,
            item.skill,
            mine.completion_tokens,
            mine.text.strip() == item.answer.strip(),
            theirs.text.strip() == item.answer.strip(),
        )
        for item, mine, theirs in zip(batch, *answers, strict=True)
    ]


def _measures(
    parent: Side, candidate: Side, asked: Questions, on_progress: Progress
) -> Sequence[Measure]:
    if parent.served != candidate.served:
        return ()
    chosen = sample(asked.items)
    told = _told if parent.served else _forced
    found = told(parent, candidate, chosen, asked.max_new_tokens)
    on_progress(len(chosen), len(chosen), "compared")
    return measures(found)


def _forced(parent: Side, candidate: Side, chosen: Sequence[Item], _most: int) -> list[Distance]:
    asked = [(item.conversation, item.answer) for item in chosen]
    return inprocess.distances(Path(parent.where), Path(candidate.where), asked)


def _told(parent: Side, candidate: Side, chosen: Sequence[Item], most: int) -> list[Distance]:
    """Compare what both think of the reference answers; if one does not tell, of their own."""
    from serving.logprobs import LogprobEndpoint

    asked = [(item.conversation, item.answer) for item in chosen]
    conversations = [item.conversation for item in chosen]
    with (
        closing(LogprobEndpoint(parent.where, parent.model, api_key=parent.api_key)) as one,
        closing(
            LogprobEndpoint(candidate.where, candidate.model, api_key=candidate.api_key)
        ) as two,
    ):
        mine = one.read(asked)
        theirs = None if mine is None else two.read(asked)
        if mine is not None and theirs is not None:
            return endpoint.read_distances(mine, theirs)
        answers = [side.answer(conversations, max_new_tokens=most) for side in (one, two)]
    return endpoint.distances(*answers)
