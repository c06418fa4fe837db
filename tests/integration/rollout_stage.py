"""A model that is served on this machine by engines that answer at once, and its candidate."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from penstock.cli.users import Users
from penstock.core.identity import Digest
from penstock.core.settings import Settings
from penstock.core.spec import Margins, ModelSpec, Rollout
from serving import controller as acting
from serving.controller import Controller, FileLog
from serving.deploy import Site, deploy, propose
from serving.doors import GatewayDoors
from serving.local import lifecycle
from serving.manifests import Release
from serving.rollout.decide import Stay
from serving.rollout.record import Record, first_record
from serving.rollout.step import Step
from serving.sources.live import LiveCounters
from serving.sources.replay import Load, Prompt
from serving.sources.world import ObservedWorld, Place
from serving.traffic import LocalTraffic

ROOT = Digest.of(b"")
POLICY = Rollout(
    steps=[50],
    proof=[1.0],
    metrics={"error_rate": Margins(kind="errors", tolerate=0.02, reject=0.2)},
    soak_s=0.5,
    replay_rps=100.0,
)
PROMPTS = [Prompt(({"role": "user", "content": f"prompt {n}"},)) for n in range(2000)]


def over(made: Step) -> bool:
    """Return whether a rollout is over, and what lost is gone."""
    return made.record.over and isinstance(made.action, Stay)


class Stage:
    """A model `m` that is served, with users, and a second version beside it."""

    def __init__(self, home: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = int(unused.getsockname()[1])
        self.settings = Settings(home=home, gateway_port=port)
        self.log = FileLog(self.settings.cluster / "rollouts")
        self.cluster = lifecycle.cluster(self.settings)

    def up(self) -> None:
        """Start it, and serve version 1."""
        env = dict(os.environ)  # noqa: TID251 - the edge of the test
        command = [sys.executable, "-m", "tests.fakes.supervise", str(self.settings.cluster)]
        lifecycle.up(self.settings, env, command)
        spec = spec_of()
        release = Release(1, "file:///fast-one", ROOT)
        deploy(Site(self.cluster, self.routed), spec, release)

    def routed(self) -> dict[str, int]:
        """Return the weights that the gateway has."""
        return lifecycle.observed(self.settings, "m")

    def begin(self, *arguments: str, policy: Rollout = POLICY) -> Record:
        """Make version 2 a candidate."""
        spec = spec_of(runtime_args=list(arguments))
        service = propose(self.cluster, spec, Release(2, "file:///fast-two", ROOT))
        now = time.time()
        first = first_record(service, "m-v1", policy, now)
        return acting.begin(self.cluster, self.log, "m", first, policy)

    def users(self) -> Users:
        """Return users who ask when they are told to."""
        asked = [[{"role": "user", "content": f"question {n}"}] for n in range(3000)]
        return Users(lifecycle.url(self.settings), "m", asked, rps=60.0, seed=1)

    def drive(self, *, until: Callable[[Step], bool] = over, seconds: float = 60.0) -> Record:
        """Look until it is over, or until something else."""
        place = Place(
            self.cluster,
            LocalTraffic(),
            "m",
            GatewayDoors(lifecycle.url(self.settings)),
            self.routed,
            lambda new, old: LiveCounters(
                lifecycle.url(self.settings), "m", candidate=new, stable=old
            ),
        )
        world = ObservedWorld(place, POLICY, PROMPTS, Load(max_new_tokens=2), time.time)
        controller = Controller(self.cluster, self.log, world, "test")
        never, deadline = threading.Event(), time.monotonic() + seconds
        try:
            while time.monotonic() < deadline:
                made = controller.look("m")
                if made is not None and until(made):
                    return made.record
                never.wait(0.1)
        finally:
            world.close()
        raise AssertionError(f"not there after {seconds:g} s")


def spec_of(**more: object) -> ModelSpec:
    """Return the spec of `m`."""
    return ModelSpec.model_validate({"name": "m", "source": "hf://a/b", **more})
