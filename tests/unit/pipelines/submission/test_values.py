"""Names, states, settings, pages and readings: what needs no server."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.submission import reading
from pipelines.submission.errors import NoBackEnd
from pipelines.submission.naming import digest, penstock_of, run_name, version_name
from pipelines.submission.paging import listed, where
from pipelines.submission.settings import IN_CLUSTER_URL, KfpSettings
from pipelines.submission.states import exit_code, failed_task, outcome, over, real_tasks
from pipelines.submission.values import Run, State, Task

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON), st.randoms())
def test_a_digest_does_not_depend_on_the_order_of_keys(body: dict[str, Any], random: Any) -> None:
    keys = list(body)
    random.shuffle(keys)
    assert digest([{key: body[key] for key in keys}]) == digest([body])


def test_a_digest_depends_on_everything_else() -> None:
    assert len({digest(d) for d in ([{"a": 1}], [{"a": 2}], [{"a": 1}, {}], [{"b": 1}])}) == 4


def test_a_version_says_which_penstock_published_it() -> None:
    name = version_name("0.3.1.dev2", "0123456789abcdef")
    assert name == "0.3.1.dev2-0123456789ab"
    assert penstock_of(name) == "0.3.1.dev2"
    assert [penstock_of(other) for other in ("v1", "1.2.3", "x-0123456789ab")] == [None] * 3


def test_a_run_s_name_says_what_and_when() -> None:
    at = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
    assert run_name("demo", at, "ab12cd") == "demo-20260504-030201-ab12cd"


FINAL = {"SUCCEEDED": 0, "FAILED": 1, "SKIPPED": 1, "CANCELED": 130}


@pytest.mark.parametrize("state", get_args(State))
def test_every_state_is_over_or_not(state: State) -> None:
    assert over(state) is (state in FINAL)
    if state in FINAL:
        assert exit_code(state) == FINAL[state]
    assert outcome(state)


def test_the_first_task_that_failed_is_the_innermost() -> None:
    def task(name: str, state: State, end: int) -> Task:
        return Task(name, name, state, ended_at=datetime(2026, 1, 1, 0, 0, end, tzinfo=UTC))

    tasks = (task("root", "FAILED", 9), task("steps", "FAILED", 5), task("pull", "FAILED", 3))
    run = Run("1", "r", "FAILED", tasks=(*tasks, task("scan", "SUCCEEDED", 1)))
    found = failed_task(run)
    assert found is not None
    assert found.name == "pull"
    assert [t.name for t in real_tasks(run)] == ["steps", "pull", "scan"]
    assert failed_task(Run("1", "r", "FAILED")) is None


def test_what_a_server_leaves_out_is_empty() -> None:
    assert reading.run({}).state == "RUNTIME_STATE_UNSPECIFIED"
    assert reading.run({"state": "INVENTED"}).state == "RUNTIME_STATE_UNSPECIFIED"
    assert reading.run({"finished_at": "1970-01-01T00:00:00Z"}).finished_at is None
    assert reading.recurring_run({}).max_concurrency == 1
    assert reading.version({}).parameters == []
    assert reading.recurring_run({"mode": "ENABLE"}).enabled is True
    assert reading.recurring_run({"mode": "ENABLE", "status": "DISABLED"}).enabled is False


def test_a_task_has_every_pod_of_its_once() -> None:
    children = [{"pod_name": "a"}, {"pod_name": "b"}, {"task_id": "1"}]
    assert reading.task({"pod_name": "a", "child_tasks": children}).pods == ("a", "b")


def test_a_list_is_read_to_its_end_or_its_limit() -> None:
    rows: list[dict[str, Any]] = [{"number": number} for number in range(250)]
    asked: list[int] = []

    def ask(page_size: int, page_token: str) -> dict[str, Any]:
        asked.append(page_size)
        start = int(page_token or 0)
        end = start + page_size
        token = {"next_page_token": str(end)} if end < len(rows) else {}
        return {"rows": rows[start:end], **token}

    assert listed(ask, "rows") == rows
    assert asked == [100, 100, 100]
    assert listed(ask, "rows", 120) == rows[:120]
    assert asked[3:] == [100, 20]
    assert listed(lambda **_: {}, "rows") == []


def test_a_filter_asks_for_what_is_named() -> None:
    assert where(display_name="", state="") is None
    asked = where(display_name='a "quoted" name')
    assert asked is not None
    assert '"string_value": "a \\"quoted\\" name"' in asked


URL = {"PENSTOCK_KFP_URL": "http://127.0.0.1:8888/"}


def test_settings_name_one_server(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("t")
    env = {**URL, "PENSTOCK_KFP_TOKEN_FILE": str(token), "PENSTOCK_KFP_COOKIES": "s=secretcookie"}
    found = KfpSettings.from_env(env, pod_token=tmp_path / "absent")
    assert found.url == "http://127.0.0.1:8888"
    assert found.token_file == token
    assert "secretcookie" not in repr(found)
    assert found.link("1") == "http://127.0.0.1:8888/#/runs/details/1"


def test_a_pod_needs_no_settings(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("t")
    found = KfpSettings.from_env({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, pod_token=token)
    assert (found.url, found.token_file) == (IN_CLUSTER_URL, token)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"PENSTOCK_KFP_URL": ""}, "PENSTOCK_KFP_URL is not set"),
        ({"PENSTOCK_KFP_URL": "127.0.0.1:8888"}, "PENSTOCK_KFP_URL: found"),
        ({"PENSTOCK_KFP_URL": "http://kfp/#/runs"}, "PENSTOCK_KFP_URL: found"),
        ({"PENSTOCK_KFP_TOKEN_FILE": "/absent/token"}, "PENSTOCK_KFP_TOKEN_FILE: no such file"),
        ({"PENSTOCK_KFP_CA_FILE": "/absent/ca"}, "PENSTOCK_KFP_CA_FILE: no such file"),
        ({"PENSTOCK_KFP_COOKIES": "nonsense"}, "PENSTOCK_KFP_COOKIES: allowed"),
        ({"PENSTOCK_KFP_TIMEOUT_S": "soon"}, "PENSTOCK_KFP_TIMEOUT_S: found 'soon'"),
        ({"PENSTOCK_KFP_TIMEOUT_S": "0"}, "PENSTOCK_KFP_TIMEOUT_S: found '0'"),
    ],
)
def test_an_unusable_setting_is_named(changed: dict[str, str], named: str, tmp_path: Path) -> None:
    with pytest.raises(NoBackEnd) as problem:
        KfpSettings.from_env({**URL, **changed}, pod_token=tmp_path / "absent")
    assert named in str(problem.value)
    assert problem.value.exit_code == 2


def test_an_address_with_a_password_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(NoBackEnd) as problem:
        KfpSettings.from_env(
            {"PENSTOCK_KFP_URL": "http://me:hunter2@kfp"}, pod_token=tmp_path / "absent"
        )
    assert "hunter2" not in str(problem.value) + problem.value.hint
