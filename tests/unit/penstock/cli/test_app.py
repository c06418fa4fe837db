from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from penstock.cli.app import COMMANDS, _wants_json, app
from penstock.core.errors import ConfigurationError, LifecycleError


def test_help_names_every_command() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    for name in COMMANDS:
        assert f"  {name}" in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_loads_and_has_help(name: str) -> None:
    assert importlib.import_module(COMMANDS[name][0]).command.help
    assert CliRunner().invoke(app, [name, "--help"]).exit_code == 0


def test_init_writes_a_spec_and_never_overwrites(tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    result = CliRunner().invoke(app, ["init", str(path), "--source", "hf://acme/model"])
    assert result.exit_code == 0, result.output
    before = path.read_text()
    again = CliRunner().invoke(app, ["init", str(path)])
    assert isinstance(again.exception, ConfigurationError)
    assert path.read_text() == before


def test_a_wrong_spec_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "home"))
    path = tmp_path / "model.yaml"
    path.write_text("name: Bad Name\nsource: nowhere\nslo: {ttft_p95: 1}\n")
    result = CliRunner().invoke(app, ["run", str(path)])
    assert isinstance(result.exception, LifecycleError)
    assert result.exception.exit_code == 2
    assert str(result.exception).count("\n") == 3
    assert not (tmp_path / "home").exists()


def test_version_and_status_speak_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path))
    told = json.loads(CliRunner().invoke(app, ["version", "--output", "json"]).output)
    assert "penstock" in told
    runs = json.loads(CliRunner().invoke(app, ["status", "--output", "json"]).output)
    assert runs == {"runs": []}
    local = json.loads(CliRunner().invoke(app, ["local", "status", "--output", "json"]).output)
    assert local["services"] == []


def test_only_the_option_asks_for_json() -> None:
    assert _wants_json(["run", "--output", "json"])
    assert _wants_json(["run", "--output=json", "x"])
    assert not _wants_json(["chat", "m", "json"])
    assert not _wants_json([])
