"""From a spec to an engine's arguments; what cannot be is refused here, before anything changes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from penstock.core.errors import ConfigurationError
from penstock.core.spec import ModelSpec
from serving.runtimes.catalog import RUNTIMES, runtime_of
from serving.runtimes.known import known, options_of
from serving.runtimes.runtime import Can, Place, Runtime, asked, place, split
from serving.runtimes.settings import Entry, Option, Setting, compact, document

_LOAD_BYTES_S = 50e6
"""Weights are read at least this fast: a busy network volume. Local disks do ten times that."""

_ARRIVAL_S, _FOREIGN_ARRIVAL_S = 120.0, 600.0
"""What comes before: a pod is scheduled, its image pulled. Estimates, for Penstock's own images
and for those of others, which are far larger."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What an engine is started with, beside what holds for every model."""

    runtime: Runtime
    args: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    image: str = ""
    """Instead of the runtime's, where `engine.image` names another; empty: the runtime's."""


def launch(spec: ModelSpec) -> Launch:
    """Return how the engine of a spec is started.

    Args:
        spec: What is served, and how.

    Raises:
        ConfigurationError: The engine cannot do it, does not know an option, or is told two things.
    """
    runtime = runtime_of(spec)
    _possible(spec, runtime)
    _counted(spec)
    settings = told(runtime, spec)
    _further(spec, runtime, settings)
    options = [each for each in settings if isinstance(each, Option)]
    words = [word for each in options for word in each.words()]
    args = (*words, *spec.runtime_args)
    other = runtime.image_from_spec and spec.engine.image != runtime.image
    image = spec.engine.image if other else ""
    return Launch(runtime, args, _environment(spec, runtime, settings), image)


def told(runtime: Runtime, spec: ModelSpec) -> list[Setting]:
    """Return everything that a runtime is told about one model."""
    name = [Option("name", runtime.name_option, (spec.name,))] if runtime.name_option else []
    return [*name, *runtime.settings(spec), *_group(runtime, spec)]


def _group(runtime: Runtime, spec: ModelSpec) -> list[Setting]:
    nodes = spec.hardware.nodes
    if nodes == 1:
        return []
    return [
        Option("hardware.nodes", name, (value.format(nodes=nodes),))
        for name, value in runtime.over_nodes
    ]


def start_budget_s(runtime: Runtime, weights_bytes: int) -> float:
    """Return how long an engine may take to start before it is taken for dead."""
    return runtime.start_s + weights_bytes / _LOAD_BYTES_S


def ready_budget_s(spec: ModelSpec, weights_bytes: int) -> float:
    """Return how long a version may take from its creation until it serves.

    What the spec says; else its pod must arrive, its files be fetched, and its engine start.

    Args:
        spec: What is served.
        weights_bytes: Of its checkpoint.
    """
    if spec.rollout.ready_timeout_s is not None:
        return spec.rollout.ready_timeout_s
    runtime = runtime_of(spec)
    arrival = _ARRIVAL_S if runtime.own else _FOREIGN_ARRIVAL_S
    return arrival + weights_bytes / _LOAD_BYTES_S + start_budget_s(runtime, weights_bytes)


def patient(spec: ModelSpec, weights_bytes: int) -> ModelSpec:
    """Return the spec with the time that a version gets to become ready, where it names none.

    Args:
        spec: What is served.
        weights_bytes: Of its checkpoint.
    """
    found = math.ceil(ready_budget_s(spec, weights_bytes))
    named = spec.rollout.ready_timeout_s or float(found)
    rollout = spec.rollout.model_copy(update={"ready_timeout_s": named})
    return spec.model_copy(update={"rollout": rollout})


def probe_failures(seconds: float, period_s: float) -> int:
    """Return how many probes may fail within a time."""
    return math.ceil(seconds / period_s)


def able(wanted: Iterable[Can], where: Place) -> list[str]:
    """Return the runtimes that can do all that is wanted, and still get new versions."""
    needed = set(wanted)
    return [
        key
        for key, each in RUNTIMES.items()
        if where in each.matrix and needed <= each.can_on(where) and not each.frozen
    ]


