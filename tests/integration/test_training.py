"""The real TRL and PEFT train a tiny model; killed at any point, a rerun ends the same."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.child import Body, Ran
from components.steps import trained, training
from components.steps.context import Context
from components.steps.training_report import curves
from components.training import produce, remote
from components.training.produce import Work
from components.training.train_job import Job
from penstock.core.errors import ConfigurationError, DataRefused, DiskFull, TrainingFailed
from penstock.core.identity import ModelRef
from penstock.core.manifest import Manifest
from penstock.core.settings import Settings
from penstock.core.training import Training
from registry.conformance.reading import read
from registry.datasets import read_rows
from registry.store import Store, hash_file, verify
from serving.cluster import Object
from serving.completer import Message
from serving.engine.inprocess import InProcessCompleter
from tests.fakes.cluster import MemoryCluster
from tests.fakes.tiny_model import make_tiny_model

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of SQLAlchemy, about MLflow
]

QUICK = {
    "steps": 12,
    "batch_rows": 4,
    "learning_rate": 3e-3,
    "checkpoint_every_steps": 4,
    "held_out_share": 0.1,
}
LORA = {**QUICK, "method": "lora", "lora": {"rank": 4, "alpha": 8, "dropout": 0.1}}
FULL = {**QUICK, "method": "full"}


def ignore(*_told: object) -> None:
    """Nobody is told."""


def rows(count: int = 40) -> list[dict[str, Any]]:
    return [
        {
            "id": f"r{n}",
            "skill": "colour",
            "messages": [{"role": "user", "content": f"which colour has number {n}?"}],
            "answer": "red" if n % 2 else "green",
        }
        for n in range(count)
    ]


def write(path: Path, content: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "train.jsonl", rows())


def work(base: Path, data: Path, progress: Path, strategy: dict[str, Any]) -> Work:
    return Work(base, data, Training.model_validate(strategy), progress)


def test_killed_at_any_point_a_rerun_ends_with_the_same_weights(
    base: Path, data: Path, tmp_path: Path
) -> None:
    """Once undisturbed; once killed in the middle, after a checkpoint, and after the last step."""
    calm = produce.produce(
        work(base, data, tmp_path / "calm", LORA), tmp_path / "one", ignore, ignore
    )
    killed = work(base, data, tmp_path / "progress", LORA)
    for step, what in ((6, "training"), (8, "training"), (12, "writing")):
        with pytest.raises(TrainingFailed, match=f"killed while {what}"):
            produce.produce(killed, tmp_path / "two", _killing_at(step, what), ignore)
        assert not (tmp_path / "two").exists()
    half = tmp_path / "progress" / "checkpoint-11"  # as a kill while writing leaves it
    half.mkdir()
    (half / "trainer_state.json").write_text("{")
    resumed = produce.produce(killed, tmp_path / "two", ignore, ignore)
    assert resumed.found["resumed_at"] == 8, "from the last step there is nothing to go on to"
    one, two = (hash_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert one == two
    assert calm.found["curve"] == resumed.found["curve"]
    assert (calm.found["steps"], resumed.found["steps"]) == (12, 12)
    assert calm.found["resumed_at"] == 0


def _killing_at(step: int, what: str) -> produce.Tell:
    def tell(done: int, _total: int, now: str) -> None:
        if (now, done) == (what, step):
            for pid in _children(os.getpid()):
                os.kill(pid, signal.SIGKILL)

    return tell


def _children(parent: int) -> list[int]:
    listed = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [pid for pid in map(int, listed.split()) if "training.worker" in _command(pid)]


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")


def test_full_training_learns_and_what_came_of_it_is_served(
    base: Path, data: Path, tmp_path: Path
) -> None:
    strategy = {**FULL, "steps": 60, "checkpoint_every_steps": 60}
    made = produce.produce(
        work(base, data, tmp_path / "p", strategy), tmp_path / "out", ignore, ignore
    )
    curve = made.found["curve"]
    losses = [point["loss"] for point in curve if "loss" in point]
    assert losses[-1] < losses[0] / 2
    assert "eval_loss" in curve[-1]
    assert made.found["trained_parameters"] == sum(
        values.size // 4 for values in read(base).tensors.values()
    )
    engine = InProcessCompleter(tmp_path / "out")
    try:
        asked = [[Message(role="user", content=r.messages[0].content)] for r in read_rows(data)]
        answers = engine.complete(asked[:8], max_new_tokens=8)
    finally:
        engine.close()
    assert {answer.text for answer in answers} <= {"red", "green"}


def test_rows_that_are_too_long_are_named_and_never_cut(
    base: Path, data: Path, tmp_path: Path
) -> None:
    short = work(base, data, tmp_path / "p", {**LORA, "max_length": 9})
    with pytest.raises(DataRefused, match=r"40 rows are longer than 9 tokens, such as r0 \("):
        produce.produce(short, tmp_path / "o", ignore, ignore)
    assert {path.name for path in tmp_path.iterdir()} == {"p"}


def test_a_loss_that_is_no_number_ends_it_and_nothing_is_kept(
    base: Path, data: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(base, broken)
    weights = load_file(broken / "model.safetensors")
    weights["lm_head.weight"] *= 3e38  # logits beyond what 32 bits hold
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TrainingFailed, match=r"(loss|grad_norm) is (nan|inf) at step 1;") as raised:
        produce.produce(work(broken, data, tmp_path / "p", FULL), tmp_path / "o", ignore, ignore)
    assert "learning_rate" in raised.value.hint
    assert {path.name for path in tmp_path.iterdir()} == {"broken", "p"}


_SMALL_DISK = """
import resource, runpy
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
runpy.run_module("components.training.worker", run_name="__main__")
"""


def test_a_full_disk_is_said(base: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match="no space left"):
        produce.produce(
            work(base, data, tmp_path / "p", FULL),
            tmp_path / "o",
            ignore,
            ignore,
            runner=produce.here(("-c", _SMALL_DISK)),
        )
    assert not (tmp_path / "o").exists()


class Kubelet(MemoryCluster):
    """A cluster that runs a TrainJob of one node here, as Trainer's torch plugin would set it up.

    Kubernetes and Trainer are faked; torchrun, its processes and what they compute are real.
    """

    process: subprocess.Popen[bytes] | None = None

    def create(self, obj: Object, *, dry_run: bool = False) -> Object:
        if obj["kind"] == "TrainJob":
            trainer = obj["spec"]["trainer"]
            program = Path(sys.executable).with_name(trainer["command"][0])
            told = {
                "PET_NNODES": trainer["numNodes"],
                "PET_NPROC_PER_NODE": trainer["numProcPerNode"],
            }
            env = {name: str(value) for name, value in told.items()}
            self.process = subprocess.Popen(
                [str(program), *trainer["command"][1:], *trainer["args"]],
                env={**os.environ, **env, "PET_STANDALONE": "1"},  # noqa: TID251 - a child needs ours
                stderr=subprocess.DEVNULL,
            )
        return super().create(obj, dry_run=dry_run)

    def wait(self, _seconds: float) -> None:
        """Wait for the job's pod to end, and say so in the job's status."""
        found = self.list("TrainJob")
        if self.process is None or not found:
            return
        kind = "Failed" if self.process.wait() else "Complete"
        condition = {"type": kind, "status": "True", "reason": "JobsEnded", "message": "here"}
        self.replace_status({**found[0], "status": {"conditions": [condition]}})


def test_two_processes_of_torchrun_train_what_one_writes(
    base: Path, data: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    where = {"strategy": "torchrun", "devices_per_node": 2, "resource": None}
    strategy = {**LORA, "steps": 4, "distributed": {**where, "volume": f"pvc://home={tmp_path}"}}
    shutil.copytree(base, tmp_path / "base")
    shutil.copy(data, tmp_path / "train.jsonl")
    asked = work(tmp_path / "base", tmp_path / "train.jsonl", tmp_path / "p", strategy)
    assert asked.training.distributed is not None
    job = Job("tiny-0", "models", "image:1", str(tmp_path / "job"), asked.training.distributed)
    cluster = Kubelet()

    def runner(request: Body, on_line: Callable[[Body], None]) -> Ran:
        return remote.run(cluster, job, request, on_line, produce.VOICE, pause=cluster.wait)

    points: list[Any] = []
    made = produce.produce(asked, tmp_path / "out", ignore, points.append, runner=runner)
    assert (made.found["processes"], made.found["steps"]) == (2, 4)
    assert len([point for point in points if "loss" in point]) == 4
    before, after = (load_file(tmp_path / n / "model.safetensors") for n in ("base", "out"))
    moved = {name for name, values in after.items() if not values.equal(before[name])}
    assert moved == {name for name in before if name.endswith("_proj.weight")}


def _context(home: Path, run_id: str) -> Context:
    settings = Settings.from_env({"PENSTOCK_HOME": str(home), "PENSTOCK_RUN_ID": run_id})
    folder = settings.run_dir / "steps"
    folder.mkdir(parents=True)
    return Context(settings, folder, "train")


_STEP = """
import sys
from pathlib import Path
from components.steps import training
from tests.integration.test_training import _context
training.train(_context(Path(sys.argv[1]), "killed"), *sys.argv[2:4], training.Paths(*sys.argv[4:]))
"""


def _kill_while_it_trains(home: Path, arguments: list[str]) -> None:
    """Run the step in a process of its own, and kill that one once it has trained a while."""
    step = subprocess.Popen([sys.executable, "-c", _STEP, str(home), *arguments])
    told, never = home / "runs/killed/steps/train.progress", threading.Event()
    done = 0.0
    while done < 20:
        assert step.poll() is None, "it ended before it could be killed"
        never.wait(0.02)
        body: dict[str, Any] = json.loads(told.read_text()) if told.exists() else {"unit": ""}
        done = float(body["done"]) if body["unit"] == "training" else 0.0
    (worker,) = _children(step.pid)
    step.kill()
    step.wait()
    while Path(f"/proc/{worker}").exists():  # else two would write the same checkpoints
        never.wait(0.02)


def test_the_step_killed_resumes_trains_once_and_tells_everybody(
    base: Path, data: Path, tmp_path: Path
) -> None:
    from mlflow.tracking import MlflowClient

    home = tmp_path / "home"
    store = Store(home / "store")
    manifest = store.add(base, ModelRef.parse(f"file://{base}"))
    (tmp_path / "base.json").write_text(manifest.to_json())
    strategy = {**LORA, "steps": 60}
    spec = json.dumps({"name": "tiny", "source": f"file://{base}", "training": strategy})
    digest = str(hash_file(data))
    resolved = json.dumps({"data": {"train": {"path": str(data), "digest": digest}}})

    def paths(run_id: str) -> list[str]:
        return [str(tmp_path / "base.json"), str(tmp_path / run_id / "trained.json")]

    _kill_while_it_trains(home, [spec, resolved, *paths("killed")])
    told, details = [], []
    for run_id in ("first", "second"):
        context = _context(home, run_id)
        told.append(training.train(context, spec, resolved, training.Paths(*paths(run_id))))
        details.append(context.detail)
        assert context.reused is (run_id == "second")
    assert told[0] == told[1]
    assert set(told[0]) == {"train_loss", "eval_loss", "train_steps", "tokens_per_s"}
    assert details[0]["resumed_at"] >= 16
    first, second = ((tmp_path / n / "trained.json").read_text() for n in ("first", "second"))
    assert first == second
    made = store.manifest(Manifest.from_json(first).root)
    assert made.root != manifest.root
    verify(store.checkpoint(made.root), made)
    record = trained.trained_from(Settings(home=home), str(made.root))
    assert record is not None
    assert (record.base_root, record.data, record.steps) == (str(manifest.root), digest, 60)
    assert trained.trained_from(Settings(home=home), str(manifest.root)) is None
    client = MlflowClient(tracking_uri=f"sqlite:///{home}/mlflow.db")
    history = client.get_metric_history(record.tracking_run, "loss")
    assert sorted(metric.step for metric in history) == list(range(1, 61)), "each point once"
    assert client.get_run(record.tracking_run).info.status == "FINISHED"
    assert curves(details[0]["curve"]).count("<polyline") == 3
    assert [path.suffix for path in (home / "trainings").iterdir()] == [".lock"]


def test_a_worker_that_cannot_start_is_an_error_not_a_hang(tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match="failed while starting"):
        produce.here((str(tmp_path / "no.py"),))({}, ignore)


def test_what_cannot_be_trained_is_refused_before_a_process_starts(
    base: Path, data: Path, tmp_path: Path
) -> None:
    strategy = {**LORA, "lora": {"target_modules": ["q_prj"]}}
    with pytest.raises(ConfigurationError, match=r"no linear layer 'q_prj'.*did you mean 'q_proj'"):
        produce.produce(
            work(base, data, tmp_path / "p", strategy),
            tmp_path / "o",
            ignore,
            ignore,
            runner=produce.here(("-c", "raise SystemExit('started')")),
        )
    assert list(tmp_path.iterdir()) == []
