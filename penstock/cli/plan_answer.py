"""From a spec to its plan: headers are read, sizing decides, what runs is looked at."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from penstock.cli.plan_view import Answer
from penstock.core.errors import ConfigurationError, LifecycleError
from penstock.core.hardware import ACCELERATORS

if TYPE_CHECKING:
    from penstock.cli.plan_diff import Running
    from penstock.core.settings import Settings
    from penstock.core.spec import ModelSpec
    from serving.sizing.choose import Plan, Refusal
    from serving.sizing.resolve import Engine
    from serving.sizing.shape import Shape
    from serving.sizing.wish import Load, Wish

_UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}
_CPU_MEMORY = "2Gi"
"""Of the CPU engine on a cluster: serving.kserve.facts."""


def load_of(text: str | None) -> Load | None:
    """Return a load as the command line has it: RPS:PROMPT:ANSWER."""
    from serving.sizing.wish import Load

    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?):(\d+):(\d+)", text)
    if not found or not all(float(each) > 0 for each in found.groups()):
        raise ConfigurationError(
            f"--load: found {text!r}; allowed: RPS:PROMPT:ANSWER, numbers above 0",
            hint="such as --load 5:1000:200: five per second, 1,000 tokens asked, 200 answered",
        )
    return Load(float(found[1]), int(found[2]), int(found[3]))


def answer_of(model: ModelSpec, settings: Settings, load: Load | None) -> Answer:
    """Return how a spec would be served.

    Raises:
        ConfigurationError: It does not fit, or contradicts itself, with what would work.
        HubError: The Hub refuses, or does not answer.
    """
    from registry.headers import look
    from registry.pull import Hub
    from serving.sizing.resolve import engine_for
    from serving.sizing.shape import shape_of

    seen = look(model.ref, Hub(settings.hub_endpoint, settings.hub_token))
    shape = shape_of(seen.config, seen.tensors, seen.modelopt)
    engine = engine_for(model.runtime, shape.artifact, model.hardware.accelerator)
    if engine.name == "cpu":
        found, resolved = _on_cpu(model, shape, load), model
    else:
        found, resolved = _on_gpu(model, shape, engine, load)
    running = _running(resolved, settings)
    return replace(found, source=str(seen.source), running=running)


def wish_of(model: ModelSpec, load: Load | None) -> Wish:
    """Return what a spec asks of the plan."""
    from serving.sizing.wish import Wish

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


def _on_gpu(
    model: ModelSpec, shape: Shape, engine: Engine, load: Load | None
) -> tuple[Answer, ModelSpec]:
    from serving.sizing.choose import Plan, choose
    from serving.sizing.resolve import options_for
    from serving.sizing.wish import Place, Rejected

    gpu = ACCELERATORS[model.hardware.accelerator]
    wanted, impossible = _recipes(model, engine.name)
    options, others = options_for(engine, shape.artifact, gpu.name, wanted)
    if not options:
        raise _no_engine(engine, shape, gpu.name)
    place, wish = Place(gpu, model.hardware.count, engine.name), wish_of(model, load)
    found = choose(shape, place, options, wish, others)
    if not isinstance(found, Plan):
        raise _refused(model, shape, found)
    rejected = (*engine.rejected, *(Rejected(*each) for each in impossible), *found.rejected)
    answer = replace(_planned(model, shape, engine, found, load), rejected=rejected)
    return answer, _resolved(model, answer)


def _planned(
    model: ModelSpec, shape: Shape, engine: Engine, plan: Plan, load: Load | None
) -> Answer:
    from serving.sizing.load import estimate

    trial = plan.trial
    told = estimate(shape, plan.place.gpu, trial, load)
    chosen = f"runtime {model.runtime}: {engine.name} {engine.reason}"
    split = trial.split
    devices = f"{plan.place.count} x {plan.place.gpu.name}"
    what = f"{engine.name} on {devices}, {trial.option.name}, {split}"
    return Answer(
        name=model.name,
        source="",
        model=f"{model.name}: {_told(shape)}",
        engine=engine.name,
        precision=trial.option.name,
        devices=devices,
        items=trial.items,
        device=trial.visible,
        capacity=trial.visible * trial.share,
        room=trial.room,
        context=trial.context,
        concurrency=trial.concurrency,
        reasons=(f"fits: {what}", chosen, *plan.reasons),
        tensor_parallel=split.tensor,
        pipeline_parallel=split.pipeline,
        replicas=told.replicas,
        share=trial.share,
        sequence=trial.sequence,
        token=trial.token,
        settings=_settings(trial.context, trial.batch.sequences, plan),
        estimates=tuple(_estimates(told, load)),
        warnings=(*plan.warnings, *_uncounted(model)),
    )


def _uncounted(model: ModelSpec) -> Iterator[str]:
    """Yield what a spec asks for that the arithmetic does not know."""
    guess = model.serving.speculative
    if guess is not None and guess.kind != "ngram":
        yield f"serving.speculative: the weights of {guess.model} and its cache are not counted"
    if model.serving.lora is not None:
        yield "serving.lora: adapters are not counted"


def _on_cpu(model: ModelSpec, shape: Shape, load: Load | None) -> Answer:
    from serving.sizing import host
    from serving.sizing.memory import GIB

    if model.hardware.accelerator != "cpu":
        raise ConfigurationError(
            f"runtime cpu cannot use {model.hardware.accelerator}",
            hint="set runtime: auto, or hardware.accelerator: cpu",
        )
    if load is not None:
        raise ConfigurationError(
            "--load: what the CPU engine does per second is not estimated",
            hint="measure it: python -m benchmarks.engine",
        )
    items, context = host.whole(shape), min(shape.context, host.LONGEST_CONTEXT)
    needed, there = sum(item.bytes for item in items), _memory(model)
    if needed > there:
        raise ConfigurationError(
            f"{model.name}: needs {needed / GIB:.2f} GiB ({shape.parameters:,} parameters in"
            f" float32, and what is beside them), {there / GIB:.2f} GiB are there",
            hint=f"set hardware.memory: {-(-int(needed) // (1 << 20))}Mi"
            if model.target != "local"
            else "serve a smaller model, or a cluster's GPU: target: kserve, hardware.accelerator",
        )
    sequences = host.cache_tokens(shape.context) // max(context, 1)
    return Answer(
        name=model.name,
        source="",
        model=f"{model.name}: {_told(shape)}",
        engine="cpu",
        precision="float32",
        devices="cpu",
        items=items,
        device=there,
        capacity=there,
        room=0.0,
        context=context,
        concurrency=sequences,
        reasons=(f"fits: {needed / GIB:.2f} of {there / GIB:.2f} GiB on the CPU engine",),
        warnings=shape.guesses,
    )


def _memory(model: ModelSpec) -> float:
    """Return what a replica may use: of the pod, or of this machine."""
    if model.target == "local":
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    found = re.fullmatch(r"(\d+)(\w+)", model.hardware.memory or _CPU_MEMORY)
    return float(found[1]) * _UNITS[found[2]] if found else 0.0


def _recipes(
    model: ModelSpec, engine: str
) -> tuple[Sequence[Any] | None, Sequence[tuple[str, str]]]:
    """Return the recipes that were named and can be made, and the others with why not."""
    from components.quantization.choice import Target, recipes_for

    if model.precision == "auto":
        return None, ()
    target = Target(engine, model.hardware.accelerator)
    possible, impossible = recipes_for(model.precision, target)
    return possible, [(f"precision {each.recipe.name}", each.reason) for each in impossible]


def _resolved(model: ModelSpec, answer: Answer) -> ModelSpec:
    """Return the spec with what the plan decided, for the manifest it would become."""
    serving = model.serving.model_copy(
        update={
            "context": answer.context,
            "tensor_parallel": answer.tensor_parallel,
            "pipeline_parallel": answer.pipeline_parallel,
        }
    )
    return model.model_copy(update={"serving": serving, "runtime": answer.engine})


def _running(model: ModelSpec, settings: Settings) -> Running:
    """Return what serves the name now; a cluster that does not answer hinders no plan."""
    from penstock.cli.plan_diff import Running, compare

    if model.target == "local" and not (settings.cluster / "cluster.db").exists():
        return Running("")
    from serving.targets.choose import target_of

    try:
        return compare(target_of(settings, model.target), model)
    except LifecycleError as problem:
        return Running("", unknown=str(problem).partition("\n")[0])


def _refused(model: ModelSpec, shape: Shape, found: Refusal) -> ConfigurationError:
    changes = [f"{each.what} ({each.then})" for each in found.changes]
    others = "".join(f"\n  or {each}" for each in changes[1:])
    return ConfigurationError(
        f"{model.name} ({_told(shape)}) does not fit: {found.why}",
        hint=f"{changes[0]}{others}" if changes else "nothing that sizing knows would hold it",
    )


def _no_engine(engine: Engine, shape: Shape, gpu: str) -> ConfigurationError:
    from serving.sizing.resolve import engine_for

    other = engine_for("auto", shape.artifact, gpu)
    return ConfigurationError(
        f"{engine.name} does not run this checkpoint: {engine.reason}",
        hint=f"set runtime: {other.name}"
        if other.ok
        else f"no engine runs {shape.artifact} on {gpu}: docs/reference/precision.md",
    )


def _told(shape: Shape) -> str:
    active = f", {_short(shape.active, 'M', 'B')} active" if shape.experts else ""
    return (
        f"{shape.model_type}, {_short(shape.parameters, 'M', 'B')} parameters{active},"
        f" {shape.artifact}, {_short(shape.weights.bytes, 'MB', 'GB')}"
    )


def _short(number: float, millions: str, billions: str) -> str:
    return f"{number / 1e9:.4g} {billions}" if number >= 1e9 else f"{number / 1e6:.4g} {millions}"


def _settings(context: int, concurrency: int, plan: Plan) -> str:
    split = plan.trial.split
    found = [f"context: {context}", f"concurrency: {concurrency}"]
    found += [f"tensor_parallel: {split.tensor}"] if split.tensor > 1 else []
    found += [f"pipeline_parallel: {split.pipeline}"] if split.pipeline > 1 else []
    return f"serving: {{{', '.join(found)}}}"


def _estimates(told: Any, load: Load | None) -> list[str]:
    found = [
        f"{told.tokens_per_s:,.0f} tokens/s with {told.sequences} at once,"
        f" {1000 * told.tpot_s:.1f} ms per token; by bandwidth and arithmetic alone"
    ]
    if load is not None:
        found.append(
            f"{told.replicas} replica{'s' if told.replicas > 1 else ''} for {load.per_s:g}"
            f" requests/s of {load.prompt:,} + {load.answer:,} tokens: one does"
            f" {told.requests_per_s:.2f}/s"
        )
    return found
