"""What many rollouts cost one process: `python -m benchmarks.controller [--out DIR]`.

The loop of `penstock controller` looks after 1,000 rollouts on one core: half of them in shadow,
half on the ramp, and every look brings evidence that is judged, logged to disk and written back.
Objects lie in memory, as text; what users and versions answer is drawn beforehand, so that the
figures are the controller's. A step's seconds count from when it was due to its end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from penstock.cli.rollout_keeper import Duty, Keeper
from penstock.core.errors import Conflict
from penstock.core.spec import Rollout
from serving import controller as acting
from serving.cluster import ANY, Kind, Object, labelled
from serving.manifests import route, weights_of
from serving.rollout.decide import Seen
from serving.rollout.evidence import BUCKETS, Arm, Batch, Pairs
from serving.rollout.judge import Judge
from serving.rollout.record import Record, digest_of
from serving.rollout.step import LIVE

ROLLOUTS, SECONDS, THREADS = 1000, 60, 8
PAIRS, REQUESTS, DRAWN = 60, 200, 32
GOAL_S, GOAL_MB = 1.0, 150
POLICY = Rollout()


class TextCluster:
    """Objects in memory, as text; every write a compare-and-swap."""

    def __init__(self) -> None:
        self._texts: dict[tuple[str, str], str] = {}
        self._version = 0
        self._lock = threading.Lock()

    def get(self, kind: Kind, name: str) -> Object | None:
        """Return the object, or None."""
        text = self._texts.get((kind, name))
        return None if text is None else json.loads(text)

    def list(self, kind: Kind, *, labels: Mapping[str, str] = ANY) -> list[Object]:
        """Return all objects of a kind with these labels."""
        found = [json.loads(text) for key, text in list(self._texts.items()) if key[0] == kind]
        return [obj for obj in found if labelled(obj, labels)]

    def create(self, obj: Object, *, dry_run: bool = False) -> Object:
        """Store a new object."""
        return self._store(obj, expected=None)

    def replace(self, obj: Object, *, dry_run: bool = False) -> Object:
        """Store over the version that was read."""
        return self._store(obj, expected=obj["metadata"]["resourceVersion"])

    def replace_status(self, obj: Object) -> Object:
        """Store over the version that was read; no rollout does it."""
        return self.replace(obj)

    def delete(
        self, kind: Kind, name: str, *, read: Object | None = None, foreground: bool = False
    ) -> None:
        """Remove the object."""
        self._texts.pop((kind, name), None)

    def watch(self, kind: Kind, *, timeout_s: float) -> Iterator[Object]:
        """Yield what there is; no rollout watches."""
        del timeout_s
        yield from self.list(kind)

    def _store(self, obj: Object, *, expected: str | None) -> Object:
        kind, name = obj["kind"], obj["metadata"]["name"]
        with self._lock:
            current = self.get(kind, name)
            if (None if current is None else current["metadata"]["resourceVersion"]) != expected:
                raise Conflict(f"{kind} {name} changed")
            self._version += 1
            metadata = {**obj["metadata"], "resourceVersion": str(self._version)}
            stored = {**obj, "metadata": metadata}
            self._texts[kind, name] = json.dumps(stored)
        return stored


class DrawnWorld:
    """Evidence of two equal versions, drawn once for all rollouts."""

    def __init__(self, cluster: TextCluster) -> None:
        rng = np.random.default_rng(7)
        self._cluster = cluster
        self._pairs = [_pairs(rng) for _ in range(DRAWN)]
        self._arms = {w: [_arms(rng, w) for _ in range(DRAWN)] for w in POLICY.steps}

    def seen(self, record: Record) -> Seen:
        """Return that everything is ready, and routed as asked for."""
        obj = self._cluster.get("HTTPRoute", record.stable.removesuffix("-v1"))
        return Seen(
            time.time(), ready=True, warm=True, routed=None if obj is None else weights_of(obj)
        )

    def evidence(self, record: Record, seen: Seen) -> Batch:
        """Return the next batch of the phase."""
        del seen
        cursors = record.cursors or {}
        if record.phase == "shadow":
            at = int(cursors.get("replay", "0"))
            return Batch(pairs=self._pairs[at % DRAWN], cursors={"replay": str(at + 1)})
        if record.phase == "ramp":
            at = int(cursors.get(LIVE, "0"))
            candidate, stable = self._arms[record.weight][at % DRAWN]
            return Batch(candidate=candidate, stable=stable, cursors={LIVE: str(at + 1)})
        return Batch()


def _pairs(rng: np.random.Generator) -> Pairs:
    latency = rng.integers(80, 120, (PAIRS, 2))
    return Pairs(
        (rng.random((PAIRS, 2)) < 0.0005).astype(np.int64),
        {"ttft_p95": latency, "tpot_p95": latency[::-1] - 40},
        {"quality": (rng.random((PAIRS, 2)) < 0.9).astype(np.int64) * 200},
    )


def _arms(rng: np.random.Generator, weight: int) -> tuple[Arm, Arm]:
    share = int(rng.binomial(REQUESTS, weight / 100))
    return _arm(rng, share), _arm(rng, REQUESTS - share)


def _arm(rng: np.random.Generator, requests: int) -> Arm:
    seconds = np.bincount(rng.integers(80, 120, requests), minlength=BUCKETS)
    return Arm(requests, 0, {"ttft_p95": seconds, "tpot_p95": np.roll(seconds, -40)})


def begin(cluster: TextCluster, log: acting.FileLog, count: int) -> None:
    """Begin rollouts: every other one on the ramp, as if shadow lay behind it."""
    judge, now = Judge(POLICY), time.time()
    for number in range(count):
        name = f"m{number}"
        for version in (1, 2):
            metadata = {"name": f"{name}-v{version}"}
            cluster.create({"kind": "InferenceService", "metadata": metadata, "spec": {}})
        cluster.create(route(name, {f"{name}-v1": 100}))
        record = Record(
            candidate=f"{name}-v2",
            stable=f"{name}-v1",
            policy=digest_of(POLICY.model_dump_json()),
            evidence=judge.start(),
            phase="ramp" if number % 2 else "deploying",
            weight=POLICY.steps[0] if number % 2 else 0,
            started_at=now,
            entered_at=now,
            evidence_at=now,
        )
        acting.begin(cluster, log, name, record, POLICY)


async def keep(duty: Duty, seconds: float) -> None:
    """Look after everything for a while."""
    keeper = Keeper(duty, threads=THREADS)
    asyncio.get_running_loop().call_later(seconds, keeper.stop)
    await keeper.run(once=False)


def peak_mb() -> float:
    """Return the most memory this process had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def cuts(values: Sequence[float]) -> dict[str, float]:
    """Return what half, and 99 of 100, stay below."""
    found = statistics.quantiles(values, n=100)
    return {"p50": found[49], "p99": found[98], "max": max(values)}


