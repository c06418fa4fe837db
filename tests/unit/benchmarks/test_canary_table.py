"""Scenarios parse or say why not, the peers do what they are known for, the table adds up."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.canary import __main__ as command
from benchmarks.canary import kayenta, markdown, peers, series
from benchmarks.canary.outcomes import PROMOTE, ROLL_BACK, Ledger, Outcomes
from benchmarks.canary.scenarios import SCENARIOS, Scenario, parse
from benchmarks.canary.table import BLOCK, RULES, Plan, row, run_block, settings
from benchmarks.canary.world import World
from penstock.core.errors import ConfigurationError
from penstock.core.spec import Rollout

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- scenarios -------------------------------------------------------------------------------


def test_the_scenarios_of_the_margins_lie_at_the_margins_of_the_default_policy() -> None:
    metrics = Rollout().metrics
    assert len(SCENARIOS) == len(BY_NAME) == 20
    assert BY_NAME["ttft_at_margin"].ttft == 1 + metrics["ttft_p95"].reject
    assert BY_NAME["err_at_margin"].err == 0.005 + metrics["error_rate"].reject
    assert BY_NAME["q_at_margin"].q == 0.70 - metrics["quality"].reject
    worst = BY_NAME["all_at_eps"]
    assert (worst.ttft, worst.tpot) == (1.15, 1.10)
    assert worst.good


def test_scenarios_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "scenarios.json"
    path.write_text('[{"name": "a", "good": true}, {"name": "b", "good": false, "rate": 5}]')
    assert parse(path) == (Scenario("a", good=True), Scenario("b", good=False, rate=5.0))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "not readable as JSON"),
        ("{}", "a list of scenarios"),
        ("[]", "a list of scenarios"),
        ("[3]", "[0]: found int; allowed: an object"),
        ('[{"good": true}]', "[0].name: found nothing; allowed: required"),
        ('[{"name": "a"}]', "[0].good: found nothing"),
        ('[{"name": "", "good": true}]', '[0].name: found ""'),
        ('[{"name": "a", "good": 1}]', "[0].good: found 1; allowed: true or false"),
        ('[{"name": "a", "good": true, "rate": true}]', "[0].rate: found true"),
        ('[{"name": "a", "good": true, "rate": 0}]', "from 0.01 to 1000"),
        ('[{"name": "a", "good": true, "rate": NaN}]', "[0].rate: found NaN"),
        ('[{"name": "a", "good": true, "rate": 1e999}]', "[0].rate: found Infinity"),
        ('[{"name": "a", "good": true, "err": 2}]', "a number from 0 to 1"),
        ('[{"name": "a", "good": true, "q": 0.95}]', "0.11 to 0.89"),
        ('[{"name": "a", "good": true, "env": "bursts"}]', "iid, burst, noisy"),
        ('[{"name": "a", "good": true, "ttff": 1}]', "did you mean 'ttft'?"),
        ('[{"name": "a", "good": true}, {"name": "a", "good": true}]', "a second time"),
    ],
)
def test_a_wrong_file_says_what_where_and_what_is_allowed(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "scenarios.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as raised:
        parse(path)
    assert said in str(raised.value)
    assert str(path) in str(raised.value)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not readable"):
        parse(tmp_path / "none.json")


# --- the peers -------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "penstock"])
def test_every_peer_rolls_a_broken_candidate_back(rule: str) -> None:
    found = run_block(rule, BY_NAME["err20"], 20, (1, 0))
    assert (found.decision == ROLL_BACK).all()
    assert (found.exposed > 0).all()
    assert not found.replayed.any()
    assert found.decision.dtype == np.int8


def test_the_shipped_engine_rolls_back_in_shadow_and_promotes_what_is_good() -> None:
    broken = run_block("penstock", BY_NAME["err20"], 10, (1, 0))
    assert (broken.decision == ROLL_BACK).all()
    assert not broken.exposed.any()
    better = run_block("penstock", BY_NAME["better"], 3, (1, 0))
    assert (better.decision == PROMOTE).all()
    live = run_block("penstock", replace(BY_NAME["err20"], liveonly=True), 3, (1, 0))
    assert (live.decision == ROLL_BACK).all()
    assert (live.exposed > 0).all()


@pytest.mark.parametrize(
    ("rule", "least", "most"),
    [
        ("flagger_5x10", 0.10, 0.22),
        ("argo_bg", 0.0, 0.01),
        ("argo_inline0", 0.97, 1.0),
        ("sagemaker", 0.97, 1.0),
        ("iter8", 0.38, 0.55),
        ("peeking", 0.58, 0.77),
        ("kayenta", 0.0, 0.03),
    ],
)
def test_peers_roll_a_good_candidate_back_as_often_as_they_are_known_to(
    rule: str, least: float, most: float
) -> None:
    found = run_block(rule, BY_NAME["aa"], 300, (1, 0))
    assert least <= (found.decision == ROLL_BACK).mean() <= most


def test_a_bad_candidate_holds_flagger_for_six_minutes_at_ten_percent() -> None:
    found = peers.flagger_5x10(BY_NAME["err20"], 50, rng())
    assert (found.seconds == 360).all()
    assert found.exposed.mean() == pytest.approx(720, rel=0.03)


def test_flagger_takes_silence_for_failure_and_argo_for_an_error() -> None:
    silent = Scenario("silent", good=True, rate=1e-9)
    for rule, seconds in ((peers.flagger_5x10, 360), (peers.argo_bg, 1500)):
        found = rule(silent, 3, rng())
        assert (found.decision == ROLL_BACK).all()
        assert (found.seconds == seconds).all()
    assert (peers.sagemaker(silent, 3, rng()).decision == PROMOTE).all()


def test_kayenta_wants_a_shift_beyond_a_quarter_of_itself() -> None:
    stable = rng(1).normal(1.0, 0.1, 60)
    assert kayenta.worse(stable + 0.2, stable, higher_is_worse=True)
    assert not kayenta.worse(stable + 0.2, stable, higher_is_worse=False)
    assert kayenta.worse(stable - 0.2, stable, higher_is_worse=False)
    assert not kayenta.worse(stable + 0.005, stable, higher_is_worse=True)
    assert not kayenta.worse(np.zeros(60), np.zeros(60), higher_is_worse=True)
    assert not kayenta.worse(np.full(60, np.nan), stable, higher_is_worse=True)


@pytest.mark.parametrize("name", ["aa", "tail", "ttft30"])
def test_sampled_windows_are_like_simulated_ones(name: str) -> None:
    traffic = World(BY_NAME[name], 1500, rng())
    traffic.advance()
    counts = np.full((1500, 1), 120)
    short = series.window(traffic, "candidate", counts)
    requests = traffic.requests("candidate", counts)
    long = series._summarized(requests, counts.sum(axis=1))
    assert short.mean(axis=0) == pytest.approx(long.mean(axis=0), rel=0.02, abs=0.001)
    assert short.std(axis=0) == pytest.approx(long.std(axis=0), rel=0.12)


def test_windows_without_requests_show_nothing() -> None:
    traffic = World(BY_NAME["aa_1rps"], 2, rng())
    traffic.advance()
    shown = series.window(traffic, "candidate", np.array([[0], [5]]))
    assert np.isnan(shown[0]).all()
    assert not np.isnan(shown[1]).any()
    assert not series.breached(shown[:1]).any()


# --- the table -------------------------------------------------------------------------------


def test_a_block_depends_on_seed_rule_scenario_and_number() -> None:
    def decided(scenario: str = "aa", entropy: tuple[int, int] = (1, 0)) -> object:
        return run_block("iter8", BY_NAME[scenario], 40, entropy).decision.tolist()

    assert decided() == decided()
    others = [decided(entropy=(2, 0)), decided(entropy=(1, 1)), decided(scenario="ttft30_noisy")]
    assert decided() not in others


def test_the_first_decision_stands() -> None:
    ledger = Ledger(2)
    ledger.decide(np.array([True, False]), ROLL_BACK, 10.0)
    ledger.decide(np.array([True, True]), PROMOTE, 20.0)
    assert ledger.outcomes.decision.tolist() == [ROLL_BACK, PROMOTE]
    assert ledger.outcomes.seconds.tolist() == [10.0, 20.0]


def outcomes(decision: list[int], minutes: list[float]) -> Outcomes:
    return Outcomes(
        np.array(decision, dtype=np.int8),
        np.array(minutes) * 60.0,
        np.array([100.0, 200.0, 300.0, 400.0]),
        np.array([10.0, 20.0, 30.0, 40.0]),
    )


def test_a_row_says_how_often_how_long_and_how_many() -> None:
    bad = row("r", BY_NAME["err2"], outcomes([-1, -1, 1, 0], [2, 4, 60, math.nan]))
    assert bad["wrong"] == bad["undecided"] == 0.25
    assert bad["wrong_se"] == pytest.approx(math.sqrt(0.25 * 0.75 / 4))
    assert bad["minutes_p50"] == 3
    assert bad["bad_user_requests_p50"] == 150
    assert bad["bad_user_requests_mean_4h"] == (100 + 200 + 300 + 400 + 20 * 3 * 3600) / 4
    assert bad["replay_calls_p50"] == 15
    good = row("r", BY_NAME["aa"], outcomes([-1, -1, -1, -1], [1, 1, 1, 1]))
    assert good["wrong"] == 1
    assert good["minutes_p50"] is good["bad_user_requests_p50"] is None
    assert list(good) == list(bad)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rules": ("spinnaker",)}, "--rules: found spinnaker; allowed: flagger_5x10"),
        ({"rules": ()}, "--rules: found none"),
        ({"reps": 0}, "--reps: found 0"),
        ({"seed": -1}, "--seed: found -1"),
    ],
)
def test_a_wrong_request_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Plan(**{"scenarios": SCENARIOS, "rules": ("iter8",), **change})


def test_blocks_add_up() -> None:
    plan = Plan(SCENARIOS, ("iter8",), reps=2 * BLOCK + 1)
    assert plan.blocks == [BLOCK, BLOCK, 1]
    assert settings(plan)["margins"]["peers"]["ttft_p95"] == {"reject": 0.15}
    assert len(settings(plan)["scenarios"]) == 20


def test_the_command_writes_json_and_markdown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "table.json"
    chosen = tmp_path / "some.json"
    chosen.write_text('[{"name": "a", "good": true}, {"name": "b", "good": false, "err": 0.2}]')
    arguments = ["--reps", "130", "--rules", "iter8,sagemaker", "--scenarios", str(chosen)]
    monkeypatch.setattr(sys, "argv", ["canary", *arguments, "--out", str(out)])
    command.main()
    found = json.loads(out.read_text())
    cells = [(one["scenario"], one["rule"], one["reps"]) for one in found["rows"]]
    assert cells == [
        (scenario, rule, 130) for scenario in ("a", "b") for rule in ("iter8", "sagemaker")
    ]
    assert found["settings"]["seed"] == 20261101
    printed = capsys.readouterr()
    assert printed.out == out.with_suffix(".md").read_text()
    assert "| rule | a |" in printed.out
    assert printed.err.count("wrong") == 4
    monkeypatch.setattr(sys, "argv", ["canary", "--rules", "none"])
    with pytest.raises(SystemExit) as left:
        command.main()
    assert left.value.code == 2


def test_the_margins_have_a_table_of_their_own() -> None:
    names = ("aa", "q_at_margin")
    chosen = [BY_NAME[name] for name in names]
    ended = outcomes([1, 1, 0, -1], [1, 1, math.nan, 1])
    text = markdown.text([row("r", scenario, ended) for scenario in chosen], chosen)
    assert "| rule | aa |" in text
    assert "| rule | q_at_margin |" in text
    assert "25.0 (+25.0) / 1.0" in text
    assert "Bad candidates" not in text
