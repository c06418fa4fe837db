"""A home with a pulled checkpoint, and a node with the fake programs, for steps called in turn."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from components.steps import build_engine as step
from components.steps import engine_work
from components.steps.context import Context
from components.steps.context import step as framed
from components.steps.judge_engine import judge_engine
from components.trtllm.cache import EngineCache
from penstock.core.documents import parse_spec
from penstock.core.identity import ModelRef
from penstock.core.spec import ModelSpec
from registry.store import Store, hash_file
from tests.fakes import trtllm, trtllm_parent

H100 = "nvidia-h100-80gb"
SKILLS = ("add", "sort", "spell")


def spec_of(**changes: Any) -> ModelSpec:
    """Return a spec for TensorRT-LLM, with other fields where given."""
    body: dict[str, Any] = {
        "name": "tiny",
        "source": "hf://acme/tiny@main",
        "runtime": "tensorrt-llm",
        "hardware": {"accelerator": H100},
    }
    return parse_spec(json.dumps(body | changes), where="spec")


class Bench:
    """What a run has, before its GPU steps.

    Args:
        root: Where everything lies.
        items: How many questions `data.evaluate` has, in turn for each of `SKILLS`.
        quantized: Whether ModelOpt quantized the checkpoint already.
        config: Other fields of its config.json.
    """

    def __init__(
        self, root: Path, *, items: int = 3, quantized: bool = False, **config: Any
    ) -> None:
        self.programs = root / "programs"
        self.home = root / "home"
        self.env = trtllm.install(self.programs) | {
            "PENSTOCK_HOME": str(self.home),
            engine_work.PYTHON: sys.executable,
            engine_work.EXAMPLES: str(self.programs / "examples"),
        }
        parent = trtllm_parent.make(root / "parent", **config)
        if quantized:
            trtllm_parent.quantize_by_modelopt(parent)
        manifest = Store(self.home / "store").add(parent, ModelRef.parse("hf://acme/tiny@main"))
        self.checkpoint = root / "manifest.json"
        self.checkpoint.write_text(manifest.to_json())
        self.evaluate = root / "evaluate.jsonl"
        rows = [self.row(number) for number in range(items)]
        self.evaluate.write_text("".join(json.dumps(row) + "\n" for row in rows))
        pinned = {"path": str(self.evaluate), "digest": str(hash_file(self.evaluate))}
        data = {"evaluate": pinned}
        self.resolved = json.dumps({"source": "hf://acme/tiny@main", "data": data})
        self.spec = {"engine": trtllm_parent.FITS | {"strategy": "engine"}}
        self.out = root / "out.json"
        self.servable = root / "servable.json"

    @staticmethod
    def row(number: int) -> dict[str, Any]:
        """Return a question."""
        message = {"role": "user", "content": f"what is {number}?"}
        skill = SKILLS[number % len(SKILLS)]
        return {"id": str(number), "skill": skill, "messages": [message], "answer": f"it {number}"}

    @property
    def cache(self) -> EngineCache:
        return EngineCache(self.home / "engines")

    @property
    def ran(self) -> Counter[str]:
        """How often each program ran."""
        return Counter(line.split()[0] for line in self._lines())

    def pids(self, program: str) -> list[int]:
        return [int(line.split()[1]) for line in self._lines() if line.startswith(program)]

    def _lines(self) -> list[str]:
        path = self.programs / "ran"
        return path.read_text().splitlines() if path.exists() else []

    def plan(self, **changes: Any) -> tuple[str, str, str]:
        spec = spec_of(**{**self.spec, **changes}).to_json()
        with framed("plan_engine", self.env) as context:
            return step.plan_engine(context, spec, self.resolved, str(self.checkpoint))

    def build(self, *, fault: str = "", **changes: Any) -> Context:
        spec = spec_of(**{**self.spec, **changes}).to_json()
        env = self.env | ({"FAKE_TRTLLM": fault} if fault else {})
        with framed("build_engine", env) as context:
            step.build_engine(
                context, env, spec, self.resolved, str(self.checkpoint), str(self.out)
            )
        return context

    def judge(self, *, fault: str = "", **changes: Any) -> Context:
        spec = spec_of(**{**self.spec, **changes}).to_json()
        env = self.env | ({"FAKE_TRTLLM": fault} if fault else {})
        paths = [str(path) for path in (self.checkpoint, self.out, self.servable)]
        with framed("judge_engine", env) as context:
            judge_engine(context, env, spec, self.resolved, *paths)
        return context

    def record(self, name: str = "build_engine") -> dict[str, Any]:
        path = self.home / f"runs/adhoc/steps/{name}.json"
        found: dict[str, Any] = json.loads(path.read_text())
        return found
