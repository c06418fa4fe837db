"""Two versions of one name, in a route, and who answers: for tests of the split itself."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter

import aiohttp

from penstock.core.errors import Conflict
from penstock.core.identity import ModelRef
from registry.publish import publish
from registry.store import manifest_of
from serving import deploy as serving_versions
from serving.cluster import Object
from serving.doors import Door
from serving.manifests import Release, ready
from tests.cluster.stage import NAME, POLICY, Stage
from tests.cluster.waiting import until
from tests.fakes.tiny_model import Shape, make_tiny_model

PATIENT = POLICY.model_copy(update={"ready_timeout_s": 300.0})
"""How long a pod takes to start is no matter here."""

CONTEXTS = {1: 256, 2: 512}
"""Version → length of its context, by which `/v1/models` tells who answered."""

LATEST_S = 30.0
"""Until a split is seen; it takes well below a second, unless the machine has much else to do."""

_AT_ONCE = 8


def serve(stage: Stage, version: int) -> None:
    """Have a version in the route; only the first one gets users."""
    target, spec = stage.target, stage.spec()
    folder = make_tiny_model(stage.folder / f"v{version}", shape=Shape(context=CONTEXTS[version]))
    manifest = manifest_of(folder, ModelRef.parse(folder.as_uri()))
    uri = publish(folder, manifest, stage.kserve["storage"])
    release = Release(version, uri, manifest.root, manifest)
    service = serving_versions.propose(target.cluster, spec, release, target.traffic)
    until_ready(stage, service)
    if version == 1:
        target.cluster.create(target.traffic.carrying(NAME, {service: 100}))
    take(stage, {"m-v1": 100} if version == 1 else {"m-v1": 100, service: 0})


def until_ready(stage: Stage, service: str) -> None:
    """Wait for a version."""
    target = stage.target

    def is_ready() -> bool:
        found = target.cluster.get(target.traffic.served, service)
        return found is not None and ready(found)[0]

    until(f"{service} to be ready", is_ready, 300)


def take(stage: Stage, weights: dict[str, int]) -> dict[str, float]:
    """Ask for a split; return how long it took until somebody met it, and until it was observed."""
    target, door = stage.target, stage.target.door(NAME)
    route = _put(stage, weights)
    begun = time.monotonic()
    took: dict[str, float] = {}

    def seen() -> bool:
        target.traffic.enforce(target.cluster, route)
        now = time.monotonic()
        if not took.get("first") and asyncio.run(ask(door, 16)).keys() == _users(weights):
            took["first"] = time.monotonic() - begun
        if not took.get("observed") and target.observed(NAME) == weights:
            took["observed"] = now - begun
        return len(took) == 2

    until(f"the split {weights}", seen, LATEST_S)
    return took


async def ask(door: Door, count: int) -> Counter[str]:
    """Return who answered, or what was wrong."""
    left, found = iter(range(count)), Counter[str]()
    versions = {length: f"{NAME}-v{version}" for version, length in CONTEXTS.items()}

    async def one(http: aiohttp.ClientSession) -> None:
        for _ in left:
            async with http.get(f"{door.url}/v1/models", headers=door.headers) as response:
                text = await response.text()
            if response.status == 200:
                found[versions[json.loads(text)["data"][0]["max_model_len"]]] += 1
            else:
                found[f"HTTP {response.status}: {text[:100]}"] += 1

    async with aiohttp.ClientSession() as http:
        await asyncio.gather(*(one(http) for _ in range(_AT_ONCE)))
    return found


def _put(stage: Stage, weights: dict[str, int]) -> Object:
    """Write a split over whatever the gateway's controller wrote meanwhile."""
    cluster, traffic = stage.target.cluster, stage.target.traffic
    for _ in range(10):
        route = cluster.get(traffic.carrier, NAME)
        assert route is not None
        try:
            return cluster.replace(traffic.weighted(route, weights))
        except Conflict:
            continue
    raise AssertionError("somebody writes the route all the time")


def _users(weights: dict[str, int]) -> set[str]:
    return {service for service, weight in weights.items() if weight}