def _possible(spec: ModelSpec, runtime: Runtime) -> None:
    if spec.hardware.nodes > 1 and not runtime.over_nodes:
        able_to = ", ".join(key for key, each in RUNTIMES.items() if each.over_nodes)
        raise ConfigurationError(
            f"hardware.nodes {spec.hardware.nodes}: Penstock runs {spec.engine_name} in one node",
            hint=f"runtimes that it runs over several: {able_to}",
        )
    wanted, can = asked(spec), runtime.can_on(place(spec))
    cannot = [what for what in wanted if what not in can]
    if not cannot:
        return
    others = able(wanted, place(spec))
    built = runtime.key.endswith("-engine")
    hint = f"runtimes that can do all of it: {', '.join(others)}" if others else "leave it out"
    raise ConfigurationError(
        f"runtime {spec.engine_name} cannot be told {', '.join(wanted[what] for what in cannot)}",
        hint="set the limits under `engine`: they are built in" if built else hint,
    )


def _counted(spec: ModelSpec) -> None:
    tensor, stages = split(spec)
    if tensor > spec.hardware.per_node or stages % spec.hardware.nodes:
        raise ConfigurationError(
            f"serving: tensor_parallel {tensor} x pipeline_parallel {stages} over hardware.nodes "
            f"{spec.hardware.nodes}: a stage is inside a node, which has {spec.hardware.per_node}",
            hint="leave tensor_parallel and pipeline_parallel out: a stage per node",
        )
    count = 1 if place(spec) == "cpu" else spec.hardware.count
    if tensor * stages != count:
        raise ConfigurationError(
            f"serving: tensor_parallel {tensor} x pipeline_parallel {stages} is {tensor * stages} "
            f"devices, and hardware.count is {count}",
            hint=f"set hardware.count: {tensor * stages}, or leave tensor_parallel out",
        )


def _further(spec: ModelSpec, runtime: Runtime, settings: Sequence[Setting]) -> None:
    """Refuse arguments of a person that mean nothing, or something else than the spec does."""
    where, options = "runtime_args", known(runtime.known)
    for word in spec.runtime_args:
        if "{{" in word:
            raise ConfigurationError(
                f"{where}: found {word!r}; KServe expands {{{{…}}}} in arguments",
                hint="put it into a file of the checkpoint, or into the runtime's image",
            )
    for word in options_of(spec.runtime_args, where):
        name, found = word.partition("=")[0], options.option(word)
        if found is None:
            near = options.nearest(word)
            raise ConfigurationError(
                f"{where}: {runtime.key} {runtime.version} has no option {name}"
                + (f"; did you mean {near}?" if near else ""),
                hint=f"its options: {options.source}",
            )
        said = _said(found, runtime, settings)
        if said is not None:
            raise ConfigurationError(
                f"{where}: {name} says what {said or 'Penstock itself'} says",
                hint=f"leave {name} out"
                + (f", and set {said}" if said else ": probes, routes and files depend on it"),
            )


def _said(found: str, runtime: Runtime, settings: Iterable[Setting]) -> str | None:
    """Return the field of model.yaml that sets an option already; empty where none does."""
    options = known(runtime.known)
    if any(options.option(word) == found for word in runtime.args if word.startswith("-")):
        return ""
    key = found.lstrip("-").replace("-", "_")
    for each in settings:
        spelling = options.option(each.name) if isinstance(each, Option) else each.key
        if spelling in (found, key) or (isinstance(each, Entry) and each.key.endswith(f".{key}")):
            return each.field
    return None


def _environment(spec: ModelSpec, runtime: Runtime, settings: Iterable[Setting]) -> dict[str, str]:
    text = " ".join(runtime.command)
    values = {
        "PENSTOCK_NAME": spec.name,
        "PENSTOCK_CONFIG": compact(document(e for e in settings if isinstance(e, Entry))),
        "PENSTOCK_BATCH": str(spec.engine.max_batch_size),
    }
    return {name: value for name, value in values.items() if f"${name}" in text}
