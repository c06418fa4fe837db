"""What was built is judged against its parent by what their servers say, or is not served."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from components.steps.judge_engine import START
from components.trtllm.cache import Entry
from penstock.core.errors import (
    ConfigurationError,
    DataRefused,
    DigestMismatch,
    EngineRefused,
    NotReady,
    PrecisionRefused,
    ServingError,
)
from penstock.core.identity import Digest
from serving.local.processes import born
from tests.fakes import trtllm, trtllm_parent
from tests.fakes.trtllm_bench import SKILLS, Bench

pytestmark = pytest.mark.integration

_CHECKPOINT: dict[str, Any] = {"engine": trtllm_parent.FITS}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, items=300)


def _answers(bench: Bench, wrong: Mapping[str, int] | None = None) -> None:
    """Let the parent be right, and the candidate too but for so many items of some skills."""
    rows = [json.loads(line) for line in bench.evaluate.read_text().splitlines()]
    right = {row["messages"][0]["content"]: row["answer"] for row in rows}
    candidate, left = dict(right), dict(wrong or {})
    for row in rows:
        if left.get(row["skill"], 0):
            left[row["skill"]] -= 1
            candidate[row["messages"][0]["content"]] = "it is not"
    path = bench.home / "answers.json"
    path.write_text(json.dumps({"parent": right, "candidate": candidate}))
    bench.env["FAKE_ANSWERS"] = str(path)


def _entry(bench: Bench) -> Entry:
    return bench.cache.entry(Digest.parse(json.loads(bench.out.read_text())["key"]))


def test_what_says_the_same_is_accepted_and_not_asked_again(bench: Bench) -> None:
    _answers(bench)
    bench.build(**_CHECKPOINT)
    assert (_entry(bench).verdict, _entry(bench).servable) == (None, False)
    verdict = bench.judge(**_CHECKPOINT).detail["verdict"]
    assert (verdict["outcome"], verdict["n"], verdict["not_compared"]) == ("accept", 300, "")
    assert {measure["name"] for measure in verdict["measures"]} >= {"mean KL", "truncated mass"}
    assert _entry(bench).servable
    served = json.loads(bench.servable.read_text())
    assert served["verdict"]["outcome"] == "accept"
    assert served["key"] == json.loads(bench.out.read_text())["key"]
    assert bench.ran["trtllm-serve"] == 2
    assert not any(born(pid) for pid in bench.pids("trtllm-serve"))
    assert bench.judge(**_CHECKPOINT).reused
    assert bench.ran["trtllm-serve"] == 2

    looser: dict[str, Any] = {"evaluation": {"max_quality_loss": 0.1}}
    assert not bench.judge(**_CHECKPOINT, **looser).reused, "another question"


def test_a_lost_skill_is_refused_by_name_and_never_servable(bench: Bench) -> None:
    _answers(bench, {SKILLS[1]: 40})
    bench.build(**_CHECKPOINT)
    for _ in range(2):  # the second time from the verdict beside it
        with pytest.raises(PrecisionRefused, match=f"it lost skill '{SKILLS[1]}'") as raised:
            bench.judge(**_CHECKPOINT)
        assert "not served" in raised.value.hint
    assert bench.ran["trtllm-serve"] == 2
    verdict = _entry(bench).verdict
    assert verdict is not None
    assert (verdict["outcome"], verdict["lost"], _entry(bench).servable) == ("refuse", 40, False)
    assert not bench.servable.exists()
    record = bench.record("judge_engine")
    assert record["failure"]["exit_code"] == PrecisionRefused.exit_code
    assert record["detail"]["verdict"]["outcome"] == "refuse"


def test_too_few_items_show_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, items=40)
    _answers(bench)
    bench.build(**_CHECKPOINT)
    with pytest.raises(PrecisionRefused, match="40 items can exclude") as raised:
        bench.judge(**_CHECKPOINT)
    assert "add items to data.evaluate" in raised.value.hint
    verdict = _entry(bench).verdict
    assert verdict is not None
    assert (verdict["outcome"], _entry(bench).servable) == ("insufficient", False)


def test_an_engine_that_tells_no_log_probabilities_is_judged_by_its_answers(bench: Bench) -> None:
    _answers(bench)
    bench.build()
    verdict = bench.judge().detail["verdict"]
    assert (verdict["outcome"], list(verdict["measures"])) == ("accept", [])
    assert "the candidate tells no log-probabilities" in verdict["not_compared"]
    assert "gather_generation_logits" in verdict["not_compared"]


def _nothing_is_judged(bench: Bench) -> None:
    assert (_entry(bench).verdict, bench.servable.exists()) == (None, False)
    assert not any(born(pid) for pid in bench.pids("trtllm-serve"))


def test_a_server_that_ends_at_once_is_told_with_its_last_words(bench: Bench) -> None:
    _answers(bench)
    bench.build(**_CHECKPOINT)
    bench.env["HF_TOKEN"] = "hf_abcdefghijklmnopqrst"
    with pytest.raises(NotReady, match="server of the parent: not ready") as raised:
        bench.judge(fault="crash:trtllm-serve", **_CHECKPOINT)
    assert "exit code 1" in str(raised.value)
    assert "CUDA out of memory" in str(raised.value)
    log = Path(raised.value.hint.removeprefix("its whole output: ")).read_text()
    assert "token=<secret>" in log
    assert bench.env["HF_TOKEN"] not in str(raised.value) + log
    _nothing_is_judged(bench)


def test_a_server_that_never_answers_is_ended(bench: Bench) -> None:
    _answers(bench)
    bench.build(**_CHECKPOINT)
    bench.env[START] = "2"
    with pytest.raises(NotReady, match="it does not answer"):
        bench.judge(fault="hang:trtllm-serve", **_CHECKPOINT)
    _nothing_is_judged(bench)
    bench.env[START] = "soon"
    with pytest.raises(ConfigurationError, match=START):
        bench.judge(**_CHECKPOINT)


def test_a_server_that_dies_while_it_is_asked_leaves_no_verdict(bench: Bench) -> None:
    _answers(bench)
    bench.build(**_CHECKPOINT)
    with pytest.raises(ServingError, match=r"ended while it was asked: was killed \(SIGKILL\)"):
        bench.judge(fault="die:trtllm-serve", **_CHECKPOINT)
    _nothing_is_judged(bench)
    assert bench.judge(**_CHECKPOINT).detail["verdict"]["outcome"] == "accept", "a retry judges"


def test_what_is_served_as_it_came_needs_no_server(bench: Bench) -> None:
    bench.build(**_CHECKPOINT, precision="bf16")
    verdict = bench.judge(**_CHECKPOINT, precision="bf16").detail["verdict"]
    assert (verdict["outcome"], bench.ran["trtllm-serve"]) == ("accept", 0)
    assert _entry(bench).servable


def test_an_engine_is_judged_where_it_runs_and_as_it_was_built(bench: Bench) -> None:
    _answers(bench)
    bench.build()
    bench.env["FAKE_GPUS"] = trtllm.H100.replace("580", "590")
    with pytest.raises(EngineRefused, match="driver: built for 580, here 590"):
        bench.judge()
    bench.env["FAKE_GPUS"] = trtllm.H100
    (_entry(bench).files / "engine/rank0.engine").write_bytes(b"another")
    with pytest.raises(DigestMismatch, match=r"rank0\.engine"):
        bench.judge()
    assert bench.ran["trtllm-serve"] == 0


def test_questions_that_changed_are_not_asked(bench: Bench) -> None:
    _answers(bench)
    bench.build(**_CHECKPOINT)
    bench.evaluate.write_text(bench.evaluate.read_text().replace("it 7", "it 8"))
    with pytest.raises(DataRefused, match=r"data\.evaluate: .* changed while the run"):
        bench.judge(**_CHECKPOINT)
    assert bench.ran["trtllm-serve"] == 0


def test_a_verdict_ends_with_the_files_it_was_made_for(bench: Bench) -> None:
    _answers(bench)
    bench.build(**_CHECKPOINT)
    bench.judge(**_CHECKPOINT)
    before: dict[str, Any] = json.loads((_entry(bench).folder / "verdict.json").read_text())
    (_entry(bench).files / "checkpoint/model.safetensors").unlink()
    bench.build(**_CHECKPOINT)
    assert _entry(bench).verdict is None
    _entry(bench).judged(before)
    assert _entry(bench).servable, "the same files: the fake builds them alike"
    (_entry(bench).folder / "verdict.json").write_text(json.dumps({**before, "root": "sha256:0"}))
    assert (_entry(bench).verdict, _entry(bench).servable) == (None, False)
