"""What a plan decides is what later steps work with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from components.steps import planning
from components.steps.context import Context
from components.steps.quantize import quantize
from components.steps.verbs import _told
from penstock.core.identity import ModelRef
from penstock.core.manifest import Manifest
from penstock.core.settings import Settings
from penstock.core.spec import ModelSpec
from registry.store import Store
from serving.runtimes.launch import launch

ON_CLUSTER = {"hardware": {"accelerator": "nvidia-l4"}, "target": {"kserve": {}}}


def _spec(**more: Any) -> ModelSpec:
    return ModelSpec.model_validate({"name": "acme", "source": "hf://acme/chat", **more})


def _stored(context: Context, folder: Path) -> Manifest:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return Store(context.settings.store).add(folder, ModelRef.parse("hf://acme/chat"), owned=False)


def test_what_auto_leaves_as_it_came_is_not_quantized_and_the_plan_says_why(
    tmp_path: Path,
) -> None:
    context = Context(Settings(home=tmp_path / "home"), tmp_path, "quantize")
    manifest = _stored(context, tmp_path / "checkpoint")
    came, chosen = tmp_path / "came.json", tmp_path / "chosen.json"
    came.write_text(manifest.to_json())
    spec = _spec(**ON_CLUSTER)
    asked = planning.chosen(spec.model_copy(update={"runtime": "vllm", "precision": ()}))
    plan = {"made": True, "told": "vllm on 1 x nvidia-l4, bf16, tp 1"}
    resolved = json.dumps({"data": {}, "plan": plan, "chosen": asked})
    decided = quantize(context, spec.to_json(), resolved, str(came), str(chosen))
    assert decided["outcome"] == "skipped"
    assert plan["told"] in decided["reason"]
    assert Manifest.from_json(chosen.read_text()).root == manifest.root


def test_weights_that_are_served_otherwise_are_another_version() -> None:
    beside = _spec(**ON_CLUSTER, runtime="vllm")
    longer = _spec(**ON_CLUSTER, runtime="vllm", serving={"context": 4096})
    other = _spec(**ON_CLUSTER, runtime="sglang")
    assert len({tuple(_told(each)) for each in (beside, longer, other)}) == 3
    assert _told(beside)[1:] == list(launch(beside).args)


def test_on_this_machine_only_arguments_tell_versions_apart() -> None:
    named = _spec(runtime_args=["--fault=live-errors=0.2"], hardware={"accelerator": "nvidia-l4"})
    assert _told(named) == named.runtime_args
    assert _told(_spec(target={"kserve": {}})) == []
