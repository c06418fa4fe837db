"""Makes every known silent corruption from a healthy checkpoint, and sees it refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.core.errors import CheckpointBroken, ConfigurationError
from registry.conformance import Finding, broken, inspect, require
from tests.unit.registry.conformance.building import (
    SCHEMES,
    SKILLS,
    change,
    edit,
    filled,
    load,
    plain,
    quantized,
    write,
)

Corrupt = Callable[[Path], object]


def _codes(findings: list[Finding]) -> set[str]:
    return {f.code for f in findings}


def test_the_example_model_passes() -> None:
    assert inspect(SKILLS) == []
    assert inspect(SKILLS, SKILLS) == []
    require(inspect(SKILLS))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_healthy_checkpoint_of_every_scheme_passes(tmp_path: Path, scheme: str) -> None:
    found = inspect(quantized(tmp_path / "model", scheme))
    assert _codes(found) == ({"modelopt"} if scheme.startswith("modelopt") else set())
    require(found)
    require(found, engine="vllm")


def _config(**changes: object) -> Corrupt:
    return lambda folder: edit(folder / "config.json", **changes)


def _tokenizer(**changes: object) -> Corrupt:
    return lambda folder: edit(folder / "tokenizer_config.json", **changes)


def _generation(**changes: object) -> Corrupt:
    return lambda folder: edit(folder / "generation_config.json", **changes)


def _weights(drop: str = "", **replaced: tuple[str, tuple[int, ...], bytes]) -> Corrupt:
    return lambda folder: change(folder, drop=drop, **replaced)


def _cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])


def _cut_header(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:40])


def _wrong_size(folder: Path) -> None:
    tensors = load(folder / "model.safetensors")
    dtype, shape, raw = tensors["model.norm.weight"]
    tensors["model.norm.weight"] = (dtype, (*shape, 2), raw)
    write(folder / "model.safetensors", tensors)


def _twice(folder: Path) -> None:
    shutil.copy(folder / "model.safetensors", folder / "model-00001-of-00002.safetensors")


def _index(
    *, lost: bool = False, more: int = 0, unlisted: bool = False, shard: bool = False
) -> Corrupt:
    def corrupt(folder: Path) -> None:
        tensors = load(folder / "model.safetensors")
        listed = dict.fromkeys(tensors, "model.safetensors")
        if lost:
            listed["model.layers.9.mlp.down_proj.weight"] = "model.safetensors"
        if shard:
            listed["model.norm.weight"] = "model-00002-of-00002.safetensors"
        if unlisted:
            del listed["model.norm.weight"]
        size = sum(len(raw) for *_, raw in tensors.values()) + more
        body = {"metadata": {"total_size": size}, "weight_map": listed}
        (folder / "model.safetensors.index.json").write_text(json.dumps(body))

    return corrupt


def _head(raw: tuple[str, tuple[int, ...], bytes] | None) -> Corrupt:
    def corrupt(folder: Path) -> None:
        tensors = load(folder / "model.safetensors")
        tensors["lm_head.weight"] = raw or tensors["model.embed_tokens.weight"]
        write(folder / "model.safetensors", tensors)

    return corrupt


def _no_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


V5_ROPE = {"rope_theta": 5e5, "rope_type": "default"}
LLAMA3 = {"rope_theta": 1e4, "rope_type": "llama3", "factor": 8.0}

PLAIN: list[tuple[str, Corrupt]] = [
    ("rope-v5-only", _config(rope_parameters=V5_ROPE, rope_theta=None, rope_scaling=None)),
    ("rope-v5-only", _config(rope_parameters=LLAMA3, rope_scaling=None)),
    (
        "rope-v5-only",
        _config(rope_parameters={"full_attention": V5_ROPE}, rope_theta=None, rope_scaling=None),
    ),
    ("rope-contradiction", _config(rope_theta=5e5)),
    ("rope-contradiction", _config(rope_scaling={"type": "linear", "factor": 2.0})),
    ("tokenizer-class", _tokenizer(tokenizer_class="TokenizersBackend")),
    ("tokenizer-extra", _tokenizer(extra_special_tokens=["<|user|>"])),
    ("chat-template", _no_template),
    ("eos-beyond", _generation(eos_token_id=[1, 640])),
    ("eos-mismatch", _generation(eos_token_id=2)),
    ("dtype", _config(dtype="float16", torch_dtype="float16")),
    ("dtype", _config(torch_dtype="float32")),
    ("tied-head", _config(tie_word_embeddings=False)),
    ("tied-head", _head(filled("BF16", (640, 192)))),
    ("vocabulary", _config(vocab_size=641)),
    ("truncated-shard", _cut),
    ("truncated-shard", _cut_header),
    ("truncated-shard", _wrong_size),
    ("duplicate-tensor", _twice),
    ("missing-tensor", _index(lost=True)),
    ("missing-shard", _index(shard=True)),
    ("total-size", _index(more=2)),
    ("no-weights", lambda folder: (folder / "model.safetensors").unlink()),
    ("quantization-unreal", _config(quantization_config={"quant_method": "compressed-tensors"})),
    ("unreadable", lambda folder: (folder / "tokenizer_config.json").write_text("{")),
]


@pytest.mark.parametrize(
    ("code", "corrupt"), PLAIN, ids=[f"{c}-{i}" for i, (c, _) in enumerate(PLAIN)]
)
def test_a_corrupted_checkpoint_is_refused(tmp_path: Path, code: str, corrupt: Corrupt) -> None:
    folder = plain(tmp_path / "model")
    corrupt(folder)
    findings = inspect(folder)
    assert _codes(broken(findings)) == {code}
    assert all(f.fix and f.where and f.engines for f in broken(findings))
    with pytest.raises(CheckpointBroken, match=code) as caught:
        require(findings, str(folder))
    assert caught.value.hint


def _group_size(folder: Path, size: int) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["config_groups"]["group_0"]["weights"]["group_size"] = size
    (folder / "config.json").write_text(json.dumps(config))


def _unquantize(folder: Path) -> None:
    tensors = load(folder / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"] = filled("BF16", (64, 256))
    del tensors["model.layers.1.mlp.down_proj.weight_scale"]
    write(folder / "model.safetensors", tensors)


def _other_algorithm(folder: Path) -> None:
    inner = {"quant_algo": "FP8_PER_CHANNEL_PER_TOKEN", "exclude_modules": ["lm_head"]}
    edit(folder / "config.json", quantization_config={"quant_method": "modelopt", **inner})


INT4_SCALE = filled("BF16", (64, 4))
QUANTIZED: list[tuple[str, str, Corrupt]] = [
    ("quantization-undeclared", "fp8-dynamic", _config(quantization_config=None)),
    ("quantization-undeclared", "w4a16", _config(quantization_config=None)),
    ("missing-scale", "fp8-dynamic", _weights(drop=".weight_scale")),
    ("missing-scale", "fp8-dynamic", _weights(drop="layers.1.mlp.down_proj.weight_scale")),
    ("missing-scale", "w8a8", _weights(drop=".weight_scale")),
    ("missing-scale", "w4a16", _weights(drop=".weight_scale")),
    ("missing-scale", "awq", _weights(drop=".weight_zero_point")),
    ("missing-scale", "fp8", _weights(drop=".input_scale")),
    ("missing-scale", "nvfp4", _weights(drop=".weight_global_scale")),
    ("missing-scale", "modelopt-fp8", _weights(drop=".weight_scale")),
    ("missing-scale", "modelopt-fp8", _weights(drop=".input_scale")),
    ("missing-scale", "modelopt-int4-awq", _weights(drop=".weight_scale")),
    ("missing-scale", "modelopt-w4a8-awq", _weights(drop=".weight_scale_2")),
    ("missing-scale", "modelopt-nvfp4", _weights(drop=".weight_scale_2")),
    ("packed-shape", "w4a16", _weights(weight_packed=filled("I32", (64, 16)))),
    ("packed-shape", "w4a16", _weights(weight_scale=INT4_SCALE)),
    ("packed-shape", "fp8-dynamic", _weights(weight_scale=filled("BF16", (63, 1)))),
    ("packed-shape", "fp8-block", _weights(weight_scale=filled("BF16", (2, 2)))),
    ("packed-shape", "fp8", _weights(weight_scale=filled("BF16", (64,)))),
    ("packed-shape", "nvfp4", _weights(weight_scale=filled("F8_E4M3", (64, 8)))),
    ("packed-shape", "modelopt-int4-awq", _weights(weight_scale=filled("F32", (32, 2)))),
    ("packed-shape", "w4a16", lambda folder: _group_size(folder, 96)),
    ("half-quantized", "fp8-dynamic", _unquantize),
    ("quantization-contradiction", "modelopt-fp8", _other_algorithm),
    ("scale-zero", "fp8-dynamic", _weights(weight_scale=filled("BF16", (64, 1), 0))),
    ("scale-not-finite", "fp8-dynamic", _weights(weight_scale=filled("BF16", (64, 1), 0xFF))),
    ("scale-not-finite", "nvfp4", _weights(weight_scale=filled("F8_E4M3", (64, 16), 0x7F))),
    ("scale-not-finite", "modelopt-fp8", _weights(weight_scale=("F32", (), b"\0\0\x80\x7f"))),
]


@pytest.mark.parametrize(
    ("code", "scheme", "corrupt"),
    QUANTIZED,
    ids=[f"{c}-{s}-{i}" for i, (c, s, _) in enumerate(QUANTIZED)],
)
def test_a_corrupted_quantized_checkpoint_is_refused(
    tmp_path: Path, code: str, scheme: str, corrupt: Corrupt
) -> None:
    folder = quantized(tmp_path / "model", scheme)
    corrupt(folder)
    assert _codes(broken(inspect(folder))) == {code}


def test_modelopt_is_refused_for_transformers_only(tmp_path: Path) -> None:
    findings = inspect(quantized(tmp_path / "model", "modelopt-fp8"))
    require(findings)
    require(findings, engine="tensorrt-llm")
    require(findings, engine="triton")
    for engine in ("cpu", "huggingface"):
        with pytest.raises(CheckpointBroken, match="without their scales"):
            require(findings, engine=engine)


def test_a_v5_spelling_does_not_concern_an_engine_on_transformers_5(tmp_path: Path) -> None:
    folder = plain(tmp_path / "model")
    edit(folder / "config.json", rope_parameters=V5_ROPE, rope_theta=None, rope_scaling=None)
    findings = inspect(folder)
    require(findings, engine="cpu")
    with pytest.raises(CheckpointBroken, match="rope-v5-only"):
        require(findings, engine="tensorrt-llm")


@pytest.mark.parametrize(
    ("code", "corrupt"),
    [
        ("rope-v5-only", _config(rope_theta=None, rope_scaling=None)),  # 4's defaults are the same
        ("unlisted-tensor", _index(unlisted=True)),
        ("total-size", _index(more=-2)),
    ],
)
def test_what_is_only_suspicious_is_told_and_not_refused(
    tmp_path: Path, code: str, corrupt: Corrupt
) -> None:
    folder = plain(tmp_path / "model")
    corrupt(folder)
    findings = inspect(folder)
    assert _codes(findings) == {code}
    require(findings)


def test_what_is_right_in_another_way_is_not_refused(tmp_path: Path) -> None:
    folder = plain(tmp_path / "model")
    _head(None)(folder)  # tied, and stored all the same
    edit(folder / "config.json", rope_parameters={"rope_theta": 1e4}, rope_scaling=None)
    edit(folder / "tokenizer_config.json", chat_template="{{ messages }}")
    _no_template(folder)
    _index()(folder)
    assert inspect(folder) == []


def test_a_base_model_with_markers_needs_no_template(tmp_path: Path) -> None:
    folder = plain(tmp_path / "model")
    _no_template(folder)
    edit(folder / "tokenizer_config.json", eos_token="<|pad|>")
    edit(folder / "generation_config.json", eos_token_id=0)
    findings = inspect(folder)
    assert _codes(findings) == {"chat-template"}
    require(findings)


def _other_tokenizer(folder: Path) -> None:
    body = json.loads((folder / "tokenizer.json").read_text())
    body["added_tokens"][-1]["special"] = False
    (folder / "tokenizer.json").write_text(json.dumps(body))


@pytest.mark.parametrize(
    ("code", "corrupt"),
    [
        ("parent-config", _config(rms_norm_eps=1e-5)),
        ("parent-config", _config(num_key_value_heads=6)),
        ("parent-rope", _config(rope_theta=5e5, rope_parameters=None)),
        ("parent-tokenizer", _other_tokenizer),
        ("parent-template", lambda f: (f / "chat_template.jinja").write_text("{{ 1 }}")),
        ("parent-eos", _generation(eos_token_id=[1, 2])),
        ("parent-tensor", _weights(drop="model.norm.weight")),
    ],
)
def test_what_a_child_must_inherit_is_compared(tmp_path: Path, code: str, corrupt: Corrupt) -> None:
    folder = plain(tmp_path / "model")
    corrupt(folder)
    assert inspect(folder) == [] or code == "parent-tensor"
    assert _codes(broken(inspect(folder, SKILLS))) == {code}


def test_a_child_may_be_written_differently(tmp_path: Path) -> None:
    folder = plain(tmp_path / "model")
    edit(folder / "config.json", rope_parameters=None, dtype=None)
    body = json.loads((folder / "tokenizer.json").read_text())
    body["truncation"] = {"max_length": 8}
    (folder / "tokenizer.json").write_text(json.dumps(body, indent=4))
    assert inspect(folder, SKILLS) == []


def test_a_folder_that_is_no_checkpoint_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such folder"):
        inspect(tmp_path / "nowhere")
    with pytest.raises(CheckpointBroken, match=r"config\.json: it is missing"):
        inspect(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointBroken, match="holds no object"):
        inspect(tmp_path)
