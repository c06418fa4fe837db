"""The example: its data can be made again, its sets are disjoint, its model is the one measured."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from examples.skills import generate
from registry.datasets import read_rows
from registry.store import hash_file

EXAMPLE = Path("examples/skills")
MODEL = EXAMPLE / "model"


def test_the_generator_makes_what_is_checked_in(tmp_path: Path) -> None:
    generate.generate(tmp_path)
    for name in ("train", "evaluate", "calibrate"):
        path = f"{name}.jsonl"
        assert (tmp_path / path).read_bytes() == (EXAMPLE / "data" / path).read_bytes()


def test_no_question_is_trained_and_evaluated() -> None:
    trained = {row.prompt for row in read_rows(EXAMPLE / "data/train.jsonl")}
    evaluated = read_rows(EXAMPLE / "data/evaluate.jsonl")
    assert len(evaluated) >= 2000
    assert not any(row.prompt in trained for row in evaluated)


@pytest.mark.parametrize("skill", generate.SKILLS)
def test_what_is_the_same_question_is_on_one_side(skill: str) -> None:
    rng = random.Random(1)
    drawn = [generate.SKILLS[skill](rng) for _ in range(2000)]
    share = sum(generate.held_out(skill, same) for same, _, _ in drawn) / len(drawn)
    assert 0.15 < share < 0.35
    assert all(answer for _, _, answer in drawn)


def test_the_model_is_the_one_that_was_measured() -> None:
    lines = Path("tests/golden/skills/model.sha256").read_text().splitlines()
    recorded = {name: digest for digest, name in map(str.split, lines)}
    assert {p.name: hash_file(p).hex for p in MODEL.iterdir()} == recorded
    assert (MODEL / "model.safetensors").stat().st_size <= 12_000_000


def test_the_files_are_read_right_by_transformers_4_too() -> None:
    config = json.loads((MODEL / "config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]
    assert config["torch_dtype"] == config["dtype"] == "bfloat16"
    tokenizer = json.loads((MODEL / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert isinstance(tokenizer["additional_special_tokens"], list)
