"""From a spec to an engine's arguments; what cannot be is refused here, before anything changes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from penstock.core.errors import ConfigurationError
from penstock.core.matrix import judge
from penstock.core.spec import ModelSpec
from serving.runtimes.catalog import RUNTIMES, runtime_of
from serving.runtimes.known import known, options_of
from serving.runtimes.runtime import Can, Place, Runtime, asked, place, split
from serving.runtimes.settings import Entry, Option, Setting, compact, document

_LOAD_BYTES_S = 50e6
"""Weights are read at least this fast: a busy network volume. Local disks do ten times that."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What an engine is started with, beside what holds for every model."""

    runtime: Runtime
    args: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    image: str = ""
    """Instead of the runtime's, where `engine.image` names another; empty: the runtime's."""


def launch(spec: ModelSpec, artifact: str = "") -> Launch:
    """Return how the engine of a spec is started.

    Args:
        spec: What is served, and how.
        artifact: Kind of the checkpoint, a name of `penstock.core.matrix`; empty: not known, and
            the engine reads it from the checkpoint.

    Raises:
        ConfigurationError: The engine cannot do it, does not know an option, or is told two things.
    """
    runtime = runtime_of(spec)
    _possible(spec, runtime)
    _counted(spec)
    if artifact:
        _runs(artifact, spec, runtime)
    settings = told(runtime, spec, artifact)
    _further(spec, runtime, settings)
    options = [each for each in settings if isinstance(each, Option)]
    words = [word for each in options for word in each.words()]
    args = (*words, *spec.runtime_args)
    other = runtime.image_from_spec and spec.engine.image != runtime.image
    image = spec.engine.image if other else ""
    return Launch(runtime, args, _environment(spec, runtime, settings), image)


def told(runtime: Runtime, spec: ModelSpec, artifact: str = "") -> list[Setting]:
    """Return everything that a runtime is told about one model."""
    name = [Option("name", runtime.name_option, (spec.name,))] if runtime.name_option else []
    return [*name, *runtime.settings(spec, artifact)]


def start_budget_s(runtime: Runtime, weights_bytes: int) -> float:
    """Return how long a pod may take to start before it is taken for dead."""
    return runtime.start_s + weights_bytes / _LOAD_BYTES_S


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
    count = 1 if place(spec) == "cpu" else spec.hardware.count
    if tensor * stages != count:
        raise ConfigurationError(
            f"serving: tensor_parallel {tensor} x pipeline_parallel {stages} is {tensor * stages} "
            f"devices, and hardware.count is {count}",
            hint=f"set hardware.count: {tensor * stages}, or leave tensor_parallel out",
        )


def _runs(artifact: str, spec: ModelSpec, runtime: Runtime) -> None:
    engine, version = runtime.matrix[place(spec)]
    fit = judge(artifact, engine, version, spec.hardware.accelerator)
    if not fit.ok:
        raise ConfigurationError(
            f"runtime {spec.engine_name} does not run {artifact} on {spec.hardware.accelerator}: "
            f"{fit.reason}",
            hint=f"the nearest that runs there: {fit.nearest}" if fit.nearest else "",
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
