"""Builds for TensorRT-LLM what a spec asks for: planned on any node, built on a GPU's, once.

What no GPU could help is refused while nothing is pulled, what does not suit the checkpoint while
no GPU is taken, and what does not suit the node before anything is built. Whether the result may
replace its parent is not judged here: that takes the GPU that serves it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from typing import Any

from components.steps.context import Context, write_atomically
from components.steps.engine_asked import ENGINE, Asked, asked, in_words_of_the_spec, trtllm_recipe
from components.steps.parameters import as_parameter
from components.steps.verbs import checkpoint_of, hub_of, spec_of
from components.trtllm.build import Parent, facts_in, produce, work_folder
from components.trtllm.builder import Builder, in_environment, node_here, refuse_absent
from components.trtllm.cache import EngineCache
from components.trtllm.key import Node, key_of
from components.trtllm.plan import Build, Places, Plan, plan
from penstock.core.errors import (
    CheckpointBroken,
    DataRefused,
    EngineRefused,
    RecipeImpossible,
    StoreError,
)
from penstock.core.identity import Digest
from registry import conformance
from registry.datasets import read_rows
from registry.pull import resolve as resolve_reference
from registry.store import hash_file, verify

PYTHON = "PENSTOCK_TRTLLM_PYTHON"
"""Variable: the interpreter that has TensorRT-LLM, where it is not that of NVIDIA's image."""

EXAMPLES = "PENSTOCK_TRTLLM_EXAMPLES"
"""Variable: the folder of `quantization/quantize.py`, likewise."""

_CUDA = 13  # of the images of 1.2 and 1.3


def resolve(context: Context, spec: str) -> str:
    """Refuse what no checkpoint could help; pin the source, and the prompts to calibrate with."""
    model = spec_of(spec)
    with _refusals(context):
        asked(model)
    source, prompts = resolve_reference(model.ref, hub_of(context.settings)), model.data.calibrate
    data = {}
    if prompts:
        read_rows(Path(prompts))
        data["calibrate"] = {"path": prompts, "digest": str(hash_file(Path(prompts)))}
    body = {"source": str(source), "data": data, "runtime": ENGINE}
    context.detail |= body
    return as_parameter(json.dumps(body))


def plan_engine(
    context: Context, spec: str, resolved: str, checkpoint_path: str
) -> tuple[str, str, str]:
    """Refuse what does not suit the checkpoint; return GPUs, CPUs and memory of the build's pod."""
    with _refusals(context):
        made = _Work(context, spec, resolved, checkpoint_path).plan(PurePosixPath("work"), {})
    needs = made.resources.kubernetes()["requests"]
    context.detail |= {
        "resources": needs,
        "disk_bytes": made.resources.disk_bytes,
        "stages": [stage.output for stage in made.stages],
    }
    return needs["nvidia.com/gpu"], needs["cpu"], needs["memory"]


def build_engine(
    context: Context,
    env: Mapping[str, str],
    spec: str,
    resolved: str,
    checkpoint_path: str,
    out_path: str,
) -> None:
    """Build, or find what was built of the same key; where and what it is goes to `out_path`."""
    with _refusals(context):
        work = _Work(context, spec, resolved, checkpoint_path)
        node = node_for(work.asked, env, bound=work.build.strategy == "engine")
        key = key_of(work.build, work.manifest.root, node, work.recipe_digest)
        made = work.plan(PurePosixPath(work_folder(work.cache, key)), env)
        refuse_absent(made, env, image=str(work.asked.image))
    context.detail |= {
        "key": str(key.digest),
        "strategy": key.strategy,
        "scheme": key.scheme,
        "image": str(work.asked.image),
        "node": asdict(node) if node else None,
        "shape": asdict(key.shape),
        "serve": list(made.serve),
        "resources": made.resources.kubernetes(),
    }
    verify(work.folder, work.manifest)
    work.write_prompts()
    before = _built_at(work.cache, key.digest)
    runs = _Runs(context, made, in_environment(env))
    parent = Parent(work.folder, work.manifest.source)
    started = time.monotonic()
    try:
        entry = produce(work.cache, key, made, parent, run=runs, tell=_say)
    finally:
        context.detail |= {"seconds": time.monotonic() - started, "stages": runs.ran}
    context.reused = entry.built_at == before
    context.detail |= {
        "reused": context.reused,
        "folder": str(entry.files),
        "root": str(entry.manifest.root),
        "size_bytes": entry.manifest.size_bytes,
        "files": json.loads(entry.manifest.to_json())["files"],
    }
    names = ("key", "strategy", "folder", "root", "serve", "resources")
    write_atomically(Path(out_path), json.dumps({name: context.detail[name] for name in names}))


