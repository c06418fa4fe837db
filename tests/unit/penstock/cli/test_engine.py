"""`penstock engine`, with programs in place of TensorRT-LLM's that keep their contracts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from penstock.cli.engine import command
from penstock.core.errors import (
    ConfigurationError,
    DigestMismatch,
    EngineRefused,
    LifecycleError,
    RecipeImpossible,
    StoreError,
)
from tests.fakes import trtllm
from tests.unit.components.trtllm.cases import parent


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder, a parent checkpoint in `parent`, and the fakes on PATH."""
    for name, value in trtllm.install(tmp_path / "programs").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "home"))
    parent(tmp_path / "parent")
    return tmp_path


def _call(*words: object) -> Result:
    return CliRunner().invoke(command, [str(word) for word in words])


def _build(home: Path, *words: object) -> Result:
    where = ("--python", sys.executable, "--examples", home / "programs" / "examples")
    return _call("build", home / "parent", "--gpu", "H100", *where, *words)


def _json(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def _refused(result: Result) -> LifecycleError:
    assert isinstance(result.exception, LifecycleError), result.output
    return result.exception


_ENGINE = ("--strategy", "engine", "--precision", "modelopt-fp8", "--output", "json")


def test_an_engine_is_built_listed_and_verified(home: Path) -> None:
    made = _json(_build(home, *_ENGINE, "--tp", 2, "--source", "hf://acme/model@main"))
    assert (Path(made["folder"]) / "engine" / "rank1.engine").is_file()
    assert made["serve"][0] == "trtllm-serve"
    (listed,) = _json(_call("list", "--output", "json"))["engines"]
    assert (listed["key"], listed["model"]) == (made["key"], "hf://acme/model@main")
    assert (listed["gpu"], listed["state"]) == ("NVIDIA H100 80GB HBM3 (SM90)", "built")
    assert listed["size_bytes"] > 16_000
    told = _call("list").output
    assert made["key"][7:19] in told
    assert "hf://acme/model@main: engine, fp8" in told
    for what in (made["key"], made["key"][7:15], Path(made["folder"]).parent):
        assert _json(_call("verify", what, "--output", "json"))["verified"] is True
    assert (
        "would run on H200" in _call("verify", "sha256:", "--gpu", "H200", "--driver", 580).output
    )


def test_a_checkpoint_is_the_default_and_needs_no_driver(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_GPUS", "")
    result = _build(home, "--precision", "modelopt-int4-awq")
    assert result.exit_code == 0, result.output
    assert "served by: trtllm-serve /mnt/engine/checkpoint" in result.stdout
    assert _call("verify", "sha256:", "--gpu", "L4").exit_code == 0
    refused = _refused(_call("verify", "sha256:", "--gpu", "B200"))
    assert (type(refused), refused.exit_code) == (EngineRefused, 7)
    assert "no INT4 AWQ kernels for Blackwell" in str(refused)


def test_a_dry_run_prints_everything_and_writes_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    told = _json(_build(home, *_ENGINE, "--dry-run"))
    assert [argv[0] for argv in told["commands"]] == [sys.executable, "trtllm-build"]
    assert told["files"].keys() == {"extra_llm_args.yaml"}
    assert told["resources"]["limits"]["nvidia.com/gpu"] == "1"
    text = _build(home, "--dry-run").output
    assert "nothing to run" in text
    assert "kv_cache_config" in text
    assert "nvidia.com/gpu 1" in text
    assert not (home / "home").exists()


def test_without_the_image_it_says_where_to_run(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    problem = _refused(_build(home, *_ENGINE))
    assert (type(problem), "trtllm-build" in str(problem)) == (ConfigurationError, True)
    assert "penstock-trtllm-python.Containerfile" in problem.hint
    assert not (home / "home").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--gpu", "L4"), "(SM89), here is NVIDIA H100"),
        (("--driver", "570"), "this node has 580"),
        (("--image", "nvcr.io/nvidia/tensorrt-llm/release:1.2.0"), "for 1.2.0, here is 1.2.1"),
    ],
)
def test_an_engine_is_built_only_for_the_node_it_is_built_on(
    home: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.setenv("TRT_LLM_VERSION", "1.2.1")
    problem = _refused(_build(home, *_ENGINE, *words))
    assert isinstance(problem, ConfigurationError | EngineRefused)
    assert said in str(problem)


def test_an_engine_of_another_driver_is_refused_with_the_difference(home: Path) -> None:
    _json(_build(home, *_ENGINE))
    problem = _refused(_call("verify", "sha256:", "--gpu", "L4", "--driver", 570, "--cuda", 12))
    assert isinstance(problem, EngineRefused)
    for said in ("built for 90, here 89", "built for 580, here 570", "built for 13, here 12"):
        assert said in str(problem)
    assert "--driver 580" in _refused(_call("verify", "sha256:", "--gpu", "H100")).hint


def test_damage_is_found_and_shown(home: Path) -> None:
    made = _json(_build(home, *_ENGINE))
    engine = Path(made["folder"]) / "engine" / "rank0.engine"
    engine.unlink()
    assert isinstance(_refused(_call("verify", made["key"])), DigestMismatch)
    (Path(made["folder"]).parent / "key.json").write_text("{}")
    (listed,) = _json(_call("list", "--output", "json"))["engines"]
    assert listed["state"].startswith("damaged: ")


def test_what_failed_is_listed_as_unfinished(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "nothing built yet" in _call("list").output
    monkeypatch.setenv("FAKE_TRTLLM", "crash:trtllm-build")
    problem = _refused(_build(home, *_ENGINE))
    assert (problem.exit_code, "Engine building failed" in str(problem)) == (7, True)
    (listed,) = _json(_call("list", "--output", "json"))["engines"]
    assert listed["state"] == "unfinished; a build goes on"


def test_what_cannot_be_planned_is_refused_before_anything_is_read(home: Path) -> None:
    problem = _refused(_build(home, *_ENGINE, "--image", "nvcr.io/x/release:1.3.0rc5"))
    assert isinstance(problem, RecipeImpossible)
    assert "removed after TensorRT-LLM 1.2" in str(problem)
    assert _refused(_call("verify", "abc")).exit_code == StoreError.exit_code
    for folder, said in ((home, "no checkpoint"), (home / "absent", "no checkpoint")):
        assert said in str(_refused(_call("build", folder, "--gpu", "H100")))
    (home / "parent" / "model.safetensors").unlink()
    assert "no weights" in str(_refused(_build(home)))
