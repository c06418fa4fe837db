"""The shell lines of runtimes that write files first, run with a program that says what it got."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from serving.runtimes.launch import Launch, launch
from tests.unit.serving.runtimes.wishes import GPUS, SAID, spec

TELL = "import json, os, sys; print(json.dumps([os.getcwd(), *sys.argv[1:]]))"


def run(made: Launch, tmp_path: Path, moved: dict[str, str]) -> list[str]:
    """Run a command with its folders moved, and return what the program was called with."""
    for folder in ("tmp", "mnt/models/engine"):
        (tmp_path / folder).mkdir(parents=True)
    places = {"/tmp": f"{tmp_path}/tmp", "/mnt/models": f"{tmp_path}/mnt/models", **moved}  # noqa: S108

    def here(text: str) -> str:
        for place, instead in places.items():
            text = text.replace(place, instead)
        return text

    words = [here(word) for word in (*made.runtime.command, *made.runtime.args, *made.args)]
    env = {**made.env, "PATH": f"{tmp_path}/programs:/usr/bin:/bin"}
    done = subprocess.run(words, check=True, capture_output=True, text=True, env=env)
    found: list[str] = json.loads(done.stdout)
    return found


def program(path: Path) -> None:
    path.write_text(f"#!{sys.executable}\n{TELL}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(("strategy", "below"), [("checkpoint", ""), ("engine", "/engine")])
def test_trtllm_serve_finds_the_model_under_its_name(
    tmp_path: Path, strategy: str, below: str
) -> None:
    made = launch(spec(runtime="tensorrt-llm", hardware=GPUS, engine={"strategy": strategy}))
    (tmp_path / "programs").mkdir()
    program(tmp_path / "programs/trtllm-serve")
    _cwd, model, *args = run(made, tmp_path, {})
    link = Path(model)
    assert link.name == "chat"
    assert link.resolve() == tmp_path / f"mnt/models{below}"
    assert "--tp_size=4" in args
    (config,) = [word.partition("=")[2] for word in args if word.startswith("--extra_llm")]
    assert json.loads(Path(config).read_text())["return_perf_metrics"] is True


def test_triton_finds_a_model_repository(tmp_path: Path) -> None:
    serving = {**SAID["context"], **SAID["speculative: eagle 3"], **SAID["chat_template"]}
    made = launch(spec(runtime="triton", hardware=GPUS, serving=serving))
    front = tmp_path / "front/openai_frontend"
    front.mkdir(parents=True)
    program(front / "main.py")
    cwd, *args = run(made, tmp_path, {"/opt/tritonserver/python/openai": str(front.parent)})
    assert Path(cwd) == front.parent
    (repository,) = [Path(w.partition("=")[2]) for w in args if w.startswith("--model-repository")]
    told = json.loads((repository / "chat/1/model.json").read_text())
    assert told["model"] == "/mnt/models"
    assert told["max_model_len"] == 8192
    assert told["speculative_config"]["method"] == "eagle3"
    assert told["disable_log_stats"] is False
    assert (repository / "chat/config.pbtxt").read_text().splitlines() == [
        'backend: "vllm"',
        "instance_group [{kind: KIND_MODEL}]",
        'parameters {key: "REPORT_CUSTOM_METRICS" value: {string_value: "true"} }',
    ]
