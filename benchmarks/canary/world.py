"""The traffic that a rollout meets: many replications at once, ten seconds at a time.

What lies in the traffic (`burst`, `noisy`) meets both versions alike; `armdrift` lets their pods
drift apart, which no comparison of two versions can tell from a fault.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from benchmarks.canary.model import (
    LOG_TPOT,
    LOG_TTFT_P50,
    TAIL_S,
    TTFT_SIGMA,
    Singles,
    looked_up,
    scores,
)
from benchmarks.canary.outcomes import Bools, Floats
from benchmarks.canary.scenarios import Scenario
from serving.rollout.evidence import Ints

Side = Literal["candidate", "stable"]
SIDES: tuple[Side, Side] = ("candidate", "stable")

TICK_S = 10.0

ALIKE = 0.5
"""How far two answers to one prompt resemble each other: the correlation of the normal numbers."""

BURST_RATE, BURST_SLOWER = 5.0, 1.6
BURST_S, CALM_S = 60.0, 240.0
"""How long bursts, and the calm between them, last on average."""

NOISE_SD, NOISE_S = 0.3, 120.0
"""The noisy neighbor: deviation of log-latency, and the time over which it forgets."""

SPIKE_FROM, SPIKE = 1.5, 4.0
"""Above so many deviations of noise, so many times the errors."""

DRIFT_SD, DRIFT_S = {"armdrift": 0.08, "armdrift4": 0.04}, 600.0
"""A version's drift: one pod, and the mean of four; independent of the other version's."""

TPOT_SHARE = 0.5
"""How much of a shift of log-TTFT the log-TPOT follows: prefill queues, decoding shares."""


@dataclass(frozen=True, slots=True, eq=False)
class Requests:
    """Requests to one version, one after the other; `counts` says which belong together."""

    counts: Ints
    """(replications, groups): how many of the entries below, in this order."""

    failed: Bools
    ttft: Singles
    """Logarithm of seconds. It is drawn for failed requests too; who takes failures out, may."""

    tpot: Singles
    """Logarithm of seconds."""

    scores: npt.NDArray[np.int16]
    """Quality, in steps of `SCORE_STEPS`."""


class World:
    """The traffic of many replications of a scenario.

    Args:
        scenario: What is true.
        reps: How many replications.
        rng: Where all randomness comes from.
    """

    def __init__(self, scenario: Scenario, reps: int, rng: np.random.Generator) -> None:
        self.scenario = scenario
        self.rng = rng
        self.reps = reps
        self.truth: Mapping[Side, Scenario] = {
            "candidate": scenario,
            "stable": Scenario("stable", good=True),
        }
        self._bursting = rng.random(reps) < BURST_S / (BURST_S + CALM_S)
        self._noise = rng.standard_normal(reps)
        self._drift = {side: rng.standard_normal((2, reps)) for side in SIDES}
        self.advance(0)

    def advance(self, ticks: int = 1) -> None:
        """Move on; all that is drawn next falls into these ticks."""
        self.rate = np.full((self.reps, ticks), self.scenario.rate)
        self._shared = np.zeros((self.reps, ticks))
        self._failing = np.ones((self.reps, ticks))
        self._apart = {side: np.zeros((2, self.reps, ticks)) for side in SIDES}
        for tick in range(ticks):
            match self.scenario.env:
                case "burst":
                    self._burst(tick)
                case "noisy":
                    self._noise = self._next(self._noise, NOISE_S)
                    self._shared[:, tick] = NOISE_SD * self._noise
                    self._failing[self._noise > SPIKE_FROM, tick] = SPIKE
                case "armdrift" | "armdrift4":
                    for side in SIDES:
                        self._drift[side] = self._next(self._drift[side], DRIFT_S)
                        scale = DRIFT_SD[self.scenario.env]
                        self._apart[side][:, :, tick] = scale * self._drift[side]
                case _:
                    pass

    def keep(self, wanted: Bools) -> None:
        """Drop the replications that are decided; `advance` before drawing again."""
        self.reps = int(wanted.sum())
        self._bursting, self._noise = self._bursting[wanted], self._noise[wanted]
        self._drift = {side: drift[:, wanted] for side, drift in self._drift.items()}

    def arrivals(self, share: float | Floats) -> Ints:
        """Draw how many users' requests a share of the traffic is; (replications, ticks).

        Args:
            share: Of all requests, 0 to 1; one, or one per replication.
        """
        shares = np.broadcast_to(share, (self.reps,))
        return np.asarray(self.rng.poisson(self.rate * TICK_S * shares[:, None]))

    def requests(self, side: Side, counts: Ints) -> Requests:
        """Draw so many live requests to a version, per replication and tick."""
        apart = self._apart[side][0]
        return self._live(side, counts, self._shared + apart)

    def halves(self, side: Side, counts: Ints) -> Requests:
        """Draw live requests of one tick to a version, by halves of its replicas; two groups.

        Four replicas drift as the mean of two halves that drift apart; everything else meets both
        halves alike.

        Args:
            side: Which version.
            counts: Per replication.
        """
        first = self.rng.binomial(counts, 0.5)
        drift, apart = self._apart[side][:, :, 0]
        if self.scenario.env != "armdrift4":
            apart = np.zeros_like(drift)
        shift = self._shared + np.stack([drift + apart, drift - apart], axis=1)
        return self._live(side, np.stack([first, counts - first], axis=1), shift)

    def pairs(self, counts: Ints) -> tuple[Requests, Requests]:
        """Draw prompts that both versions answer, per replication: candidate's, stable's.

        Args:
            counts: Per replication; they fall into the only tick.
        """
        groups = counts[:, None]
        z = self.rng.standard_normal((2, 3, int(counts.sum())), dtype=np.float32)
        z[1] *= np.float32(math.sqrt(1 - ALIKE**2))
        z[1] += np.float32(ALIKE) * z[0]
        sound = self.scenario.liveonly
        answered = [
            self._answers(
                self.truth["stable" if sound else side],
                numbers,
                groups,
                self._shared + self._apart[side][0],
            )
            for side, numbers in zip(SIDES, z, strict=True)
        ]
        return answered[0], answered[1]

    def _live(self, side: Side, counts: Ints, shift: Floats) -> Requests:
        """Draw unpaired requests, per group."""
        z = self.rng.standard_normal((3, int(counts.sum())), dtype=np.float32)
        return self._answers(self.truth[side], z, counts, shift)

    def _answers(self, truth: Scenario, z: Singles, counts: Ints, shift: Floats) -> Requests:
        """Return what a version answers to requests of which the normal numbers are drawn."""
        total = z.shape[1]
        chance: float | Singles = truth.err
        ttft = z[0] * np.float32(TTFT_SIGMA)
        ttft += np.float32(LOG_TTFT_P50 + math.log(truth.ttft))
        tpot = looked_up(LOG_TPOT, z[1])
        tpot += np.float32(math.log(truth.tpot))
        if self.scenario.env != "iid":
            slower = _spread(shift, counts)
            ttft += slower
            tpot += np.float32(TPOT_SHARE) * slower
            chance = truth.err * _spread(self._failing, counts)
        if truth.tail:
            late = self.rng.random(total, dtype=np.float32) < truth.tail
            ttft[late] = np.log(np.exp(ttft[late]) + np.float32(TAIL_S))
        return Requests(
            counts=counts,
            failed=np.asarray(self.rng.random(total, dtype=np.float32) < chance),
            ttft=ttft,
            tpot=tpot,
            scores=looked_up(scores(truth.q), z[2]),
        )

    def _burst(self, tick: int) -> None:
        """Let bursts begin and end, and apply them to a tick."""
        chance = self.rng.random(self.reps)
        goes_on, begins = chance > TICK_S / BURST_S, chance < TICK_S / CALM_S
        self._bursting = np.where(self._bursting, goes_on, begins)
        self.rate[self._bursting, tick] *= BURST_RATE
        self._shared[self._bursting, tick] = math.log(BURST_SLOWER)

    def _next(self, state: Floats, memory_s: float) -> Floats:
        """Return an autoregressive process, of deviation 1, a tick later."""
        kept = math.exp(-TICK_S / memory_s)
        return kept * state + math.sqrt(1 - kept**2) * self.rng.standard_normal(state.shape)


def mean_rate(scenario: Scenario) -> float:
    """Return the requests per second of a scenario in the long run."""
    bursting = BURST_S / (BURST_S + CALM_S) if scenario.env == "burst" else 0.0
    return scenario.rate * (1 + bursting * (BURST_RATE - 1))


def _spread(values: Floats, counts: Ints) -> Singles:
    """Return a value per request: its group's."""
    each = np.broadcast_to(values, counts.shape).astype(np.float32)
    return np.repeat(each.ravel(), counts.ravel())
