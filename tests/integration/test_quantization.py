"""The real libraries make checkpoints of the example and of a tiny model; the engine reads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.quantization.calibration import rendered
from components.quantization.fit import Machine
from components.quantization.produce import Made, produce, sensitivities
from components.quantization.search import candidates
from components.training.export import write_portable_config
from penstock.core.errors import DiskFull
from penstock.core.recipes import (
    W4A16,
    W8A8,
    Awq,
    Calibration,
    Fp8,
    Fp8Block,
    Fp8Dynamic,
    ModelOptFp8,
    ModelOptInt4Awq,
    ModelOptW4A8Awq,
    Nvfp4,
    Recipe,
)
from registry.conformance.inspection import broken, inspect
from registry.conformance.reading import read
from registry.datasets import read_rows
from serving.completer import Message
from serving.engine.inprocess import InProcessCompleter
from tests.fakes.tiny_model import Shape, make_tiny_model

pytestmark = pytest.mark.integration

EXAMPLE = Path("examples/skills")
SMALL = Calibration(samples=4, length=64)
ROOM = Machine(1 << 40)


def ignore(_done: int, _total: int, _what: str) -> None:
    """Nobody is told."""


def tiny_parent(folder: Path) -> Path:
    from safetensors.torch import load_file, save_file

    make_tiny_model(folder, shape=Shape(hidden=128, intermediate=256))
    write_portable_config(folder)
    weights = load_file(folder / "model.safetensors")
    half = {name: values.bfloat16() for name, values in weights.items()}
    save_file(half, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config |= {"dtype": "bfloat16", "torch_dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def prompts(count: int = 8) -> list[str]:
    rows = read_rows(EXAMPLE / "data/calibrate.jsonl")[:count]
    turns = [[*row.conversation, {"role": "assistant", "content": row.answer}] for row in rows]
    return rendered(EXAMPLE / "model", turns)


def conversations(count: int) -> list[list[Message]]:
    rows = read_rows(EXAMPLE / "data/evaluate.jsonl")[:count]
    return [[Message(role="user", content=row.prompt)] for row in rows]


def answers(folder: Path, asked: list[list[Message]]) -> list[str]:
    with_answers = InProcessCompleter(folder).complete(asked, max_new_tokens=32)
    return [completion.text for completion in with_answers]


def next_tokens(folder: Path, texts: list[str]) -> list[list[int]]:
    """Return the likeliest next token at every position, computed in bfloat16."""
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    with torch.inference_mode():
        rows = [torch.tensor([tokenizer.encode(text).ids]) for text in texts]
        return [model(row).logits[0].argmax(-1).tolist() for row in rows]


def check(parent: Path, made: Made) -> None:
    """Nothing but the weights and one key differs from the parent's folder."""
    assert broken(inspect(made.folder, parent)) == []
    for path in parent.iterdir():
        if path.name == "config.json":
            config = json.loads((made.folder / path.name).read_text())
            assert config.pop("quantization_config")
            assert config == json.loads(path.read_text())
        elif path.suffix != ".safetensors":
            assert (made.folder / path.name).read_bytes() == path.read_bytes()
    assert [p.name for p in made.folder.parent.iterdir() if p.name.startswith(".")] == []
    assert 0 < made.size_bytes < made.parent_bytes
    assert made.peak_rss_bytes <= made.planned_bytes


@pytest.mark.parametrize("recipe", [Fp8Dynamic(), W4A16(group_size=64)], ids=lambda r: r.label)
def test_the_example_answers_as_its_parent_does(tmp_path: Path, recipe: Recipe) -> None:
    parent = EXAMPLE / "model"
    made = produce(parent, recipe, tmp_path / "made", [], ignore, machine=ROOM)
    check(parent, made)
    assert made.layers == 35
    assert "lm_head.weight" not in read(made.folder).tensors, "tied to the embeddings"
    asked = conversations(48)
    same = sum(
        a == b for a, b in zip(answers(parent, asked), answers(made.folder, asked), strict=True)
    )
    assert same >= 44


