from __future__ import annotations

import httpx
import pytest

from serving.readiness import ready_model


def _transport(health: int, models: object) -> httpx.MockTransport:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/health":
            return httpx.Response(health)
        assert request.url.path == "/v1/models"
        return httpx.Response(200, json=models)

    return httpx.MockTransport(answer)


def test_a_server_is_ready_when_it_names_its_model() -> None:
    found = ready_model("http://x", transport=_transport(200, {"data": [{"id": "m"}]}))
    assert found == "m"


@pytest.mark.parametrize(
    ("health", "models"), [(503, {"data": [{"id": "m"}]}), (200, {"data": []}), (200, [])]
)
def test_one_that_is_not_healthy_or_names_none_is_not(health: int, models: object) -> None:
    assert ready_model("http://x", transport=_transport(health, models)) is None


def test_nor_is_what_cannot_be_reached() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    assert ready_model("http://x", transport=httpx.MockTransport(refuse)) is None
