"""From a model, devices and wishes to how it is served; or to why it cannot be, and what would."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from penstock.core.errors import ConfigurationError
from serving.sizing import memory
from serving.sizing.memory import Split
from serving.sizing.remedies import remedies
from serving.sizing.shape import Shape
from serving.sizing.trial import NODE, Trial, attempt, splits, tensor_sizes, why_not_tensor
from serving.sizing.wish import Change, Option, Place, Rejected, Wish


@dataclass(frozen=True, slots=True)
class Plan:
    """How a model is served."""

    place: Place
    trial: Trial
    reasons: tuple[str, ...]
    rejected: tuple[Rejected, ...]
    warnings: tuple[str, ...]

    @property
    def split(self) -> Split:
        """Over devices."""
        return self.trial.split


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why it cannot be served as asked for."""

    why: str
    rejected: tuple[Rejected, ...]
    changes: tuple[Change, ...]
    """What would make it work, the smallest change first; empty where nothing here would."""


def choose(
    shape: Shape,
    place: Place,
    options: Sequence[Option],
    wish: Wish,
    others: Sequence[Option] = (),
) -> Plan | Refusal:
    """Return how a model is served on one replica's devices.

    Of what fits, the precision that was named first wins, then the least pipeline stages.

    Args:
        shape: The model.
        place: Devices and engine.
        options: Precisions, the preferred one first.
        wish: What it must be able to do.
        others: Precisions that nobody asked for, but that would run there.

    Raises:
        ConfigurationError: The request contradicts itself or the model, with what may be asked for.
    """
    require(shape, place, wish)
    tried = [attempt(shape, place, o, s, wish) for o in options for s in splits(place, wish)]
    fitting = [trial for trial in tried if not trial.why_not]
    if not fitting:
        best = min(tried, key=lambda trial: trial.needed)
        return Refusal(
            f"{best.name} on {place}: {best.why_not}",
            tuple(Rejected(trial.name, trial.why_not) for trial in tried),
            tuple(remedies(shape, place, options, wish, others)),
        )
    taken = fitting[0]
    rejected = [
        Rejected(trial.name, trial.why_not or _second(trial, taken))
        for trial in tried
        if trial is not taken
    ]
    return Plan(
        place,
        taken,
        tuple(_reasons(shape, place, taken, wish)),
        tuple(rejected),
        tuple(_warnings(shape, place, taken, options, wish)),
    )


def require(shape: Shape, place: Place, wish: Wish) -> None:
    """Raise what no device could make possible."""
    if wish.context and wish.context > shape.context:
        raise ConfigurationError(
            f"serving.context {wish.context:,}: the model was made for {shape.context:,} tokens",
            hint=f"ask for at most {shape.context:,}, or change rope_scaling in its config.json",
        )
    tensor, pipeline = wish.tensor_parallel, wish.pipeline_parallel
    asked = (tensor or 1) * (pipeline or 1)
    exact = tensor is not None and pipeline is not None
    if (exact and asked != place.count) or place.count % asked:
        raise ConfigurationError(
            f"serving: tensor_parallel {tensor or 1} x pipeline_parallel {pipeline or 1} = {asked},"
            f" but hardware.count is {place.count}",
            hint=f"set hardware.count: {asked}, or leave the split to the plan",
        )
    if (tensor or 1) > place.per_node or (pipeline or place.nodes) % place.nodes:
        raise ConfigurationError(
            f"serving: tensor_parallel {tensor or 1} x pipeline_parallel {pipeline or place.nodes}:"
            f" a stage is inside a node, and hardware has {place.nodes} nodes of {place.per_node}",
            hint="leave the split to the plan",
        )
    sizes = tensor_sizes(shape)
    if tensor is not None and tensor not in sizes:
        near = max((n for n in sizes if n < tensor), default=1)
        raise ConfigurationError(
            f"serving.tensor_parallel {tensor}: {why_not_tensor(shape, tensor)}; allowed:"
            f" {', '.join(map(str, sizes))}",
            hint=f"set serving.tensor_parallel: {near} (hardware.count: {near * (pipeline or 1)})",
        )


def _second(trial: Trial, taken: Trial) -> str:
    told = f"fits too: {trial.concurrency} x {trial.context:,} tokens"
    if trial.option != taken.option:
        return f"{told}; {taken.option.name} comes first"
    return f"{told}; more stages wait for each other"


def _reasons(shape: Shape, place: Place, taken: Trial, wish: Wish) -> list[str]:
    found = [f"{taken.option.name}: {taken.option.reason}"] if taken.option.reason else []
    if place.count > 1:
        counts = (n for n in (1, 2, 4, 8) if n < place.count)
        fewer = next((n for n in counts if _enough(shape, place, n, taken, wish)), 0)
        found.append(f"{taken.split}: the most tensor parallelism that divides {shape.heads} heads")
        if fewer:
            devices = f"{fewer} device{'s' if fewer > 1 else ''}"
            found.append(f"{devices} would do for this context: more make room for more sequences")
    if not wish.context and taken.context < shape.context:
        wanted = wish.concurrency or 1
        sequences = f"{wanted} sequences" if wanted > 1 else "one sequence"
        found.append(
            f"context {taken.context:,} of the model's {shape.context:,}: the longest of which"
            f" {sequences} fit{'' if wanted > 1 else 's'}"
        )
    return found


def _enough(shape: Shape, place: Place, count: int, taken: Trial, wish: Wish) -> bool:
    asked = replace(
        wish,
        context=taken.context,
        tensor_parallel=None,
        pipeline_parallel=None,
    )
    fewer = replace(place, count=count, nodes=1)
    return any(
        not attempt(shape, fewer, taken.option, split, asked).why_not
        for split in splits(fewer, asked)
    )


def _warnings(
    shape: Shape, place: Place, taken: Trial, options: Sequence[Option], wish: Wish
) -> list[str]:
    found = list(shape.guesses)
    if place.engine not in memory.SHARES:
        found.append(f"the arithmetic is vLLM's: {place.engine} may need more, or less")
    if shape.weights.draft:
        found.append(
            f"{shape.weights.draft / 1e9:.1f} GB of the checkpoint guess tokens ahead: not counted,"
            " for they are loaded for speculative decoding only"
        )
    if taken.split.tensor > 1 and place.gpu.nvlink < taken.split.tensor:
        found.append(
            f"{place.gpu.name} has no NVLink: every layer of tp {taken.split.tensor} waits for PCIe"
        )
    found.extend(_about_nodes(place))
    heads = min((each.heads for each in shape.layers if each.kind == "full"), default=0)
    if heads and taken.split.tensor > heads:
        found.append(
            f"tp {taken.split.tensor} is more than {heads} heads of keys and values: the cache is"
            f" kept {taken.split.tensor // heads} times"
        )
    came = next((each for each in options if each.as_it_came), None)
    if came and not taken.option.as_it_came:
        kept = attempt(shape, place, came, taken.split, wish)
        if kept.why_not:
            found.append(
                f"if evaluation refuses {taken.option.name}, the checkpoint as it came would be"
                f" served, and does not fit: {kept.why_not}"
            )
    return found


def _about_nodes(place: Place) -> Iterator[str]:
    if place.per_node > NODE:
        yield (
            f"{place.per_node} devices in one node, where most have {NODE}: hardware.nodes:"
            f" {-(-place.per_node // NODE)} spreads them"
        )
    if place.nodes > 1:
        yield "stages of the pipeline wait for the network between nodes"