def measure(rollouts: int, seconds: float) -> dict[str, Any]:
    """Look after rollouts for a while; return seconds, memory and what became of them."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    imported_mb, cluster = peak_mb(), TextCluster()
    late, took, decisions = array("d"), array("d"), array("d")

    def timed(late_s: float, took_s: float) -> None:
        late.append(late_s)
        took.append(took_s)

    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as scratch:
        log = acting.FileLog(Path(scratch))
        begin(cluster, log, rollouts)
        begun_mb, world = peak_mb(), DrawnWorld(cluster)
        duty = Duty(
            cluster=cluster,
            log=log,
            world=lambda _name, _policy: nullcontext(world),
            owner="bench",
            tell=lambda _line: decisions.append(time.time()),
            timed=timed,
        )
        start, cpu = time.perf_counter(), time.process_time()
        asyncio.run(keep(duty, seconds))
        wall_s, cpu_s = time.perf_counter() - start, time.process_time() - cpu
    kept_mb = peak_mb()
    phases: dict[str, int] = {}
    for obj in cluster.list("HTTPRoute"):
        record = acting.record_of(obj)
        phase = "none" if record is None else record.phase
        phases[phase] = phases.get(phase, 0) + 1
    return {
        "rollouts": rollouts,
        "looks": len(took),
        "decisions": len(decisions),
        "wall_s": wall_s,
        "cpu_share": cpu_s / wall_s,
        "cpu_per_look_s": cpu_s / len(took),
        "seconds_between_looks": rollouts * wall_s / len(took),
        "step_s": cuts([sum(each) for each in zip(late, took, strict=True)]),
        "late_s": cuts(late),
        "took_s": cuts(took),
        "memory_mb": {"imports": imported_mb, "rollouts_begun": begun_mb, "peak": kept_mb},
        "phases": phases,
    }


def main() -> None:
    """Measure, print, and write JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks"))
    parser.add_argument("--rollouts", type=int, default=ROLLOUTS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    arguments = parser.parse_args()
    out: Path = arguments.out
    found = measure(arguments.rollouts, arguments.seconds)
    out.mkdir(parents=True, exist_ok=True)
    (out / "controller.json").write_text(json.dumps(found, indent=1) + "\n")
    step, late, took = found["step_s"], found["late_s"], found["took_s"]
    memory = found["memory_mb"]
    table = (
        f"{found['rollouts']:,} rollouts in one process on one core, {found['wall_s']:.0f} s, "
        f"{found['looks']:,} looks\n\n"
        "| what | found | goal |\n|---|---|---|\n"
        f"| step p50, from due to done | {step['p50'] * 1000:.1f} ms | |\n"
        f"| step p99 | {step['p99'] * 1000:.0f} ms | {GOAL_S * 1000:,.0f} ms |\n"
        f"| of it, waiting for a thread, p99 | {late['p99'] * 1000:.0f} ms | |\n"
        f"| of it, looking, p99 | {took['p99'] * 1000:.0f} ms | |\n"
        f"| CPU per look | {found['cpu_per_look_s'] * 1000:.2f} ms | |\n"
        f"| share of the core | {found['cpu_share']:.0%} | |\n"
        f"| between two looks at a rollout | {found['seconds_between_looks']:.1f} s | |\n"
        f"| peak memory of the process | {memory['peak']:.0f} MB | {GOAL_MB} MB |\n"
        f"| of it, imports | {memory['imports']:.0f} MB | |\n"
        f"| above the imports | {memory['peak'] - memory['imports']:.0f} MB | |\n"
    )
    (out / "controller.md").write_text(table)
    print(table, end="")
    if step["p99"] > GOAL_S:
        sys.exit(f"step p99 {step['p99']:.2f} s misses the goal of {GOAL_S:g} s")


if __name__ == "__main__":
    main()
