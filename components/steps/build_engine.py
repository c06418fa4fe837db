"""Builds for TensorRT-LLM what a spec asks for: planned on any node, built on a GPU's, once.

What no GPU could help is refused while nothing is pulled, what does not suit the checkpoint while
no GPU is taken, and what does not suit the node before anything is built. Whether the result may
replace its parent, `judge_engine` says.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

from components.steps.context import Context, write_atomically
from components.steps.engine_asked import asked
from components.steps.engine_work import Work, refusals, say
from components.steps.parameters import as_parameter
from components.steps.verbs import hub_of, spec_of
from components.trtllm.build import Parent, produce, work_folder
from components.trtllm.builder import Builder, in_environment, node_for, refuse_absent
from components.trtllm.cache import EngineCache
from components.trtllm.key import key_of
from components.trtllm.model import ENGINE
from components.trtllm.plan import Plan
from penstock.core.errors import DataRefused, StoreError
from penstock.core.identity import Digest
from registry.datasets import read_rows
from registry.pull import resolve as resolve_reference
from registry.store import hash_file, verify


def resolve(context: Context, spec: str) -> str:
    """Refuse what no checkpoint could help; pin the source and the data sets."""
    model = spec_of(spec)
    with refusals(context):
        asked(model)
    data = {}
    for name, path in (("calibrate", model.data.calibrate), ("evaluate", model.data.evaluate)):
        if path:
            read_rows(Path(path))
            data[name] = {"path": path, "digest": str(hash_file(Path(path)))}
    source = resolve_reference(model.ref, hub_of(context.settings))
    body = {"source": str(source), "data": data, "runtime": ENGINE}
    context.detail |= body
    return as_parameter(json.dumps(body))


def plan_engine(
    context: Context, spec: str, resolved: str, checkpoint_path: str
) -> tuple[str, str, str]:
    """Refuse what does not suit the checkpoint; return GPUs, CPUs and memory of the build's pod."""
    with refusals(context):
        work = Work(context, spec, resolved, checkpoint_path)
        made = work.plan(PurePosixPath("work"), {})
    if made.stages and "evaluate" not in work.data:
        raise DataRefused(
            "data.evaluate is not set: nothing could show that what is built may replace its "
            "parent",
            hint="set data.evaluate, or precision: bf16 with engine.strategy: checkpoint",
        )
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
    with refusals(context):
        work = Work(context, spec, resolved, checkpoint_path)
        node = node_for(work.build, env)
        key = key_of(work.build, work.manifest.root, node, work.prompts)
        made = work.plan(PurePosixPath(work_folder(work.cache, key)), env)
        refuse_absent(made, env, image=str(work.build.image))
    context.detail |= {
        "key": str(key.digest),
        "strategy": key.strategy,
        "scheme": key.scheme,
        "image": str(work.build.image),
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
        entry = produce(work.cache, key, made, parent, run=runs, tell=say)
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


def _built_at(cache: EngineCache, digest: Digest) -> float | None:
    try:
        return cache.entry(digest).built_at
    except StoreError:
        return None
