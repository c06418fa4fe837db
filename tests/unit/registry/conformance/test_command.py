from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from penstock.cli.checkpoint import command
from penstock.core.errors import CheckpointBroken
from tests.unit.registry.conformance.building import SKILLS, change, edit, plain, quantized


def test_a_sound_checkpoint_is_said_to_be(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["verify", str(SKILLS), "--parent", str(SKILLS)])
    assert result.exit_code == 0, result.output
    assert "nothing that an engine would read wrongly" in result.output


def test_a_broken_one_raises_what_the_command_line_turns_into_exit_code_4(tmp_path: Path) -> None:
    folder = quantized(tmp_path / "model", "fp8-dynamic")
    change(folder, drop=".weight_scale")
    result = CliRunner().invoke(command, ["verify", str(folder)])
    assert isinstance(result.exception, CheckpointBroken)
    assert result.exception.exit_code == 4
    assert "missing-scale" in result.output
    assert "fix: " in result.output


def test_programs_get_one_document_and_the_exit_code(tmp_path: Path) -> None:
    folder = plain(tmp_path / "model")
    edit(folder / "tokenizer_config.json", tokenizer_class="TokenizersBackend")
    result = CliRunner().invoke(command, ["verify", str(folder), "--output", "json"])
    assert result.exit_code == 4
    body = json.loads(result.output)
    assert body["ok"] is False
    assert [(f["code"], f["refuses"]) for f in body["findings"]] == [("tokenizer-class", True)]
    assert set(body["findings"][0]) >= {"severity", "what", "where", "fix", "engines"}


@pytest.mark.parametrize(("engine", "code"), [("vllm", 0), ("tensorrt-llm", 0), ("cpu", 4)])
def test_an_engine_is_judged_for_itself(tmp_path: Path, engine: str, code: int) -> None:
    folder = quantized(tmp_path / "model", "modelopt-fp8")
    arguments = ["verify", str(folder), "--engine", engine, "--output", "json"]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == code
    assert json.loads(result.output)["findings"][0]["code"] == "modelopt"
