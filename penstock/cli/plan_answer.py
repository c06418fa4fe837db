"""From a spec to its plan: headers are read, sizing decides, what runs is looked at."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from penstock.cli.plan_view import Answer
from penstock.core.errors import ConfigurationError, LifecycleError

if TYPE_CHECKING:
    from penstock.cli.plan_diff import Running
    from penstock.core.settings import Settings
    from penstock.core.spec import ModelSpec
    from serving.sizing.shape import Shape
    from serving.sizing.wish import Load

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
    from serving.sizing.shape import shape_of

    on_cpu = model.hardware.accelerator == "cpu"
    _require(model, on_cpu=on_cpu)
    seen = look(model.ref, Hub(settings.hub_endpoint, settings.hub_token))
    shape = shape_of(seen.config, seen.tensors, seen.modelopt)
    found, resolved = _on_cpu(model, shape, load) if on_cpu else _on_gpu(model, shape, load)
    running = _running(resolved, settings)
    return replace(found, source=str(seen.source), running=running)


def _require(model: ModelSpec, *, on_cpu: bool) -> None:
    """Raise what cannot be planned, whatever the weights are."""
    from serving.sizing.resolve import unknown

    if on_cpu and model.runtime not in ("auto", "cpu"):
        raise ConfigurationError(
            f"what {model.runtime} needs on a CPU is not known: only Penstock's own engine is sized"
            " there",
            hint="set runtime: auto, or hardware.accelerator",
        )
    if not on_cpu and (why := unknown(model)):
        raise ConfigurationError(
            why, hint="penstock run serves it as it came, by vllm unless another is named"
        )


def _on_gpu(model: ModelSpec, shape: Shape, load: Load | None) -> tuple[Answer, ModelSpec]:
    from serving.sizing.load import estimate
    from serving.sizing.resolve import resolve

    found = resolve(model, shape, load)
    trial, place = found.plan.trial, found.plan.place
    told = estimate(shape, place.gpu, trial, load)
    answer = Answer(
        name=model.name,
        source="",
        model=f"{model.name}: {shape.told}",
        engine=found.engine.name,
        precision=trial.option.name,
        devices=str(place),
        items=trial.items,
        device=trial.visible,
        capacity=trial.visible * trial.share,
        room=trial.room,
        context=trial.context,
        concurrency=trial.concurrency,
        reasons=(f"fits: {found.told}", *found.reasons),
        tensor_parallel=trial.split.tensor,
        pipeline_parallel=trial.split.pipeline,
        replicas=told.replicas,
        share=trial.share,
        sequence=trial.sequence,
        token=trial.token,
        settings=_settings(found.spec, model.serving.concurrency),
        estimates=tuple(_estimates(told, load)),
        warnings=found.warnings,
        rejected=found.rejected,
    )
    return answer, found.spec


def _on_cpu(model: ModelSpec, shape: Shape, load: Load | None) -> tuple[Answer, ModelSpec]:
    from serving.sizing import host
    from serving.sizing.memory import GIB

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
    answer = Answer(
        name=model.name,
        source="",
        model=f"{model.name}: {shape.told}",
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
    return answer, model


def _memory(model: ModelSpec) -> float:
    """Return what a replica may use: of the pod, or of this machine."""
    if model.target == "local":
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    found = re.fullmatch(r"(\d+)(\w+)", model.hardware.memory or _CPU_MEMORY)
    return float(found[1]) * _UNITS[found[2]] if found else 0.0


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


def _settings(model: ModelSpec, concurrency: int | None) -> str:
    """Return what to write into model.yaml to keep this."""
    wish = model.serving
    sizes = {"context": wish.context, "concurrency": concurrency}
    splits = {
        "tensor_parallel": wish.tensor_parallel,
        "pipeline_parallel": wish.pipeline_parallel,
    }
    sizes |= {name: count for name, count in splits.items() if count and count > 1}
    return f"serving: {{{', '.join(f'{name}: {each}' for name, each in sizes.items() if each)}}}"


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
