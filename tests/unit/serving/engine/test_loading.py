from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from penstock.core.errors import EngineRefused
from serving.engine.loading import _type_of, load
from serving.engine.refusals import RequestRefused
from tests.fakes.tiny_model import make_tiny_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    shutil.copytree(checkpoint, tmp_path / "copy")
    return tmp_path / "copy"


def configure(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_checkpoint_loads_in_float32_with_its_limits(folder: Path) -> None:
    loaded = load(folder)
    assert str(loaded.model.dtype) == "torch.float32"
    assert loaded.context_length == 256
    assert loaded.eos_token_ids == (1,)
    text = loaded.decode(loaded.encode_chat([{"role": "user", "content": "grüße 🙂"}]))
    assert text == "grüße 🙂"


@pytest.mark.parametrize("method", ["modelopt", "awq", "gptq"])
def test_foreign_quantization_names_the_engine_that_can(folder: Path, method: str) -> None:
    configure(folder, quantization_config={"quant_method": method})
    with pytest.raises(EngineRefused) as refused:
        load(folder)
    assert "vLLM" in refused.value.hint


def test_a_modelopt_file_is_enough_to_refuse(folder: Path) -> None:
    (folder / "hf_quant_config.json").write_text("{}")
    with pytest.raises(EngineRefused, match="ModelOpt"):
        load(folder)


@pytest.mark.parametrize("content", ["{", '{"version": "1.0", "model": {"type": "none"}}', ""])
def test_a_broken_tokenizer_is_refused(folder: Path, content: str) -> None:
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(EngineRefused, match="tokenizer"):
        load(folder)


@pytest.mark.parametrize("content", ["", "[]"])
def test_a_broken_config_is_refused(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(EngineRefused, match=r"config\.json"):
        load(folder)


def test_broken_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"short")
    with pytest.raises(EngineRefused, match="cannot load"):
        load(folder)


def test_a_missing_tensor_is_refused(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EngineRefused, match=r"missing, the first is model\.norm\.weight"):
        load(folder)


def test_without_a_chat_template_only_completions_work(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    loaded = load(folder)
    assert loaded.encode_text("the fox")
    with pytest.raises(RequestRefused, match="/v1/completions"):
        loaded.encode_chat([{"role": "user", "content": "hi"}])


def test_a_template_that_refuses_is_the_caller_s_error(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no such role') }}")
    with pytest.raises(RequestRefused, match="no such role"):
        load(folder).encode_chat([{"role": "x", "content": "hi"}])


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({}, "float32"),
        ({"quantization_config": None}, "float32"),
        ({"quantization_config": {"format": "pack-quantized"}}, "float32"),
        ({"quantization_config": {"format": "nvfp4-pack-quantized"}}, "bfloat16"),
    ],
)
def test_what_a_checkpoint_is_computed_in(config: dict[str, object], wanted: str) -> None:
    assert _type_of(config) == wanted