_TINY = [
    W4A16(
        group_size=64,
        method="gptq",
        calibration=SMALL,
        fp8_layers=("model.layers.1.mlp.down_proj",),
    ),
    Fp8(calibration=SMALL, kv_cache="fp8"),
    Awq(group_size=64, calibration=SMALL),
    ModelOptFp8(calibration=SMALL, kv_cache="fp8", ignore=("lm_head", "*.o_proj")),
    *(
        pytest.param(recipe, marks=pytest.mark.soak)
        for recipe in (
            Fp8Block(),
            W8A8(),
            ModelOptInt4Awq(group_size=64, calibration=SMALL),
            ModelOptW4A8Awq(group_size=64, calibration=SMALL),
        )
    ),
]


@pytest.mark.parametrize("recipe", _TINY, ids=lambda r: r.label)
def test_every_recipe_makes_a_checkpoint_that_is_sound(tmp_path: Path, recipe: Recipe) -> None:
    parent = tiny_parent(tmp_path / "parent")
    made = produce(parent, recipe, tmp_path / "made", ["the quick brown fox"] * 4, ignore)
    check(parent, made)
    if recipe.producer == "llm-compressor":
        assert answers(made.folder, [[Message(role="user", content="what is twelve plus thirty?")]])
    else:
        assert (made.folder / "hf_quant_config.json").exists()


@pytest.mark.soak
def test_nvfp4_predicts_as_its_parent_does(tmp_path: Path) -> None:
    """In bfloat16: that is what compressed-tensors unpacks it to, and the engine has float32."""
    parent = EXAMPLE / "model"
    made = produce(parent, Nvfp4(), tmp_path / "made", prompts(32), ignore, machine=ROOM)
    check(parent, made)
    pairs = zip(next_tokens(parent, prompts()), next_tokens(made.folder, prompts()), strict=True)
    same = [a == b for before, after in pairs for a, b in zip(before, after, strict=True)]
    assert sum(same) > 0.85 * len(same)


def test_a_mixed_recipe_stores_each_layer_as_it_says(tmp_path: Path) -> None:
    parent = tiny_parent(tmp_path / "parent")
    recipe = W4A16(group_size=64, fp8_layers=("*.down_proj",), ignore=("lm_head", "*.o_proj"))
    made = produce(parent, recipe, tmp_path / "made", [], ignore)
    tensors = read(made.folder).tensors
    stem = "model.layers.0"
    assert tensors[f"{stem}.mlp.down_proj.weight"].dtype == "F8_E4M3"
    assert tensors[f"{stem}.mlp.up_proj.weight_packed"].dtype == "I32"
    assert tensors[f"{stem}.self_attn.o_proj.weight"].dtype == "BF16"
    assert answers(made.folder, [[Message(role="user", content="what is twelve plus thirty?")]])


_SMALL_DISK = """
import resource, runpy
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
runpy.run_module("components.quantization.worker", run_name="__main__")
"""


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    machine = Machine(1 << 40, worker=("-c", _SMALL_DISK))
    with pytest.raises(DiskFull, match="no space left"):
        produce(EXAMPLE / "model", Fp8Dynamic(), tmp_path / "made", [], ignore, machine=machine)
    assert list(tmp_path.iterdir()) == []


def test_sensitivities_rank_the_examples_layers_and_a_search_starts_from_them() -> None:
    found = sensitivities(EXAMPLE / "model", prompts(), ignore, machine=ROOM)
    assert len(found) == 20
    assert all(s.kl >= 0 for s in found)
    worst = max(found, key=lambda s: s.kl)
    assert worst.kl > 10 * sorted(s.kl for s in found)[10], "a few layers lose most"
    neighbours = candidates(W4A16(group_size=64), found, group_sizes=(32, 64))
    assert worst.layers[0] in getattr(neighbours[-1].recipe, "fp8_layers", ())
