"""What `runtime: auto` and `precision: auto` mean for a checkpoint beside devices, and why.

`penstock run` asks `resolve` once, before anything is pulled, and `penstock plan` asks the same:
what it returns is what is deployed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from penstock.core import matrix
from penstock.core.errors import ConfigurationError
from penstock.core.matrix_rows import ARTIFACTS
from penstock.core.recipes import DEFAULTS, Recipe
from penstock.core.spec import ModelSpec
from serving.runtimes.catalog import RUNTIMES, runtime_of
from serving.sizing.choose import Plan, Refusal, choose
from serving.sizing.shape import Shape
from serving.sizing.wish import Load, Option, Place, Rejected, Wish

ENGINES = ("vllm", "sglang", "tensorrt-llm")
"""In the order in which `auto` asks them."""


@dataclass(frozen=True, slots=True)
class Engine:
    """What serves, and why."""

    name: str
    reason: str
    rejected: tuple[Rejected, ...] = ()
    ok: bool = True
    """Whether it runs the checkpoint as it came."""

    @property
    def row(self) -> tuple[str, str]:
        """Engine and version in `penstock.core.matrix`: those of the runtime that is pinned."""
        return RUNTIMES[self.name].matrix["gpu"]


@dataclass(frozen=True, slots=True)
class Resolved:
    """A spec that leaves nothing open, and why it is so."""

    spec: ModelSpec
    engine: Engine
    plan: Plan
    rejected: tuple[Rejected, ...]

    @property
    def told(self) -> str:
        """What is served, in a line."""
        trial, place = self.plan.trial, self.plan.place
        return f"{self.engine.name} on {place}, {trial.option.name}, {trial.split}"

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why."""
        return (f"{self.engine.name} {self.engine.reason}", *self.plan.reasons)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What may surprise."""
        return (*self.plan.warnings, *_uncounted(self.spec))


def unknown(model: ModelSpec) -> str:
    """Return why nothing can be planned for a spec's devices; empty where something can."""
    if model.hardware.device.sm is None:
        return f"neither sizing nor the precision matrix knows {model.hardware.accelerator}"
    return ""


def by_default(model: ModelSpec) -> ModelSpec:
    """Return how a spec is served where nothing is known of its weights: as they came."""
    precision = () if model.precision == "auto" else model.precision
    return model.model_copy(update={"runtime": model.engine_name, "precision": precision})


def resolve(model: ModelSpec, shape: Shape, load: Load | None = None) -> Resolved:
    """Return how a spec is served beside devices.

    Args:
        model: The spec.
        shape: Its checkpoint's.
        load: Requests that arrive.

    Raises:
        ConfigurationError: It does not fit, or contradicts itself, with the smallest change that
            would work.
    """
    gpu = model.hardware.device
    if model.runtime == "cpu":
        raise ConfigurationError(
            f"runtime cpu cannot use {gpu.name}",
            hint="set runtime: auto, or hardware.accelerator: cpu",
        )
    engine = engine_for(model.runtime, shape.artifact, gpu.name)
    wanted, impossible = _recipes(model, engine)
    options, others = options_for(engine, shape.artifact, gpu.name, wanted)
    if not options:
        raise _no_engine(engine, shape, gpu.name)
    place = Place(
        gpu, model.hardware.count, engine.name, model.hardware.mig or "", model.hardware.nodes
    )
    found = choose(shape, place, options, wish_of(model, load), others)
    if isinstance(found, Refusal):
        raise _refused(model, shape, found)
    rejected = (*engine.rejected, *impossible, *found.rejected)
    return Resolved(_filled(model, engine, found), engine, found, rejected)


def engine_for(asked: str, artifact: str, gpu: str) -> Engine:
    """Return what serves a checkpoint beside devices.

    Args:
        asked: `runtime` of model.yaml.
        artifact: Format of the checkpoint.
        gpu: Accelerator, by name.
    """
    if artifact not in ARTIFACTS:
        name = ENGINES[0] if asked == "auto" else asked
        told = f"the matrix does not know {artifact}: whether {name} runs it on {gpu} is not said"
        return Engine(name, told)
    names = ENGINES if asked == "auto" else (asked,)
    rejected: list[Rejected] = []
    for name in names:
        fit = matrix.judge(artifact, *RUNTIMES[name].matrix["gpu"], gpu)
        if fit.ok:
            return Engine(name, f"runs {artifact} on {gpu}: {fit.reason}", tuple(rejected))
        rejected.append(Rejected(f"runtime {name}", f"{artifact} on {gpu}: {fit.reason}"))
    return Engine(names[0], rejected[0].why, tuple(rejected), ok=False)


