"""What we write, read by the parsers of the engines themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from components.training.export import write_portable_config
from penstock.core.matrix import judge
from registry.conformance import inspect
from tests.conformance.conftest import Ask
from tests.fakes.tiny_model import make_tiny_model
from tests.unit.registry.conformance.building import SCHEMES, SKILLS, quantized

pytestmark = pytest.mark.conformance

VLLM_READS = {
    "fp8-dynamic": "CompressedTensorsW8A8Fp8 89",
    "fp8": "CompressedTensorsW8A8Fp8 89",
    "fp8-block": "CompressedTensorsW8A8Fp8 89",
    "w4a16": "CompressedTensorsWNA16 75",
    "awq": "CompressedTensorsWNA16 75",
    "w8a8": "CompressedTensorsW8A8Int8 75",
    "nvfp4": "CompressedTensorsW4A4Fp4 75",
    "modelopt-fp8": "ModelOptFp8Config 80",
    "modelopt-nvfp4": "ModelOptNvFp4Config 75",
    "modelopt-int4-awq": "refused: ValueError: ModelOpt currently only supports",
    "modelopt-w4a8-awq": "refused: ValueError: ModelOpt currently only supports",
}

# Source: TensorRT-LLM tensorrt_llm/quantization/mode.py, class QuantAlgo (1.2 line), and
# tensorrt_llm/quantization/modelopt_config.py @2edf354 for the keys of both shapes
TRT_ALGORITHMS = {"FP8", "W4A16_AWQ", "W4A8_AWQ", "NVFP4", "FP8_PER_CHANNEL_PER_TOKEN"}
TRT_KEYS = {
    *("quant_algo", "kv_cache_quant_algo", "group_size", "exclude_modules", "quantized_layers"),
    *("has_zero_point", "pre_quant_scale"),
}


def test_transformers_4_reads_the_example_model_as_5_does(ask: Ask) -> None:
    new, old = (
        ask(each, "read_with_transformers.py", SKILLS) for each in ("ours", "transformers-4")
    )
    assert (new["version"], old["version"]) == ("5.17.0", "4.57.3")
    assert "error" not in old["tokenizer"]
    _same(new, old)


def test_what_we_export_is_read_alike_and_what_we_do_not_is_found(ask: Ask, tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"] = {
        "rope_type": "llama3",
        "rope_theta": 5e5,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    (folder / "config.json").write_text(json.dumps(config))

    new, old = (
        ask(each, "read_with_transformers.py", folder) for each in ("ours", "transformers-4")
    )
    assert old["frequencies"] != pytest.approx(new["frequencies"]), "4 reads another RoPE"
    assert "TokenizersBackend" in old["tokenizer"]["error"]
    found = {f.code for f in inspect(folder) if f.severity == "error"}
    assert found >= {"rope-v5-only", "tokenizer-class"}

    write_portable_config(folder)
    assert inspect(folder) == []
    _same(*(ask(each, "read_with_transformers.py", folder) for each in ("ours", "transformers-4")))


def _same(new: dict[str, Any], old: dict[str, Any]) -> None:
    for name in ("dtype", "tokenizer", "generation_eos"):
        assert old[name] == new[name], name
    assert old["frequencies"] == pytest.approx(new["frequencies"], rel=1e-6)
    assert old["logits"] == pytest.approx(new["logits"], abs=1e-4)


def test_vllm_takes_the_scheme_that_the_matrix_says(ask: Ask, tmp_path: Path) -> None:
    folders = {scheme: quantized(tmp_path / scheme, scheme) for scheme in SCHEMES}
    answer = ask("vllm", "read_with_vllm.py", *folders.values())
    assert answer["version"] == "0.33.0"
    for scheme, folder in folders.items():
        read = answer["schemes"][str(folder)]
        assert read.startswith(VLLM_READS[scheme]), (scheme, read)
        gpu = "H100" if scheme == "w8a8" else "B200"
        assert judge(scheme, "vllm", "0.33.0", gpu).ok == ("refused" not in read)


@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s.startswith("modelopt")])
def test_tensorrt_llm_documents_every_name_that_is_written(tmp_path: Path, scheme: str) -> None:
    folder = quantized(tmp_path / "model", scheme)
    body = json.loads((folder / "hf_quant_config.json").read_text())["quantization"]
    assert body["quant_algo"] in TRT_ALGORITHMS
    assert set(body) <= TRT_KEYS
