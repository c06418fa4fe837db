"""MLflow's own sender, and the receiver that starts schedules."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock.cli.schedule_watch import application
from penstock.core.schedules import Schedule
from penstock.core.settings import Settings
from pipelines.schedules.drift import BASELINE
from pipelines.schedules.kept import Kept
from serving.headers import REQUEST
from serving.local import lifecycle
from tests.fakes.serving import serving
from tests.integration.rollout_stage import Stage

pytestmark = pytest.mark.integration
SECRET = "between-us"


def _schedule(name: str, *on: str, spec: Mapping[str, Any] | None = None) -> Kept:
    when = {"every_s": 86400}
    body = {"name": name, "model": "m", "spec": spec or {}, "when": when, "on": list(on)}
    return Kept(Schedule.model_validate(body), 1)


@contextmanager
def _receiver(settings: Settings, started: list[tuple[str, str]], *known: Kept) -> Iterator[str]:
    app = application(
        SECRET,
        lambda: known,
        lambda name, why: started.append((name, why)),
        settings,
        settings.home / "watch.json",
        look_s=0.5,
    )
    with serving(app) as url:
        yield url


def test_mlflow_starts_what_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.entities.webhook import (
        Webhook,
        WebhookAction,
        WebhookEntity,
        WebhookEvent,
        WebhookStatus,
    )
    from mlflow.webhooks import delivery

    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "https,http")
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")
    started: list[tuple[str, str]] = []
    created = WebhookEvent(WebhookEntity.MODEL_VERSION, WebhookAction.CREATED)
    aliased = WebhookEvent(WebhookEntity.MODEL_VERSION_ALIAS, WebhookAction.CREATED)

    def send(url: str, event: WebhookEvent, secret: str = SECRET, **data: object) -> int:
        webhook = Webhook("1", "w", f"{url}/mlflow", [event], 0, 0, secret=secret)
        assert webhook.status in (None, WebhookStatus.ACTIVE)
        session = delivery._create_webhook_session()
        with session:
            answer = delivery._send_webhook_request(webhook, data, event, session)
        return int(answer.status_code)

    known = [_schedule("one", "version:base"), _schedule("two", "alias:base@prod")]
    with _receiver(Settings(home=tmp_path), started, *known) as url:
        assert send(url, created, name="base", version="7", tags={}) == 202
        assert send(url, aliased, name="base", version="7", alias="prod") == 202
        assert send(url, created, name="other", version="1", tags={}) == 202
        assert send(url, created, secret="guessed", name="base", version="8", tags={}) == 401
        assert send(url, created, name="base", version="9", tags={}) == 202  # it cools down
        unsigned = httpx.post(f"{url}/mlflow", content=b"{}", trust_env=False)
        assert unsigned.status_code == 401
        assert httpx.get(f"{url}/healthz", trust_env=False).text == "ok"
    with _receiver(Settings(home=tmp_path), started, *known) as url:
        assert (
            send(url, created, name="base", version="10", tags={}) == 202
        )  # still, after a restart
    assert started == [
        ("one", "MLflow: base version 7"),
        ("two", "MLflow: base@prod version 7"),
    ]
    assert SECRET not in json.dumps(unsigned.json())


def test_users_who_think_less_of_the_champion_start_a_look(tmp_path: Path) -> None:
    helpful = {"kind": "score", "tolerate": 0.01, "reject": 0.05, "prove_in": ["live"]}
    spec = {"name": "m", "source": "hf://a/b", "rollout": {"metrics": {"helpful": helpful}}}
    known = [
        _schedule("one", "drift:helpful", spec=spec),
        _schedule("two", "version:base", spec=spec),
    ]
    started: list[tuple[str, str]] = []
    stage = Stage(tmp_path)
    stage.up()
    try:
        gateway = httpx.Client(base_url=lifecycle.url(stage.settings), trust_env=False)
        body = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}

        def asks_and_says(score: float) -> None:
            answer = gateway.post("/v1/chat/completions", json=body).raise_for_status()
            said = {"request": answer.headers[REQUEST], "metric": "helpful", "score": score}
            gateway.post("/v1/scores", json=said).raise_for_status()

        with gateway:
            with _receiver(stage.settings, started, *known):
                for _ in range(2 * BASELINE):  # what came before the first look is not counted
                    asks_and_says(0.9)
                threading.Event().wait(1.0)  # a look
            assert started == []
            with _receiver(stage.settings, started, *known):  # it knows what was
                for _ in range(BASELINE):
                    asks_and_says(0.5)
                    if started:
                        break
    finally:
        lifecycle.down(stage.settings)
    ((name, why),) = started
    assert name == "one"
    said = re.fullmatch(
        r"drift: helpful of m-v1 is (0\.\d+) in \d+ requests, and was 0\.900 in its first (\d+)",
        why,
    )
    assert said, why
    assert 0.5 < float(said[1]) < 0.9
    assert int(said[2]) >= BASELINE