def options_for(
    engine: Engine, artifact: str, gpu: str, wanted: Sequence[Recipe] | None
) -> tuple[list[Option], list[Option]]:
    """Return the precisions that may be served, the preferred one first, and what else would run.

    A checkpoint that was quantized already is served as it came. Otherwise `auto` prefers the
    checkpoint as it came, which loses nothing, then more bits to fewer; recipes that were named
    come first, and what evaluation refuses is served as it came.

    Args:
        engine: What serves.
        artifact: Format of the checkpoint.
        gpu: Accelerator, by name.
        wanted: Recipes that can be made for the engine; None for `auto`.
    """
    came = [Option(artifact, reason="as it came, which loses nothing")] if engine.ok else []
    if artifact != "bf16":
        return came, []
    listed = sorted(_possible(engine, gpu), key=lambda each: -each.bits)
    if wanted is None:
        natively = [each for each in listed if "native" in each.reason]
        return [*came, *natively], [each for each in listed if each not in natively]
    named = [_option(recipe, engine, gpu) for recipe in wanted]
    known = {each.name for each in named}
    return [*named, *came], [each for each in listed if each.name not in known]


def wish_of(model: ModelSpec, load: Load | None) -> Wish:
    """Return what a spec asks of the plan."""
    asked = model.serving
    return Wish(
        context=asked.context,
        concurrency=asked.concurrency,
        tensor_parallel=asked.tensor_parallel,
        pipeline_parallel=asked.pipeline_parallel,
        kv_cache=asked.kv_cache,
        memory_share=asked.memory_share,
        load=load,
    )


def _uncounted(model: ModelSpec) -> Iterator[str]:
    """Yield what a spec asks for that the arithmetic does not know."""
    guess = model.serving.speculative
    if guess is not None and guess.kind != "ngram":
        yield f"serving.speculative: the weights of {guess.model} and its cache are not counted"
    if model.serving.lora is not None:
        yield "serving.lora: adapters are not counted"
    if model.hardware.sharing != "none":
        yield f"hardware.sharing: {model.hardware.sharing}: what others use of it is not counted"


def _filled(model: ModelSpec, engine: Engine, plan: Plan) -> ModelSpec:
    """Return the spec with what was chosen, as far as the runtime can be told.

    Where no concurrency is asked for, the one that the arithmetic assumed becomes the engine's
    limit. As a wish it would mean more: so many sequences of the longest context at once.
    """
    trial, came = plan.trial, plan.trial.option.as_it_came
    chosen = () if came else (DEFAULTS[trial.option.name],)
    precision = chosen if model.precision == "auto" else model.precision
    named = model.model_copy(update={"runtime": engine.name, "precision": precision})
    sizes = {"context": trial.context, "concurrency": trial.batch.sequences}
    can = runtime_of(named).can
    told: dict[str, int] = {name: size for name, size in sizes.items() if name in can}
    told |= {"tensor_parallel": trial.split.tensor, "pipeline_parallel": trial.split.pipeline}
    return named.model_copy(update={"serving": named.serving.model_copy(update=told)})


def _recipes(
    model: ModelSpec, engine: Engine
) -> tuple[Sequence[Recipe] | None, tuple[Rejected, ...]]:
    """Return the recipes that were named and run there, and the others with why not."""
    if model.precision == "auto":
        return None, ()
    why = {each: _why_not(each, engine, model.hardware.accelerator) for each in model.precision}
    rejected = tuple(Rejected(f"precision {each.name}", told) for each, told in why.items() if told)
    return [each for each, told in why.items() if not told], rejected


def _why_not(recipe: Recipe, engine: Engine, gpu: str) -> str:
    fits = [(name, matrix.judge(name, *engine.row, gpu)) for name in recipe.artifacts]
    return next((f"{name} on {gpu}: {fit.reason}" for name, fit in fits if not fit.ok), "")


def _possible(engine: Engine, gpu: str) -> Iterable[Option]:
    """Yield one recipe per width, the one most worth trying, of those that run there."""
    seen: set[int] = set()
    for name in matrix.possible(*engine.row, gpu):
        bits = ARTIFACTS[name].bits
        if name in DEFAULTS and 0 < bits < 16 and bits not in seen:
            seen.add(bits)
            yield _option(DEFAULTS[name], engine, gpu)


def _option(recipe: Recipe, engine: Engine, gpu: str) -> Option:
    fit = matrix.judge(recipe.artifacts[0], *engine.row, gpu)
    how = "computed natively" if fit.how == "yes" else f"as a {fit.how}"
    return Option(recipe.name, recipe.bits, f"{how} by {engine.name} on {gpu}: {fit.reason}")


def _refused(model: ModelSpec, shape: Shape, found: Refusal) -> ConfigurationError:
    changes = [f"{each.what} ({each.then})" for each in found.changes]
    others = "".join(f"\n  or {each}" for each in changes[1:])
    return ConfigurationError(
        f"{model.name} ({shape.told}) does not fit: {found.why}",
        hint=f"{changes[0]}{others}" if changes else "nothing that sizing knows would hold it",
    )


def _no_engine(engine: Engine, shape: Shape, gpu: str) -> ConfigurationError:
    other = engine_for("auto", shape.artifact, gpu)
    return ConfigurationError(
        f"{engine.name} does not run this checkpoint: {engine.reason}",
        hint=f"set runtime: {other.name}"
        if other.ok
        else f"no engine runs {shape.artifact} on {gpu}: docs/reference/precision.md",
    )
