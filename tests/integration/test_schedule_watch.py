"""MLflow's own sender, and the receiver that starts schedules."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from penstock.cli.schedule_watch import application
from penstock.core.schedules import Schedule
from pipelines.schedules.kept import Kept
from tests.fakes.serving import serving

pytestmark = pytest.mark.integration
SECRET = "between-us"


def _schedule(name: str, *on: str) -> Kept:
    body = {"name": name, "model": "m", "spec": {}, "when": {"every_s": 86400}, "on": list(on)}
    return Kept(Schedule.model_validate(body), 1)


@contextmanager
def _receiver(started: list[tuple[str, str]]) -> Iterator[str]:
    known = [_schedule("one", "version:base"), _schedule("two", "alias:base@prod")]
    app = application(SECRET, lambda: known, lambda name, why: started.append((name, why)))
    with serving(app) as url:
        yield url


def test_mlflow_starts_what_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
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

    with _receiver(started) as url:
        assert send(url, created, name="base", version="7", tags={}) == 202
        assert send(url, aliased, name="base", version="7", alias="prod") == 202
        assert send(url, created, name="other", version="1", tags={}) == 202
        assert send(url, created, secret="guessed", name="base", version="8", tags={}) == 401
        assert send(url, created, name="base", version="9", tags={}) == 202  # it cools down
        unsigned = httpx.post(f"{url}/mlflow", content=b"{}", trust_env=False)
        assert unsigned.status_code == 401
        assert httpx.get(f"{url}/healthz", trust_env=False).text == "ok"
    assert started == [
        ("one", "MLflow: base version 7"),
        ("two", "MLflow: base@prod version 7"),
    ]
    assert SECRET not in json.dumps(unsigned.json())
