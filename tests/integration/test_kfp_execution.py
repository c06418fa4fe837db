"""Compiled packages, posted to the double and executed for real, by our client and by kfp's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipelines.submission.client import SubmissionClient, connect
from pipelines.submission.package import compiled, package_of
from pipelines.submission.patience import Patience
from pipelines.submission.publishing import publish
from pipelines.submission.settings import KfpSettings
from pipelines.submission.values import NewRun, Run
from pipelines.submission.waiting import wait
from tests.fakes.kfp import Double, kfp_server
from tests.fakes.kfp.execution import Executor
from tests.fakes.kfp.tiny import tiny_package

pytestmark = pytest.mark.integration
ENV = dict(os.environ)  # noqa: TID251 - the edge of the test
POD = {"PENSTOCK_RUN_ID": "posted", "KUBECONFIG": "/absent/kubeconfig"}
SPEC = {
    "name": "demo",
    "source": "file:///absent/model",
    "target": {"kserve": {"namespace": "models"}},
}


@contextmanager
def executing(folder: Path, **env: str) -> Iterator[Double]:
    """Yield a server that executes what it is sent."""
    with kfp_server() as double:
        volumes = {"PENSTOCK_HOME": str(folder / "home")}
        executor = Executor(double, folder, {**ENV, **env}, volumes)
        try:
            yield double
        finally:
            executor.stop()


def submit(client: SubmissionClient, text: str, **parameters: object) -> Run:
    stored = publish(client, package_of(text))
    group = client.experiments.ensure("executed")
    return client.runs.create(
        NewRun(
            "executed",
            group.experiment_id,
            stored.pipeline.pipeline_id,
            stored.version.version_id,
            parameters,
        )
    )


def finished(client: SubmissionClient, run: Run) -> Run:
    seen: list[str] = []
    patience = Patience(pause=lambda _: threading.Event().wait(0.1))
    return wait(client.runs, run.run_id, watch=lambda r: seen.append(r.state), patience=patience)


def plain_client(url: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of servers older than this
        import kfp

        return kfp.Client(host=url)


def test_a_run_is_executed_and_its_log_is_had(tmp_path: Path) -> None:
    with executing(tmp_path) as double, connect(KfpSettings(url=double.url)) as client:
        run = finished(client, submit(client, tiny_package("tiny"), word="hello there", times=2))
        assert run.state == "SUCCEEDED"
        assert [(task.name, task.state) for task in run.tasks] == [("say", "SUCCEEDED")]
        assert "hello there" in client.runs.log(run.run_id, run.tasks[0].pods[0])


def test_kfp_s_own_client_runs_the_compiled_package(tmp_path: Path) -> None:
    package = tmp_path / "tiny.yaml"
    package.write_text(tiny_package("tiny"))
    with executing(tmp_path) as double, connect(KfpSettings(url=double.url)) as client:
        plain = plain_client(double.url)
        made = plain.create_run_from_pipeline_package(
            str(package), arguments={"word": "plain", "times": 1}, enable_caching=False
        )
        ended = plain.wait_for_run_completion(made.run_id, timeout=120, sleep_duration=1)
        assert ended.state == "SUCCEEDED"
        run = client.runs.get(made.run_id)
        assert (run.pipeline_id, run.parameters) == ("", {"word": "plain", "times": 1})
        assert "plain" in client.runs.log(run.run_id, run.tasks[0].pods[0])


@pytest.mark.parametrize("name", ["lifecycle", "engine"])
def test_kfp_s_own_client_takes_what_is_published(tmp_path: Path, name: str) -> None:
    """Uploaded as the UI does it, and run inline: the server and its protobufs accept both."""
    package = compiled(name)
    path = tmp_path / "package.yaml"
    path.write_text(package.text)
    with kfp_server() as double:
        plain = plain_client(double.url)
        uploaded = plain.upload_pipeline(str(path), pipeline_name=package.name)
        version = plain.upload_pipeline_version(
            str(path), package.version, pipeline_id=uploaded.pipeline_id
        )
        spec = json.dumps(SPEC)
        by_version = plain.run_pipeline(
            plain.create_experiment("plain").experiment_id,
            "by version",
            pipeline_id=uploaded.pipeline_id,
            version_id=version.pipeline_version_id,
            params={"spec": spec},
        )
        inline = plain.create_run_from_pipeline_package(str(path), arguments={"spec": spec})
        for made in (by_version.run_id, inline.run_id):
            assert plain.wait_for_run_completion(made, 30, 1).state == "SUCCEEDED"


def test_the_lifecycle_fails_with_its_reason_and_concludes(tmp_path: Path) -> None:
    """Executed as posted: there is no cluster, and the exit handler still writes the record."""
    package = compiled("lifecycle")
    with (
        executing(tmp_path, **POD) as double,
        connect(KfpSettings(url=double.url)) as client,
    ):
        run = finished(client, submit(client, package.text, spec=json.dumps(SPEC)))
        assert run.state == "FAILED"
        states = {task.name: task.state for task in run.tasks}
        assert states["conclude"] == "SUCCEEDED"
        failed = next(task for task in run.tasks if task.state == "FAILED")
        assert "no kubeconfig" in client.runs.log(run.run_id, failed.pods[0])
    summary = json.loads((tmp_path / "home/runs/posted/summary.json").read_text())
    assert summary["outcome"] == "failed"


def test_a_canceled_run_ends_its_processes(tmp_path: Path) -> None:
    text = tiny_package("slow").replace("print(word)", "import time; time.sleep(600)")
    assert "sleep(600)" in text
    with executing(tmp_path) as double, connect(KfpSettings(url=double.url)) as client:
        run = submit(client, text, word="x", times=1)
        while not client.runs.get(run.run_id).tasks:
            threading.Event().wait(0.1)
        client.runs.terminate(run.run_id)
        ended = finished(client, run)
        assert ended.state == "CANCELED"
        assert [task.state for task in ended.tasks] == ["CANCELED"]


def test_the_command_waits_and_ends_as_the_run_does(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(json.dumps(SPEC))
    with executing(tmp_path, **POD) as double:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "penstock.cli", "submit", "--wait", "--pod-paths"),
                *("--url", double.url, str(tmp_path / "model.yaml")),
            ],
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 1
        assert "✗ resolve" in done.stdout or "✗ pull" in done.stdout
        assert "✓ conclude" in done.stdout
        assert "failed: task" in done.stderr
        assert "next: penstock runs logs" in done.stderr
