"""Builds what a plan says, once per key, and goes on where an earlier try was stopped."""

from __future__ import annotations

import json
import shutil
import signal
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from components.trtllm.builder import Builder
from components.trtllm.cache import EngineCache, Entry, Tell
from components.trtllm.key import BuildKey
from components.trtllm.model import ModelFacts, facts_of
from components.trtllm.outputs import check
from components.trtllm.plan import TOKENIZER, Plan, Stage
from penstock.core.errors import (
    BuildFailed,
    ConfigurationError,
    DigestMismatch,
    DiskFull,
    StoreError,
    disk_errors,
)
from penstock.core.identity import ModelRef
from penstock.core.manifest import Manifest
from registry.store import manifest_of, require_space, verify

_LAST_LINES = 20
_NO_SPACE = "No space left on device"
_BESIDE = (
    *("tokenizer*", "special_tokens_map.json", "vocab.*", "merges.txt", "added_tokens.json"),
    *("chat_template*", "generation_config.json"),
)
"""What a checkpoint has beside weights and config.json, and exporters leave out."""


@dataclass(frozen=True, slots=True)
class Parent:
    """The checkpoint a build starts from."""

    folder: Path
    source: ModelRef
    """Where it came from; the result says so."""


def facts_in(folder: Path) -> ModelFacts:
    """Return the facts of the checkpoint in a folder; `ConfigurationError` if there is none."""
    try:
        config = json.loads((folder / "config.json").read_text())
        quantization = folder / "hf_quant_config.json"
        quantized = json.loads(quantization.read_text()) if quantization.exists() else None
    except (OSError, ValueError) as problem:
        raise ConfigurationError(
            f"{folder}: no checkpoint: {problem}", hint="name a folder with config.json"
        ) from problem
    weights = [path.stat().st_size for path in folder.glob("*.safetensors")]
    if not weights:
        raise ConfigurationError(f"{folder}: no weights (*.safetensors)")
    return facts_of(config, sum(weights), quantized)


def work_folder(cache: EngineCache, key: BuildKey) -> Path:
    """Return where the stages of a key write: what `Places.work` must be."""
    return cache.root / ".work" / key.digest.hex


def produce(
    cache: EngineCache, key: BuildKey, plan: Plan, parent: Parent, *, run: Builder, tell: Tell
) -> Entry:
    """Return the build of a key: from the cache, from who is building it now, or by building.

    Args:
        cache: Where builds are kept.
        key: Identity of the build.
        plan: How to build; made for `work_folder(cache, key)`.
        parent: What it is made from; its digests are the caller's to verify.
        run: Runs one command.
        tell: Told every line of progress.

    Raises:
        BuildFailed: A command failed, or left something else than it was asked for.
        DiskFull: Before anything runs, if that can be foreseen.
    """
    with disk_errors(cache.root), cache.claimed(key.digest, tell) as work:
        found = _kept(cache, key, tell)
        if found is not None:
            shutil.rmtree(work, ignore_errors=True)
            return found
        pending = [stage for stage in plan.stages if not _done(stage, work)]
        if pending:
            require_space(work, plan.resources.disk_bytes)
        for stage in plan.stages:
            if stage in pending:
                _run(stage, work, key, parent, run=run, tell=tell)
            else:
                tell(f"{stage.output}: done by an earlier try")
        if plan.tokenizer:
            _take_beside(parent.folder, work / TOKENIZER, config=True)
        kept = [stage.output for stage in plan.stages if stage.kept]
        kept += [TOKENIZER] if plan.tokenizer else []
        files = plan.files | {"serve.json": json.dumps(list(plan.serve)) + "\n"}
        return cache.publish(key, parent.source, {name: work / name for name in kept}, files)


def _kept(cache: EngineCache, key: BuildKey, tell: Tell) -> Entry | None:
    if not (cache.root / key.digest.hex).exists():
        return None
    try:
        entry = cache.entry(key.digest)
        entry.verify()
        cache.touch(key.digest)
    except StoreError as problem:
        tell(f"built again, because it is damaged: {problem}")
        return None
    return entry


def _done(stage: Stage, work: Path) -> bool:
    """Whether an earlier try finished a stage, and what it made is still that."""
    try:
        body = json.loads(_mark(stage, work).read_text())
        verify(work / stage.output, Manifest.from_json(body["manifest"]))
    except (OSError, ValueError, KeyError, DigestMismatch, ConfigurationError):
        return False
    return bool(body.get("argv") == list(stage.argv))


def _run(
    stage: Stage, work: Path, key: BuildKey, parent: Parent, *, run: Builder, tell: Tell
) -> None:
    folder, log = work / stage.output, work / f"{stage.output}.log"
    _mark(stage, work).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    last: deque[str] = deque(maxlen=_LAST_LINES)
    finished = False
    try:
        with log.open("w") as lines:

            def heard(line: str) -> None:
                last.append(line)
                lines.write(line + "\n")
                tell(line)

            code = run(stage.argv, heard)
        if code:
            raise _failure(stage, code, last, log)
        check(stage.output, folder, key)
        if stage.output == "checkpoint":
            _take_beside(parent.folder, folder, config=False)
        made = manifest_of(folder, parent.source).to_json()
        body = json.dumps({"argv": list(stage.argv), "manifest": made})
        new = _mark(stage, work).with_suffix(".new")
        new.write_text(body)
        new.replace(_mark(stage, work))
        finished = True
    finally:
        if not finished:
            shutil.rmtree(folder, ignore_errors=True)


def _mark(stage: Stage, work: Path) -> Path:
    return work / f"{stage.output}.done"


def _failure(stage: Stage, code: int, last: deque[str], log: Path) -> BuildFailed | DiskFull:
    program = Path(stage.argv[1] if stage.argv[1].endswith(".py") else stage.argv[0]).name
    if any(_NO_SPACE in line for line in last):
        return DiskFull(
            f"{program}: no space left for {stage.output}",
            hint="free space, or set PENSTOCK_HOME to another disk; finished stages are kept",
        )
    told = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
    return BuildFailed(
        f"{program}: {told}; its last lines:\n  " + "\n  ".join(last or ["(none)"]),
        hint=f"the whole output: {log}; a retry goes on with what earlier stages made",
    )


def _take_beside(parent: Path, folder: Path, *, config: bool) -> None:
    """Copy what an exporter leaves out; what it wrote stays."""
    folder.mkdir(exist_ok=True)
    patterns = (*_BESIDE, "config.json") if config else _BESIDE
    for path in sorted({path for pattern in patterns for path in parent.glob(pattern)}):
        if path.is_file() and not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)
