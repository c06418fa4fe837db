"""What steps and commands need to know of the place where a model is served."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Protocol

from penstock.core.manifest import Manifest
from penstock.core.spec import ModelSpec, Rollout
from serving.cluster import Cluster
from serving.completer import Message
from serving.controller import EventLog
from serving.doors import Door
from serving.gpus.surge import Decision
from serving.sources.live import Counters
from serving.sources.replay import Prompt
from serving.sources.world import ObservedWorld
from serving.traffic import Traffic

MAX_NEW_TOKENS = 64
"""Length of replayed answers where nothing was kept."""


class KeptLog(EventLog, Protocol):
    """An event log that knows of whom it has events."""

    def names(self) -> list[str]:
        """Return the names that have lines."""
        ...


class Target(Protocol):
    """A place where models are served."""

    @property
    def began(self) -> bool:
        """Whether there is anything to ask for objects."""
        ...

    @property
    def cluster(self) -> Cluster:
        """Where the objects are."""
        ...

    @property
    def traffic(self) -> Traffic:
        """How traffic is split there."""
        ...

    @property
    def log(self) -> KeptLog:
        """Where the events of rollouts go."""
        ...

    @property
    def look_s(self) -> float:
        """Time between two looks at a rollout, in seconds: every look may be a write."""
        ...

    @property
    def options(self) -> str:
        """What names it to other commands, with a space before it; empty for this machine."""
        ...

    @property
    def hint(self) -> str:
        """The command that shows a person what goes on there."""
        ...

    def storage_for(self, manifest: Manifest, *, as_it_came: bool) -> str:
        """Return where a checkpoint must be brought to be served: `s3://` or `pvc://`.

        Or where pods find it already; empty where the store of this machine will do.

        Args:
            manifest: Its files, and where it, or what it was made from, came from.
            as_it_came: Whether nothing was made of it, so that its source still has it.
        """
        ...

    def require(self, model: ModelSpec) -> None:
        """Raise what keeps a model from being served there, with the fix."""
        ...

    def surge(self, model: ModelSpec, service: str, stable: str) -> Decision:
        """Return whether a candidate finds its devices beside what is served, and what else may be.

        Args:
            model: The spec.
            service: The candidate's.
            stable: The version that is served; empty for the first one.
        """
        ...

    def door(self, name: str) -> Door:
        """Return users' way to a model."""
        ...

    def observed(self, name: str) -> Mapping[str, int]:
        """Return the weights in force for a name; empty while they are not known."""
        ...

    def why(self, service: str) -> str:
        """Return what keeps a version from serving, in a sentence; empty when nothing is known."""
        ...

    def counters(self, name: str, candidate: str, stable: str) -> Counters:
        """Return what counts users' requests of two versions."""
        ...

    def world(self, name: str, policy: Rollout) -> ObservedWorld:
        """Return what a rollout sees."""
        ...

    def keep_prompts(self, candidate: str, prompts: Iterable[Prompt], max_new_tokens: int) -> None:
        """Write down what a candidate is to be asked, for whoever looks after its rollout.

        Only these prompts can have an expected answer, and so show quality.

        Args:
            candidate: Its service.
            prompts: What to replay.
            max_new_tokens: Length of replayed answers.
        """
        ...

    def forget_prompts(self, candidate: str) -> None:
        """Remove what `keep_prompts` wrote, if it did."""
        ...


def prompts_to_json(prompts: Iterable[Prompt], max_new_tokens: int) -> str:
    """Return prompts as a document; `prompts_from_json` reads it."""
    rows = [[list(prompt.messages), prompt.expected] for prompt in prompts]
    return json.dumps({"max_new_tokens": max_new_tokens, "prompts": rows}, separators=(",", ":"))


def prompts_from_json(text: str) -> tuple[list[Prompt], int]:
    """Return prompts, and how long their answers may be, in tokens."""
    body = json.loads(text)
    prompts = [
        Prompt(
            tuple(Message(role=turn["role"], content=turn["content"]) for turn in messages),
            expected,
        )
        for messages, expected in body["prompts"]
    ]
    return prompts, body["max_new_tokens"]
