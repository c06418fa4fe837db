from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from penstock.core.errors import PolicyRefused
from penstock.core.spec import Policy
from registry.scans import Gate, licence_of, require, scan
from tests.fakes.tiny_model import make_tiny_model


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = make_tiny_model(tmp_path / "model")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Model\n")
    return folder


def _outcomes(gates: list[Gate]) -> dict[str, str]:
    return {gate.name: gate.outcome for gate in gates}


def test_a_sound_checkpoint_passes_every_gate(checkpoint: Path) -> None:
    gates = scan(checkpoint, Policy(licenses=["apache-2.0"]))
    assert set(_outcomes(gates).values()) == {"passed"}
    require(gates, "here")


def test_no_gate_is_silent(checkpoint: Path) -> None:
    gates = scan(checkpoint, Policy())
    assert _outcomes(gates)["licence"] == "skipped"
    assert all(gate.reason for gate in gates)


def test_pickles_and_code_need_the_policy(checkpoint: Path) -> None:
    (checkpoint / "extra.bin").write_bytes(b"")
    (checkpoint / "modeling.py").write_text("")
    found = _outcomes(scan(checkpoint, Policy()))
    assert (found["pickle"], found["remote-code"]) == ("failed", "failed")
    found = _outcomes(scan(checkpoint, Policy(allow_pickle=True, allow_remote_code=True)))
    assert (found["pickle"], found["remote-code"]) == ("skipped", "skipped")


@pytest.mark.parametrize("cut", [3, 40, -1])
def test_truncated_weights_fail(checkpoint: Path, cut: int) -> None:
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:cut])
    gates = scan(checkpoint, Policy())
    assert _outcomes(gates)["safetensors"] == "failed"
    with pytest.raises(PolicyRefused, match=r"safetensors: model\.safetensors"):
        require(gates, "here")


def test_weights_that_are_something_else_fail(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").write_bytes(struct.pack("<Q", 4) + b"{}}}")
    assert _outcomes(scan(checkpoint, Policy()))["safetensors"] == "failed"


def test_a_broken_tokenizer_fails(checkpoint: Path) -> None:
    (checkpoint / "tokenizer.json").write_text('{"model": 3}')
    gates = {gate.name: gate for gate in scan(checkpoint, Policy())}
    assert gates["tokenizer"].outcome == "failed"
    assert "tokenizer.json" in gates["tokenizer"].reason


def test_a_tokenizer_larger_than_the_model_fails(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "vocab_size": 10}))
    assert _outcomes(scan(checkpoint, Policy()))["tokenizer"] == "failed"


def test_a_config_that_is_no_json_fails_every_gate_that_reads_it(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text("{")
    found = _outcomes(scan(checkpoint, Policy()))
    assert {found["config"], found["tokenizer"], found["remote-code"]} == {"failed"}


def test_the_licence_is_what_the_card_says(checkpoint: Path) -> None:
    assert licence_of(checkpoint) == "apache-2.0"
    assert _outcomes(scan(checkpoint, Policy(licenses=["mit"])))["licence"] == "failed"
    (checkpoint / "README.md").write_text("---\n: : :\n---\n")
    assert licence_of(checkpoint) == ""
