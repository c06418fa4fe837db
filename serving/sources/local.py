"""Rollouts on this machine: where their events lie, and what there is to see of them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from penstock.core.settings import Settings
from penstock.core.spec import Rollout
from serving.controller import FileLog
from serving.local import lifecycle

if TYPE_CHECKING:
    from serving.sources.replay import Prompt
    from serving.sources.world import ObservedWorld

MAX_NEW_TOKENS = 64
"""Length of replayed answers where no model.yaml says it."""

_LOGGED_PROMPTS = 2000


def log(settings: Settings) -> FileLog:
    """Return the event log of this machine's rollouts."""
    return FileLog(settings.cluster / "rollouts")


def build(
    settings: Settings,
    name: str,
    policy: Rollout,
    prompts: Iterable[Prompt] = (),
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> ObservedWorld:
    """Return what a rollout sees on this machine.

    Args:
        settings: Where the local cluster is.
        name: The model's.
        policy: How fast to replay.
        prompts: What to replay beside the requests that the gateway logged; only these can have
            an expected answer, and so show quality.
        max_new_tokens: Length of replayed answers.
    """
    from serving.local.requestlog import RequestLog
    from serving.sources.replay import Load, prompts_of
    from serving.sources.world import ObservedWorld, Place

    logged = RequestLog(settings.cluster / "requests.db").after(0, name, _LOGGED_PROMPTS)[0]
    place = Place(
        lifecycle.cluster(settings),
        lifecycle.url(settings),
        name,
        lambda: lifecycle.observed(settings, name),
    )
    load = Load(max_new_tokens=max_new_tokens)
    return ObservedWorld(place, policy, [*prompts, *prompts_of(logged)], load, time.time)
