from __future__ import annotations

import asyncio
import logging

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import ConfigurationError
from serving.engine.faults import Fault
from serving.headers import REPLAY


@given(st.floats(0, 1), st.integers(1, 500))
def test_the_share_is_met_without_luck(share: float, requests: int) -> None:
    fault = Fault(share)
    assert abs(sum(fault.strikes() for _ in range(requests)) - share * requests) <= 1


def test_both_faults_can_be_asked_for() -> None:
    assert Fault.parse("live-errors=0.2, live-delay=1.5") == Fault(0.2, 1.5)


@pytest.mark.parametrize(
    "text", ["", "errors=1", "live-errors", "live-errors=2", "live-errors=-1", "live-delay=inf"]
)
def test_another_fault_is_refused_with_those_that_are_allowed(text: str) -> None:
    with pytest.raises(ConfigurationError, match="live-delay=SECONDS"):
        Fault.parse(text)


def test_users_fail_and_replays_and_health_do_not(caplog: pytest.LogCaptureFixture) -> None:
    async def well(_request: web.Request) -> web.Response:
        return web.Response()

    async def run() -> list[int]:
        app = web.Application(middlewares=[Fault.parse("live-errors=1").middleware()])
        app.router.add_route("*", "/", well)
        async with TestClient(TestServer(app)) as client:
            asked = [client.post("/"), client.post("/", headers={REPLAY: "1"}), client.get("/")]
            return [(await each).status for each in asked]

    with caplog.at_level(logging.WARNING):
        assert asyncio.run(run()) == [500, 200, 200]
    assert "FAULT INJECTION" in caplog.text
