"""Curves of work that goes on, over a real MLflow in SQLite."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.catalog import Catalog, Followed

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of SQLAlchemy, about MLflow
]

POINTS = [{"step": float(n), "loss": 3.0 - n, "eval_loss": 4.0 - n} for n in (1, 2, 3)]


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


def _history(uri: str, run_id: str, name: str) -> list[tuple[int, float]]:
    from mlflow.tracking import MlflowClient

    found = MlflowClient(tracking_uri=uri).get_metric_history(run_id, name)
    return sorted((metric.step, metric.value) for metric in found)


def _status(uri: str, run_id: str) -> str:
    from mlflow.tracking import MlflowClient

    return str(MlflowClient(tracking_uri=uri).get_run(run_id).info.status)


def test_interrupted_and_done_again_it_is_one_run_with_every_point_once(uri: str) -> None:
    first = Catalog(uri).follow("chat", "work-1", {"seed": "3"})
    first.point(POINTS[0])
    first.point({"step": 1.0, "eval_loss": 3.0})
    first.point(POINTS[1])
    first.fail()
    assert _status(uri, first.run_id) == "FAILED"
    again = Catalog(uri).follow("chat", "work-1", {"seed": "3"})
    assert again.run_id == first.run_id
    again.point(POINTS[1])  # resumed a little earlier than it was killed
    for _ in range(2):
        again.finish(POINTS, {"train_loss": 0.5, "eval_loss": 1.0})
    assert _history(uri, first.run_id, "loss") == [(1, 2.0), (2, 1.0), (3, 0.0)]
    assert _history(uri, first.run_id, "eval_loss") == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert _history(uri, first.run_id, "train_loss") == [(0, 0.5)]
    assert _status(uri, first.run_id) == "FINISHED"
    assert Catalog(uri).follow("chat", "work-2", {}).run_id != first.run_id


def test_a_point_that_a_kill_swallowed_comes_after_a_later_one(uri: str) -> None:
    run = Catalog(uri).follow("chat", "work-4", {})
    run.point(POINTS[2])  # resumed after a checkpoint whose own point nobody had read
    run.finish(POINTS, {})
    assert _history(uri, run.run_id, "loss") == [(1, 2.0), (2, 1.0), (3, 0.0)]


def test_a_run_that_somebody_else_opened_is_joined_and_left_open(uri: str) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    opened = client.create_run(client.create_experiment("kfp")).info.run_id
    joined = Catalog(uri, joined_run_id=opened).follow("chat", "work-1", {"seed": "3"})
    joined.finish(POINTS, {"train_loss": 0.5})
    joined.fail()
    assert joined.run_id == opened
    assert len(_history(uri, opened, "loss")) == 3
    assert _status(uri, opened) == "RUNNING"


def test_a_point_that_mlflow_refuses_is_brought_later(uri: str, tmp_path: Path) -> None:
    run = Catalog(uri).follow("chat", "work-3", {})
    from mlflow.tracking import MlflowClient

    empty = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/other.db")  # knows no such run
    followed = Followed(empty, run.run_id, owned=True)
    followed.point(POINTS[0])
    followed.point(POINTS[1])
    followed._client = MlflowClient(tracking_uri=uri)  # MLflow is back
    followed.finish(POINTS, {})
    assert len(_history(uri, run.run_id, "loss")) == 3
