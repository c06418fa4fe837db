"""What an answer means, and what is asked again."""

from __future__ import annotations

import json

import pytest

from penstock.core.errors import LifecycleError
from pipelines.submission.errors import (
    Denied,
    Missing,
    NoBackEnd,
    Rejected,
    Taken,
    Unavailable,
    UnknownParameter,
)
from pipelines.submission.refusals import Answer, Ask, Effect, again, refusal, unsure

ASK = Ask("create", "run demo", "once", "team-a", "http://kfp")


def grpc(status: int, said: str, inside: str = "") -> Answer:
    detail = {"@type": "type.googleapis.com/google.rpc.Status", "code": 3, "message": said}
    body = {"code": 3, "message": inside or said, "details": [detail]}
    return Answer(status, {"Content-Type": "application/json"}, json.dumps(body))


def refused(answer: Answer) -> LifecycleError:
    problem = refusal(ASK, answer)
    assert problem is not None
    return problem


@pytest.mark.parametrize("text", ["", "{}", '{"run_id": "1"}'])
def test_json_is_an_answer(text: str) -> None:
    assert refusal(ASK, Answer(200, {}, text)) is None


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, Rejected, 8),
        (401, Denied, 8),
        (403, Denied, 8),
        (404, Missing, 8),
        (408, Unavailable, 8),
        (409, Taken, 8),
        (429, Unavailable, 8),
        (500, Rejected, 8),
        (502, Unavailable, 8),
        (503, Unavailable, 8),
        (504, Unavailable, 8),
    ],
)
def test_every_status_has_its_error(status: int, kind: type, code: int) -> None:
    problem = refused(grpc(status, "what the server says"))
    assert type(problem) is kind
    assert problem.exit_code == code
    assert "create run demo in namespace team-a" in str(problem)
    assert "what the server says" in str(problem)
    assert problem.hint


def test_the_server_s_shortest_words_are_told() -> None:
    problem = refused(grpc(400, "short", "a chain: of: causes: short"))
    assert "short" in str(problem)
    assert "chain" not in str(problem)
    inside = refused(grpc(500, "Internal Server Error", "InternalServerError: what broke"))
    assert "what broke" in str(inside)
    upload = Answer(400, {}, '{"error_message": "Failed to create", "error_details": "x"}')
    assert "Failed to create" in str(refused(upload))


def test_words_are_cut() -> None:
    assert len(str(refused(grpc(400, "x" * 10_000)))) < 700


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ("parameter(s) provided are not required by pipeline: zeta", "no parameter zeta"),
        ("parameter spec is not optional, yet has neither default value", "parameter spec"),
        ("input parameter n requires type double or integer, but", "parameter n has another type"),
    ],
)
def test_parameters_that_do_not_fit_are_the_caller_s(said: str, named: str) -> None:
    problem = refused(grpc(400, said))
    assert isinstance(problem, UnknownParameter)
    assert problem.exit_code == 2
    assert named in str(problem)


def test_a_namespace_that_is_not_there_is_named() -> None:
    inside = 'Failed to create a workflow for (x): namespaces "team-a" not found'
    problem = refused(grpc(500, "Internal Server Error", inside))
    assert "there is no namespace team-a" in str(problem)
    assert "kubectl get profiles" in problem.hint
    assert not unsure(problem)  # nothing can have been created


def test_a_login_in_between_is_no_answer() -> None:
    page = Answer(200, {"Content-Type": "text/html"}, "<!doctype html><html>Log in</html>")
    led = Answer(302, {"Location": "/dex/auth"}, "")
    for answer in (page, led):
        problem = refused(answer)
        assert isinstance(problem, Denied)
        assert "PENSTOCK_KFP_COOKIES" in problem.hint


def test_another_server_is_no_back_end() -> None:
    assert isinstance(refused(Answer(404, {}, "404 page not found\n")), NoBackEnd)
    assert isinstance(refused(Answer(200, {}, "pong")), Rejected)


def test_a_bad_schema_is_told_from_other_refusals() -> None:
    problem = refused(grpc(500, "Internal Server Error", "KFP only supports schema version 2.1.0"))
    assert "does not accept the compiled pipeline" in str(problem)


def test_the_server_says_how_long_it_wants_to_be_left_alone() -> None:
    headers = {"Retry-After": "7"}
    problem = refused(Answer(429, headers, ""))
    assert isinstance(problem, Unavailable)
    assert problem.after_s == 7
    assert problem.executed is False


LOST = Unavailable("lost", executed=True)
CLOSED = Unavailable("refused", executed=False)
BROKEN = Rejected("500", status=500)
WRONG = Rejected("400", status=400)


@pytest.mark.parametrize(
    ("effect", "problem", "expected"),
    [
        ("read", LOST, True),
        ("read", BROKEN, True),
        ("read", WRONG, False),
        ("same", LOST, True),
        ("same", BROKEN, False),
        ("once", LOST, False),
        ("once", CLOSED, True),
        ("once", BROKEN, False),
        ("read", Denied("no"), False),
        ("read", Missing("none"), False),
    ],
)
def test_what_is_asked_again(effect: Effect, problem: LifecycleError, expected: bool) -> None:
    assert again(effect, problem, 0) is expected


def test_a_server_that_stays_broken_is_left_alone() -> None:
    assert [again("read", BROKEN, failed) for failed in range(6)] == [True] * 4 + [False] * 2


@pytest.mark.parametrize(
    ("problem", "expected"),
    [(LOST, True), (CLOSED, False), (BROKEN, True), (WRONG, False), (Taken("x"), False)],
)
def test_what_may_have_been_executed(problem: LifecycleError, expected: bool) -> None:
    assert unsure(problem) is expected
