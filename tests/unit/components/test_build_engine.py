"""What a spec asks to be built for TensorRT-LLM, and the step that builds it, with the fakes."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

from components.steps import build_engine as step
from components.steps.context import step as framed
from components.steps.engine_asked import asked, in_words_of_the_spec, recipe_for
from components.trtllm import model as trtllm_model
from components.trtllm import refusals
from components.trtllm.cache import EngineCache
from penstock.core.errors import (
    BuildFailed,
    CheckpointBroken,
    ConfigurationError,
    DataRefused,
    DigestMismatch,
    EngineRefused,
    LifecycleError,
    RecipeImpossible,
    SpecError,
)
from penstock.core.identity import Digest
from penstock.core.recipes import recipe_of
from registry.store import Store
from tests.fakes import trtllm, trtllm_parent
from tests.fakes.trtllm_bench import H100, Bench, spec_of

L4, B200, A100 = "nvidia-l4", "nvidia-b200-180gb", "nvidia-a100-80gb"


def test_the_shape_is_the_specs_and_tensor_parallelism_what_is_left_of_the_gpus() -> None:
    hardware = {"accelerator": H100, "count": 8}
    found = asked(spec_of(hardware=hardware, engine={"pipeline_parallel": 2, "max_batch_size": 16}))
    assert (found.shape.tp, found.shape.pp, found.shape.gpus) == (4, 2, 8)
    assert (found.shape.max_batch_size, found.shape.max_seq_len) == (16, 4096)
    assert (found.gpu.name, found.image.tag) == (H100, "1.2.1")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"runtime": "vllm"}, "runtime: vllm"),
        ({"hardware": {"accelerator": "cpu"}}, "hardware.accelerator: cpu"),
        (
            {"hardware": {"accelerator": H100, "count": 3}, "engine": {"pipeline_parallel": 2}},
            "engine.pipeline_parallel: 2 does not divide hardware.count 3",
        ),
        ({"precision": "fp8"}, "nearest: modelopt-fp8"),
        ({"precision": ["modelopt-fp8", "modelopt-int4-awq"]}, "a build takes one recipe"),
        ({"precision": "modelopt-nvfp4"}, "modelopt-nvfp4 does not run in the engine tensorrt-llm"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_reason(
    changes: dict[str, Any], says: str
) -> None:
    with pytest.raises((ConfigurationError, RecipeImpossible), match=says) as raised:
        asked(spec_of(**changes))
    assert raised.value.hint


@pytest.mark.parametrize("image", ["nvcr.io/nvidia/tensorrt-llm/release", "a/b:latest", "a/b:1.2"])
def test_an_image_without_an_exact_version_is_a_mistake_of_thespec_of(image: str) -> None:
    with pytest.raises(SpecError, match=r"engine\.image"):
        spec_of(engine={"image": image})


@pytest.mark.parametrize(
    ("gpu", "version", "name"),
    [
        (A100, "1.2.1", "modelopt-int4-awq"),
        (L4, "1.2.1", "modelopt-fp8"),
        (H100, "1.2.1", "modelopt-fp8"),
        (H100, "1.3.0", "modelopt-fp8"),  # fp8-dynamic comes first there, and is not ModelOpt's
        (B200, "1.2.1", "modelopt-fp8"),
    ],
)
def test_auto_takes_what_the_matrix_would_try_first_of_modelopts(
    gpu: str, version: str, name: str
) -> None:
    found = recipe_for("auto", gpu, version)
    assert found is not None
    assert found.name == name


def test_a_recipe_of_another_producer_is_not_made_here() -> None:
    assert recipe_for((), H100, "1.2.1") is None
    with pytest.raises(RecipeImpossible, match="fp8-dynamic: not made by ModelOpt"):
        recipe_for((recipe_of("fp8-dynamic"),), H100, "1.3.0")


@pytest.mark.parametrize(
    "more", [{"ignore": ["lm_head", "*.down_proj"]}, {"calibration": {"length": 4096}}]
)
def test_what_quantize_py_has_no_option_for_is_refused(bench: Bench, more: dict[str, Any]) -> None:
    with pytest.raises(RecipeImpossible, match=r"quantize\.py") as raised:
        bench.plan(precision=[{"scheme": "modelopt-fp8", **more}])
    assert raised.value.hint.startswith("nearest: leave ")


@pytest.mark.parametrize("changes", [{}, {"engine": trtllm_parent.FITS}, {"precision": "bf16"}])
def test_what_could_not_be_judged_takes_no_gpu(bench: Bench, changes: dict[str, Any]) -> None:
    bench.resolved = json.dumps({"data": {}})
    with pytest.raises(DataRefused, match=r"data\.evaluate is not set"):
        bench.plan(**changes)
    assert bench.plan(engine=trtllm_parent.FITS, precision="bf16"), "nothing is changed there"


def test_no_hint_names_an_option_of_the_command_line() -> None:
    text = inspect.getsource(refusals) + inspect.getsource(trtllm_model)
    hints = re.findall(r'(?<!")"([^"\n]*--[a-z][^"\n]*)"', text)
    assert len(hints) >= 10
    for hint in hints:
        assert "--" not in in_words_of_the_spec(hint), hint
    assert in_words_of_the_spec("nearest: --precision modelopt-int4-awq") == (
        "nearest: precision: modelopt-int4-awq"
    )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_an_engine_is_built_and_the_second_time_found(
    bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    detail = bench.build().detail
    assert "Total time of building" in capfd.readouterr().err
    assert [stage["output"] for stage in detail["stages"]] == ["trtllm_checkpoint", "engine"]
    assert detail["node"]["sm"] == 90
    assert (detail["scheme"], detail["reused"]) == ("fp8", False)
    assert "engine/rank0.engine" in {each["path"] for each in detail["files"]}
    told = json.loads((bench.home / "runs/adhoc/steps/build_engine.progress").read_text())
    assert told == {"done": 2, "total": 2, "unit": "stages, engine"}
    artifact = json.loads(bench.out.read_text())
    entry = EngineCache(bench.home / "engines").entry(Digest.parse(artifact["key"]))
    assert artifact == {
        "key": str(entry.key.digest),
        "strategy": "engine",
        "folder": str(entry.files),
        "root": str(entry.manifest.root),
        "serve": json.loads((entry.files / "serve.json").read_text()),
        "resources": detail["resources"],
    }
    again = bench.build()
    assert (again.reused, again.detail["stages"], bench.record()["outcome"]) == (True, [], "reused")
    assert json.loads(bench.out.read_text()) == artifact
    assert bench.ran == {"quantize": 1, "trtllm-build": 1}


def test_the_plan_says_what_the_pod_asks_for(bench: Bench) -> None:
    assert bench.plan() == ("1", "6", "10241Mi")
    two = {"hardware": {"accelerator": H100, "count": 2}}
    assert bench.plan(**two)[:2] == ("2", "8")
    assert not (bench.programs / "ran").exists()


def test_a_plan_that_is_impossible_is_told_in_the_words_of_thespec_of(bench: Bench) -> None:
    with pytest.raises(RecipeImpossible, match="256 positions") as raised:
        bench.plan(engine={})
    assert raised.value.hint == "nearest: engine.max_seq_len 256"


def test_a_parent_that_tensorrt_llm_reads_wrongly_is_not_built(tmp_path: Path) -> None:
    theta = {"rope_theta": 500000.0, "rope_type": "default"}
    bench = Bench(tmp_path, rope_parameters=theta)
    for act in (bench.plan, bench.build):
        with pytest.raises(CheckpointBroken, match="rope"):
            act()
    assert "rope" in bench.record()["detail"]["refused"]
    assert not (bench.programs / "ran").exists()


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"FAKE_GPUS": "NVIDIA L4, 8.9, 580.65.06"}, r"\(SM90\), here is NVIDIA L4 \(SM89\)"),
        ({"TRT_LLM_VERSION": "1.3.0"}, r"it is for 1\.2\.1, here is 1\.3\.0"),
    ],
)
def test_another_node_is_refused_before_anything_runs(
    bench: Bench, env: dict[str, str], says: str
) -> None:
    bench.build()
    bench.env |= env
    with pytest.raises(EngineRefused, match=says):
        bench.build()
    assert bench.record()["failure"]["kind"] == "EngineRefused"
    assert bench.record()["detail"]["refused"]
    assert bench.ran == {"quantize": 1, "trtllm-build": 1}


def test_a_checkpoint_that_was_altered_is_not_built(bench: Bench) -> None:
    root = Digest.parse(json.loads(bench.checkpoint.read_text())["root"])
    altered = Store(bench.home / "store").checkpoint(root) / "tokenizer.json"
    altered.unlink()
    altered.write_text("{}")
    with pytest.raises(DigestMismatch, match=r"tokenizer\.json"):
        bench.build()
    assert not (bench.programs / "ran").exists()


def test_another_driver_is_another_engine(bench: Bench) -> None:
    first = bench.build().detail["key"]
    bench.env["FAKE_GPUS"] = trtllm.H100.replace("580", "590")
    assert bench.build().detail["key"] != first


def test_a_checkpoint_is_exported_without_asking_for_the_node(bench: Bench) -> None:
    bench.env["FAKE_GPUS"] = "NVIDIA L4, 8.9, 580.65.06"
    detail = bench.build(engine=trtllm_parent.FITS).detail
    assert (detail["strategy"], detail["node"]) == ("checkpoint", None)
    assert detail["serve"][:2] == ["trtllm-serve", "/mnt/engine/checkpoint"]
    assert bench.ran == {"quantize": 1}


def test_precision_bf16_only_writes_how_it_is_served(bench: Bench) -> None:
    detail = bench.build(engine=trtllm_parent.FITS, precision="bf16").detail
    assert (detail["stages"], detail["serve"][1]) == ([], "/mnt/models")
    assert {each["path"] for each in detail["files"]} == {"extra_llm_args.yaml", "serve.json"}


def test_what_modelopt_quantized_already_is_served_as_it_is(tmp_path: Path) -> None:
    bench = Bench(tmp_path, quantized=True)
    detail = bench.build(engine=trtllm_parent.FITS).detail
    assert (detail["scheme"], detail["stages"], detail["serve"][1]) == ("fp8", [], "/mnt/models")
    bf16 = bench.build(engine=trtllm_parent.FITS, precision="bf16")
    assert bf16.reused, "auto quantizes nothing either: it is the same build"
    with pytest.raises(RecipeImpossible, match="is fp8 already") as raised:
        bench.build(engine=trtllm_parent.FITS, precision="modelopt-int4-awq")
    assert raised.value.hint == "nearest: precision: bf16, or the parent"


def test_what_failed_goes_on_where_it_was(bench: Bench) -> None:
    with pytest.raises(BuildFailed, match="Engine building failed"):
        bench.build(fault="crash:trtllm-build")
    stages = bench.record()["detail"]["stages"]
    assert [(s["output"], s["exit_code"]) for s in stages] == [
        ("trtllm_checkpoint", 0),
        ("engine", 1),
    ]
    assert [s["output"] for s in bench.build().detail["stages"]] == ["engine"]
    assert bench.ran == {"quantize": 1, "trtllm-build": 2}


def _calibrated(root: Path, answer: str = "that") -> tuple[Bench, dict[str, Any], Path]:
    """Return a bench, a spec's changes with prompts, and where those lie."""
    bench, prompts = Bench(root), root / "calibrate.jsonl"
    row = {"id": "1", "messages": [{"role": "user", "content": "what?"}], "answer": answer}
    prompts.write_text(json.dumps(row) + "\n")
    changes: dict[str, Any] = {
        "engine": trtllm_parent.FITS,
        "data": {"calibrate": str(prompts)},
        "source": f"file://{root / 'parent'}",
    }
    with framed("resolve", bench.env) as context:
        bench.resolved = step.resolve(context, spec_of(**changes).to_json())
    return bench, changes, prompts


def test_prompts_of_the_spec_calibrate_and_what_they_say_is_part_of_the_key(
    tmp_path: Path,
) -> None:
    bench, changes, prompts = _calibrated(tmp_path / "one")
    key = bench.build(**changes).detail["key"]
    (given,) = (bench.home / "engines/.calibration").glob("*/train.jsonl")
    assert json.loads(given.read_text()) == {"text": "user: what?\nthat"}
    other, elsewhere, _ = _calibrated(tmp_path / "another")
    assert other.build(**elsewhere).detail["key"] == key
    differing, differently, _ = _calibrated(tmp_path / "third", answer="this")
    assert differing.build(**differently).detail["key"] != key
    other.resolved = json.dumps({"data": {}})
    assert other.build(**elsewhere).detail["key"] != key
    prompts.write_text(prompts.read_text().replace("that", "this"))
    with pytest.raises(DataRefused, match="changed while the run"):
        bench.build(**changes)


def test_what_is_impossible_is_refused_before_the_pull(bench: Bench) -> None:
    with pytest.raises(LifecycleError, match="nearest"), framed("resolve", bench.env) as context:
        step.resolve(context, spec_of(precision="int8").to_json())
    assert "nearest" in context.detail["refused"]
