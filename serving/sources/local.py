"""Rollouts on this machine: where events and prompts lie, and what there is to see."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.core.settings import Settings
from penstock.core.spec import Rollout
from serving.controller import FileLog, record_of
from serving.local import lifecycle

if TYPE_CHECKING:
    from serving.sources.replay import Prompt
    from serving.sources.world import ObservedWorld

_MAX_NEW_TOKENS = 64
"""Length of replayed answers where nothing was kept."""

_LOGGED_PROMPTS = 2000


def log(settings: Settings) -> FileLog:
    """Return the event log of this machine's rollouts."""
    return FileLog(settings.cluster / "rollouts")


def keep_prompts(
    settings: Settings, candidate: str, prompts: Iterable[Prompt], max_new_tokens: int
) -> None:
    """Write down what a candidate is to be asked, for whoever looks after its rollout.

    Only these prompts can have an expected answer, and so show quality.

    Args:
        settings: Where the local cluster is.
        candidate: Its InferenceService.
        prompts: What to replay beside the requests that the gateway logged.
        max_new_tokens: Length of replayed answers.
    """
    body = {
        "max_new_tokens": max_new_tokens,
        "prompts": [[list(prompt.messages), prompt.expected] for prompt in prompts],
    }
    path = _kept(settings, candidate)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".new")
    unfinished.write_text(json.dumps(body))
    unfinished.replace(path)


def forget_prompts(settings: Settings, candidate: str) -> None:
    """Remove what `keep_prompts` wrote, if it did."""
    _kept(settings, candidate).unlink(missing_ok=True)


def _kept(settings: Settings, candidate: str) -> Path:
    return settings.cluster / "rollouts" / f"{candidate}.prompts.json"


def build(settings: Settings, name: str, policy: Rollout) -> ObservedWorld:
    """Return what a rollout sees on this machine.

    Args:
        settings: Where the local cluster is.
        name: The model's.
        policy: How fast to replay.
    """
    from serving.local.requestlog import RequestLog
    from serving.sources.replay import Load, Prompt, prompts_of
    from serving.sources.world import ObservedWorld, Place

    obj = lifecycle.cluster(settings).get("HTTPRoute", name)
    record = record_of(obj) if obj is not None else None
    prompts, max_new_tokens = list[Prompt](), _MAX_NEW_TOKENS
    if record is not None and _kept(settings, record.candidate).exists():
        body = json.loads(_kept(settings, record.candidate).read_text())
        prompts = [Prompt(tuple(messages), expected) for messages, expected in body["prompts"]]
        max_new_tokens = body["max_new_tokens"]
    logged = RequestLog(settings.cluster / "requests.db").after(0, name, _LOGGED_PROMPTS)[0]
    place = Place(
        lifecycle.cluster(settings),
        lifecycle.url(settings),
        name,
        lambda: lifecycle.observed(settings, name),
    )
    load = Load(max_new_tokens=max_new_tokens)
    return ObservedWorld(place, policy, [*prompts, *prompts_of(logged)], load, time.time)
