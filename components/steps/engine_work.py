"""What a spec asks to be built of one checkpoint, for the steps that plan, build and judge it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from components.steps.context import Context, write_atomically
from components.steps.engine_asked import asked, in_words_of_the_spec
from components.steps.verbs import checkpoint_of, spec_of
from components.trtllm.build import facts_in
from components.trtllm.cache import EngineCache
from components.trtllm.model import CALIBRATION, ENGINE, Build
from components.trtllm.plan import Places, Plan, plan
from penstock.core.errors import CheckpointBroken, DataRefused, EngineRefused, RecipeImpossible
from penstock.core.identity import Digest
from registry import conformance
from registry.datasets import read_rows
from registry.store import hash_file

PYTHON = "PENSTOCK_TRTLLM_PYTHON"
"""Variable: the interpreter that has TensorRT-LLM, where it is not that of NVIDIA's image."""

EXAMPLES = "PENSTOCK_TRTLLM_EXAMPLES"
"""Variable: the folder of `quantization/quantize.py`, likewise."""


class Work:
    """A checkpoint that TensorRT-LLM reads rightly, and what is to be built of it."""

    def __init__(self, context: Context, spec: str, resolved: str, checkpoint_path: str) -> None:
        model = spec_of(spec)
        self.manifest, self.folder = checkpoint_of(context.settings, checkpoint_path)
        self.cache, wish = EngineCache(context.settings.home / "engines"), asked(model)
        where = str(self.manifest.source)
        conformance.require(conformance.inspect(self.folder), where, engine=ENGINE)
        facts = facts_in(self.folder)
        # what came quantized by ModelOpt is not quantized again, unless somebody says so
        keeps = model.precision == "auto" and facts.quantized
        wanted = None if keeps else wish.recipe
        self.data: Mapping[str, Any] = json.loads(resolved)["data"]
        """Sets as `resolve` pinned them."""
        self._calibrate: Mapping[str, str] | None = self.data.get("calibrate") if wanted else None
        self.build = Build(
            model.engine.strategy,
            facts,
            wanted,
            wish.shape,
            wish.image,
            wish.gpu,
            str(self._prompts.parent) if self._calibrate else CALIBRATION,
        )

    @property
    def prompts(self) -> Digest | None:
        """Identity of the calibration set, wherever it lies; None for quantize.py's own."""
        return Digest.parse(self._calibrate["digest"]) if self._calibrate else None

    @property
    def _prompts(self) -> Path:
        """Where quantize.py finds the prompts: in the column `text` of a folder's data set."""
        assert self._calibrate is not None  # noqa: S101 - asked only then
        name = Digest.parse(self._calibrate["digest"]).hex
        return self.cache.root / ".calibration" / name / "train.jsonl"

    def write_prompts(self) -> None:
        """Write the calibration set as quantize.py reads it."""
        if self._calibrate is None:
            return
        rows = read_rows(self.unchanged("calibrate"))
        texts = [json.dumps({"text": f"{row.prompt}\n{row.answer}"}) for row in rows]
        self._prompts.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._prompts, "\n".join(texts) + "\n")

    def unchanged(self, name: str) -> Path:
        """Return where a data set lies; `DataRefused` if it changed since it was pinned."""
        path = Path(self.data[name]["path"])
        if str(hash_file(path)) != self.data[name]["digest"]:
            raise DataRefused(
                f"data.{name}: {path} changed while the run was going on", hint="run again"
            )
        return path

    def plan(self, work: PurePosixPath, env: Mapping[str, str]) -> Plan:
        """Return how to build."""
        places = Places(PurePosixPath(self.folder), work)
        places = replace(
            places,
            python=env.get(PYTHON, places.python),
            examples=env.get(EXAMPLES, places.examples),
        )
        return plan(self.build, places)

    def served(self, files: Path, port: int, *, parent: bool) -> Plan:
        """Return how it, or its parent, is served on this machine, for this machine only.

        Args:
            files: What was built; for the parent, a folder that gets what `Plan.files` says.
            port: Where it listens.
            parent: The checkpoint as it came, with the PyTorch backend.
        """
        build = replace(self.build, strategy="checkpoint", recipe=None)
        places = Places(
            PurePosixPath(self.folder),
            PurePosixPath("work"),
            served_source=str(self.folder),
            served_build=str(files),
            host="127.0.0.1",
            port=port,
        )
        return plan(build if parent else self.build, places)


def say(line: str) -> None:
    """Tell a line of progress."""
    sys.stderr.write(f"{line}\n")


@contextmanager
def refusals(context: Context) -> Iterator[None]:
    """Leave in the step's record why it was refused, and tell the hint in words of model.yaml."""
    try:
        yield
    except (RecipeImpossible, EngineRefused, CheckpointBroken) as problem:
        context.detail["refused"] = str(problem)
        problem.hint = in_words_of_the_spec(problem.hint)
        raise
