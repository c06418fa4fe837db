"""What people type wrongly: a message that names what, where and what is allowed; exit code 2."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from penstock.cli.app import app
from penstock.cli.edge import Where
from penstock.core.errors import LifecycleError


def _call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def _refused(result: Result) -> LifecycleError:
    assert isinstance(result.exception, LifecycleError), result.output
    return result.exception


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    row = {"id": "1", "messages": [{"role": "user", "content": "hi"}], "answer": "yo"}
    path.write_text(json.dumps(row) + "\n")
    return path


@pytest.mark.parametrize("text", ["", "{", "[]", '{"items": [1]}', '{"items": [{"id": "1"}]}'])
def test_evaluate_wants_a_saved_result_before_it_works(
    tmp_path: Path, rows: Path, text: str
) -> None:
    saved = tmp_path / "saved.json"
    saved.write_text(text)
    problem = _refused(_call("evaluate", tmp_path, "--data", rows, "--against", saved))
    assert (problem.exit_code, "not a saved result" in str(problem)) == (2, True)


def test_evaluate_wants_to_know_where_and_what(tmp_path: Path, rows: Path) -> None:
    for words, said in (
        ((tmp_path / "absent", "--data", rows), "neither a folder nor a URL"),
        (("http://127.0.0.1:9", "--data", rows), "needs --model"),
        ((tmp_path, "--data", rows, "--save", tmp_path / "a" / "b.json"), "no such folder"),
    ):
        problem = _refused(_call("evaluate", *words))
        assert (problem.exit_code, said in str(problem)) == (2, True), words


def test_evaluate_names_an_endpoint_that_does_not_answer(rows: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    problem = _refused(_call("evaluate", url, "--model", "m", "--data", rows))
    assert (problem.exit_code, url in str(problem)) == (7, True)


def test_chat_names_the_next_step_when_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    problem = _refused(_call("chat", "m", "hi", "--url", url))
    assert (problem.exit_code, problem.hint) == (7, "penstock local up, or correct --url")


def test_hub_serve_wants_a_folder_and_a_free_port(tmp_path: Path) -> None:
    assert "no such folder" in str(_refused(_call("hub", "serve", tmp_path / "absent")))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        problem = _refused(_call("hub", "serve", tmp_path, "--port", port))
    assert (problem.exit_code, str(port) in str(problem)) == (2, True)


def test_serve_refuses_a_folder_without_a_checkpoint(tmp_path: Path) -> None:
    problem = _refused(_call("serve", tmp_path, "--port", 0))
    assert (problem.exit_code, str(tmp_path) in str(problem)) == (7, True)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"", b"- 1", b"a: [", b"a: 1\na: 2"])
def test_run_refuses_what_is_no_spec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "home"))
    (tmp_path / "model.yaml").write_bytes(content)
    problem = _refused(_call("run", tmp_path / "model.yaml"))
    assert (problem.exit_code, "model.yaml" in str(problem)) == (2, True)
    assert not (tmp_path / "home").exists()


def test_status_of_a_run_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path))
    assert "20260101-000000-abcd" in str(_refused(_call("status", "20260101-000000-abcd")))


@pytest.mark.parametrize(
    ("option", "given"),
    [("--namespace", "My_Models"), ("--gateway", "gateway"), ("--prometheus", "prometheus:9090")],
)
def test_a_cluster_is_named_as_a_spec_would_name_it(option: str, given: str) -> None:
    problem = _refused(_call("status", "--namespace", "models", option, given))
    assert (problem.exit_code, f"{option}: found {given!r}; allowed: " in str(problem)) == (2, True)


def test_another_command_about_the_same_place_is_told_all_of_it() -> None:
    where = Where(namespace="models", prometheus="http://prometheus:9090")
    assert where.options == " --namespace models --prometheus http://prometheus:9090"
    assert where.kserve().prometheus == "http://prometheus:9090"
