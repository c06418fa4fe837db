"""Two fake engines behind the real gateway, asked side by side."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from penstock.core.errors import NotReady, ServingError
from serving.completer import Message
from serving.doors import GatewayDoors
from serving.headers import REPLAY
from serving.local.requestlog import Entry
from serving.rollout.evidence import bound_of
from serving.sources.replay import Load, PairedReplayer, Prompt, Versions, prompts_of
from serving.sources.scores import ScoreHook
from tests.fakes.engine import FakeEngine
from tests.fakes.gateway import cluster_of

CAPITALS = {"France?": "Paris", "Peru?": "Lima", "Ghana?": "Accra", "Chad?": "N'Djamena"}
PROMPTS = [
    Prompt((Message(role="user", content=asked),), expected) for asked, expected in CAPITALS.items()
]


def _engine(**how: object) -> FakeEngine:
    given: dict[str, object] = {"answers": CAPITALS, "pause_s": 0.0, **how}
    return FakeEngine(**given)  # type: ignore[arg-type]  # options of the test


@contextmanager
def _replayer(
    folder: Path,
    candidate: FakeEngine | None,
    stable: FakeEngine | None,
    prompts: Sequence[Prompt] = PROMPTS,
    **options: object,
) -> Iterator[PairedReplayer]:
    with cluster_of(folder, {"m-v1": stable, "m-v2": candidate}, {"m-v1": 100}) as url:
        versions = Versions(GatewayDoors(url), "m", candidate="m-v2", stable="m-v1")
        yield PairedReplayer(versions, prompts, seed=7, **options)  # type: ignore[arg-type]  # options of the test


def test_both_answer_and_are_compared(tmp_path: Path) -> None:
    wrong = {**CAPITALS, "Peru?": "Cusco"}
    candidate, stable = _engine(answers=wrong), _engine()
    with _replayer(tmp_path, candidate, stable) as replayer:
        pairs, cursor = replayer.replay(None, 10)
        assert replayer.exhausted(cursor)
    assert len(pairs) == len(PROMPTS)
    assert pairs.errors.tolist() == [[0, 0]] * len(PROMPTS)
    assert pairs.scores["quality"].sum(axis=0).tolist() == [600, 800]
    assert (pairs.latency["ttft_p95"] >= 0).all()
    assert (pairs.latency["tpot_p95"] == -1).all()  # one word: no time between tokens
    for engine in (candidate, stable):
        assert {request.headers[REPLAY] for request in engine.seen} == {"1"}


def test_latency_is_seen_for_each(tmp_path: Path) -> None:
    prompt = Prompt((Message(role="user", content="count"),))
    slow, fast = _engine(pause_s=0.1), _engine(pause_s=0.001)
    with _replayer(tmp_path, slow, fast, [prompt], load=Load(max_new_tokens=4)) as replayer:
        pairs, _ = replayer.replay(None, 1)
    candidate, stable = pairs.latency["tpot_p95"][0]
    assert bound_of(int(candidate)) > 0.09
    assert bound_of(int(stable)) < 0.09
    assert pairs.scores["quality"].tolist() == [[-1, -1]]  # nobody knows the right answer


def test_a_cursor_goes_on_where_it_was_and_repeats_nothing(tmp_path: Path) -> None:
    candidate, stable = _engine(), _engine()
    with _replayer(tmp_path, candidate, stable, [*PROMPTS, *PROMPTS]) as replayer:
        first, cursor = replayer.replay(None, 3)
        assert replayer.remaining(cursor) == 1
        second, cursor = replayer.replay(cursor, 3)
        none, same = replayer.replay(cursor, 3)
    assert [len(first), len(second), len(none)] == [3, 1, 0]
    assert same == cursor
    assert len(candidate.seen) == len(stable.seen) == len(CAPITALS)


def test_a_cursor_holds_when_prompts_come_and_go() -> None:
    versions = Versions(GatewayDoors("http://nowhere"), "m", candidate="m-v2", stable="m-v1")
    few = PairedReplayer(versions, PROMPTS[:2], seed=1)
    more = PairedReplayer(versions, reversed(PROMPTS), seed=1)
    cursor = sorted(prompt.key(1) for prompt in PROMPTS)[1]
    assert few.remaining(None) == 2
    assert more.remaining(cursor) == 2
    assert [p.key(1) for p in PROMPTS] != [p.key(2) for p in PROMPTS]


@pytest.mark.parametrize(
    "candidate", [None, {"status": 500}, {"status": 429}, {"breaks_off": True}, {"errs_late": True}]
)
def test_a_candidate_that_gives_no_answer_errs(
    tmp_path: Path, candidate: dict[str, object] | None
) -> None:
    engine = None if candidate is None else _engine(**candidate)
    with _replayer(tmp_path, engine, _engine()) as replayer:
        pairs, _ = replayer.replay(None, 2)
    assert pairs.errors.tolist() == [[1, 0]] * 2
    assert pairs.latency["ttft_p95"][:, 0].tolist() == [-1, -1]
    assert pairs.scores["quality"].tolist() == [[-1, 200]] * 2


@pytest.mark.parametrize(
    ("candidate", "left"), [(None, 0), ({"breaks_off": True}, 0), ({"status": 500}, 2)]
)
def test_a_candidate_whose_replicas_were_taken_away_is_not_blamed_for_silence(
    tmp_path: Path, candidate: dict[str, object] | None, left: int
) -> None:
    engine = None if candidate is None else _engine(**candidate)
    with _replayer(tmp_path, engine, _engine(), replaced=lambda: True) as replayer:
        pairs, cursor = replayer.replay(None, 2)
        assert (len(pairs), replayer.remaining(cursor)) == (left, 2)


def test_without_the_stable_version_there_is_nothing_to_compare(tmp_path: Path) -> None:
    with _replayer(tmp_path, _engine(), None) as replayer:
        pairs, cursor = replayer.replay(None, 3)
        assert (len(pairs), replayer.remaining(cursor)) == (0, 1)


def test_a_version_too_slow_did_not_answer(tmp_path: Path) -> None:
    load = Load(timeout_s=0.3)
    with _replayer(tmp_path, _engine(pause_s=0.5), _engine(), load=load) as replayer:
        pairs, _ = replayer.replay(None, 1)
    assert pairs.errors.tolist() == [[1, 0]]


def test_without_the_gateway_there_is_no_evidence() -> None:
    versions = Versions(GatewayDoors("http://127.0.0.1:9"), "m", candidate="m-v2", stable="m-v1")
    with pytest.raises(NotReady):
        PairedReplayer(versions, PROMPTS, seed=1).replay(None, 2)


def test_an_unknown_version_is_refused(tmp_path: Path) -> None:
    with cluster_of(tmp_path, {"m-v1": _engine()}, {"m-v1": 100}) as url:
        versions = Versions(GatewayDoors(url), "m", candidate="m-v9", stable="m-v1")
        replayer = PairedReplayer(versions, PROMPTS, seed=1)
        with pytest.raises(ServingError, match="no version of 'm'"):
            replayer.replay(None, 2)


def test_replays_are_no_live_requests_and_skip_injected_faults(tmp_path: Path) -> None:
    faulty = _engine(fault="live-errors=1")
    with cluster_of(tmp_path, {"m-v1": _engine(), "m-v2": faulty}, {"m-v2": 100}) as url:
        versions = Versions(GatewayDoors(url), "m", candidate="m-v2", stable="m-v1")
        pairs, _ = PairedReplayer(versions, PROMPTS, seed=1).replay(None, 4)
        metrics = httpx.get(f"{url}/metrics", trust_env=False).text
        live = httpx.post(f"{url}/v1/chat/completions", json={"model": "m"}, trust_env=False)
    assert pairs.errors.sum() == 0
    assert "penstock_gateway_requests_total{" not in metrics
    assert 'penstock_gateway_replays_total{code="200",name="m",service="m-v2"} 4.0' in metrics
    assert live.status_code == 500


def test_the_log_yields_conversations_that_can_be_asked_again() -> None:
    turns = [{"role": "user", "content": "hi"}]
    body = json.dumps({"model": "m", "messages": turns})

    def entry(body: str, status: int = 200, path: str = "/v1/chat/completions") -> Entry:
        return Entry(0.0, "m", "m-v1", path, status, 0.1, body)

    parts = json.dumps({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})
    left_out = [
        entry(body, status=400),
        entry(body, path="/v1/completions"),
        entry(body[:-5]),
        entry(parts),
        entry('{"messages": []}'),
    ]
    (found,) = prompts_of([entry(body), *left_out])
    assert found == Prompt((Message(role="user", content="hi"),))


@contextmanager
def _webhook(answer: object, status: int = 200) -> Iterator[tuple[str, list[object]]]:
    """A webhook in a thread; yields its URL and what it was sent."""
    seen: list[object] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(await request.json())
        return web.json_response(answer, status=status)

    app = web.Application()
    app.router.add_post("/", handle)
    loop, server = asyncio.new_event_loop(), TestServer(app)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start_server(), loop).result(10)
        yield str(server.make_url("/")), seen
    finally:
        asyncio.run_coroutine_threadsafe(server.close(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@pytest.mark.parametrize(
    ("answer", "status", "steps"),
    [
        ({"candidate": 0.5, "stable": 1}, 200, [100, 200]),
        ({"candidate": 0.5, "stable": 1}, 500, [-1, -1]),
        ({"candidate": 7, "stable": 1}, 200, [-1, -1]),
        ({"candidate": True, "stable": 1}, 200, [-1, -1]),
        ({"candidate": 0.5}, 200, [-1, -1]),
        ([], 200, [-1, -1]),
    ],
)
def test_a_webhook_scores_both_or_neither(
    tmp_path: Path, answer: object, status: int, steps: list[int]
) -> None:
    with _webhook(answer, status) as (url, seen):
        hooks = {"tone": ScoreHook(url, timeout_s=5.0)}
        with _replayer(tmp_path, _engine(), _engine(), PROMPTS[:1], hooks=hooks) as replayer:
            pairs, _ = replayer.replay(None, 1)
    assert pairs.scores["tone"].tolist() == [steps]
    assert seen == [
        {
            "prompt": [{"role": "user", "content": "France?"}],
            "answers": {"candidate": "Paris ", "stable": "Paris "},
        }
    ]


def test_an_answer_that_failed_is_not_sent_to_a_webhook(tmp_path: Path) -> None:
    with _webhook({}) as (url, seen):
        hooks = {"tone": ScoreHook(url)}
        with _replayer(tmp_path, None, _engine(), PROMPTS[:1], hooks=hooks) as replayer:
            pairs, _ = replayer.replay(None, 1)
    assert np.array_equal(pairs.scores["tone"], [[-1, -1]])
    assert seen == []