def node_for(asked: Asked, env: Mapping[str, str], *, bound: bool) -> Node | None:
    """Return the node we are on; None where the result runs on any GPU that has the precision.

    Raises:
        EngineRefused: The node or its image is another than the spec's.
    """
    node = node_here(env, cuda=_CUDA) if bound else None
    version = env.get("TRT_LLM_VERSION", asked.image.tag)
    wrong = []
    if node and node.sm != asked.gpu.sm:
        wrong.append(
            f"GPU: hardware.accelerator is {asked.gpu.name} (SM{asked.gpu.sm}), here is "
            f"{node.gpu} (SM{node.sm})"
        )
    if version != asked.image.tag:
        wrong.append(f"TensorRT-LLM: engine.image has {asked.image.tag}, here is {version}")
    if wrong:
        raise EngineRefused(
            "an engine is built where it runs: " + "; ".join(wrong),
            hint="run it on such a node, or name this one in model.yaml",
        )
    return node


class _Work:
    """A checkpoint that TensorRT-LLM reads rightly, and what is to be built of it."""

    def __init__(self, context: Context, spec: str, resolved: str, checkpoint_path: str) -> None:
        model = spec_of(spec)
        self.manifest, self.folder = checkpoint_of(context.settings, checkpoint_path)
        self.asked, self.cache = asked(model), EngineCache(context.settings.home / "engines")
        where = str(self.manifest.source)
        conformance.require(conformance.inspect(self.folder), where, engine=ENGINE)
        facts = facts_in(self.folder)
        # what came quantized by ModelOpt is not quantized again, unless somebody says so
        keeps = model.precision == "auto" and facts.quantized
        wanted = None if keeps else self.asked.recipe
        given = json.loads(resolved)["data"].get("calibrate")
        self._data: Mapping[str, str] | None = given if wanted else None
        calibration = str(self._prompts.parent) if self._data else ""
        self.build = Build(
            model.engine.strategy,
            facts,
            trtllm_recipe(wanted, calibration),
            self.asked.shape,
            self.asked.image,
            self.asked.gpu,
        )

    @property
    def recipe_digest(self) -> Digest:
        """Identity of the recipe: with the prompts' content, not with where they lie."""
        recipe = self.build.recipe
        return (
            replace(recipe, calibration=self._data["digest"]).digest
            if self._data
            else recipe.digest
        )

    @property
    def _prompts(self) -> Path:
        """Where quantize.py finds the prompts: in the column `text` of a folder's data set."""
        assert self._data is not None  # noqa: S101 - asked only then
        name = Digest.parse(self._data["digest"]).hex
        return self.cache.root / ".calibration" / name / "train.jsonl"

    def write_prompts(self) -> None:
        """Write the calibration set as quantize.py reads it."""
        if self._data is None:
            return
        path = Path(self._data["path"])
        if str(hash_file(path)) != self._data["digest"]:
            raise DataRefused(
                f"data.calibrate: {path} changed while the run was going on", hint="run again"
            )
        texts = [json.dumps({"text": f"{row.prompt}\n{row.answer}"}) for row in read_rows(path)]
        self._prompts.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._prompts, "\n".join(texts) + "\n")

    def plan(self, work: PurePosixPath, env: Mapping[str, str]) -> Plan:
        """Return how to build."""
        places = Places(PurePosixPath(self.folder), work)
        places = replace(
            places,
            python=env.get(PYTHON, places.python),
            examples=env.get(EXAMPLES, places.examples),
        )
        return plan(self.build, places)


class _Runs:
    """Runs a plan's commands, tells which stage that is, and keeps how long each took."""

    def __init__(self, context: Context, made: Plan, run: Builder) -> None:
        self._context, self._stages, self._run = context, made.stages, run
        self.ran: list[dict[str, Any]] = []

    def __call__(self, argv: Sequence[str], tell: Callable[[str], None]) -> int:
        names = {stage.argv: stage.output for stage in self._stages}
        output, total = names[tuple(argv)], len(names)
        place = list(names).index(tuple(argv))
        self._context.progress(place, total, f"stages, {output}")
        began = time.monotonic()
        code = self._run(argv, tell)
        seconds = time.monotonic() - began
        self.ran.append({"output": output, "seconds": seconds, "exit_code": code})
        self._context.progress(place + 1, total, f"stages, {output}")
        return code


@contextmanager
def _refusals(context: Context) -> Iterator[None]:
    """Leave in the step's record why it was refused, and tell the hint in words of model.yaml."""
    try:
        yield
    except (RecipeImpossible, EngineRefused, CheckpointBroken) as problem:
        context.detail["refused"] = str(problem)
        problem.hint = in_words_of_the_spec(problem.hint)
        raise


def _built_at(cache: EngineCache, digest: Digest) -> float | None:
    try:
        return cache.entry(digest).built_at
    except StoreError:
        return None


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
