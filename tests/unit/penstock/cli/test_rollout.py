"""`penstock rollout`, over a home in which rollouts began, went on and ended."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from click.testing import CliRunner, Result
from rich.console import Console

from penstock.cli import rollout_view as view
from penstock.cli import rollout_watch as watching
from penstock.cli.app import app
from penstock.core.errors import LifecycleError
from penstock.core.settings import Settings
from penstock.core.spec import Rollout
from serving import controller as acting
from serving import lease
from serving.local.objects import SqliteCluster
from serving.rollout import events
from serving.rollout.judge import Judge
from serving.rollout.record import Command, Doubt, Phase, Record, first_record
from serving.targets.local import LocalTarget
from tests.fakes.world import CANDIDATE, NAME, STABLE, StreamWorld, services

POLICY = Rollout(soak_s=2.0)
GOOD, BAD = (0.0, 0.0), (0.05, 0.05)


class Stage:
    """A home with a rollout of `m`, and the pipeline that looks after it."""

    owner = "run-1"

    def __init__(self, home: Path, wrong: tuple[float, float] = GOOD) -> None:
        self.cluster = SqliteCluster(home / "cluster" / "cluster.db")
        services(self.cluster)
        self.log = acting.FileLog(home / "cluster" / "rollouts")
        self.world = StreamWorld(self.cluster, wrong, pairs=600, requests=4000)  # soon proven
        self.begin()

    def begin(self, candidate: str = CANDIDATE) -> None:
        self.world.now = time.time()
        first = first_record(candidate, STABLE, POLICY, self.world.now)
        acting.begin(self.cluster, self.log, NAME, first, POLICY)
        self.controller = acting.Controller(self.cluster, self.log, self.world, self.owner)

    @property
    def record(self) -> Record:
        obj = self.cluster.get("HTTPRoute", NAME)
        assert obj is not None
        found = acting.record_of(obj)
        assert found is not None
        return found

    def run(self, until: Callable[[Record], bool] = lambda r: r.over) -> None:
        for _ in range(200):
            self.look()
            if until(self.record):
                return
        raise AssertionError(f"still {self.record.phase}: {self.record.reason}")

    def look(self) -> None:
        self.controller.look(NAME)
        self.world.now += 1.0


@pytest.fixture
def stage(home: Path) -> Stage:
    return Stage(home)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path))
    monkeypatch.setenv("PENSTOCK_GATEWAY_PORT", "1")  # nobody listens there
    return tmp_path


def call(*words: object) -> Result:
    return CliRunner().invoke(app, ["rollout", *[str(word) for word in words]])


def told(*words: object) -> str:
    result = call(*words)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def document(*words: object) -> Any:
    return json.loads(told(*words, "--output", "json"))


def refused(*words: object) -> LifecycleError:
    result = call(*words)
    assert isinstance(result.exception, LifecycleError), result.output
    return result.exception


def test_a_home_without_rollouts(home: Path) -> None:
    assert "no rollouts yet; next: penstock run" in told("status")
    assert "no rollouts yet; next: penstock run" in told("history")
    assert document("status") == document("history") == {"rollouts": []}
    assert "there is none yet" in str(refused("watch", "m"))
    assert not (home / "cluster").exists()


@pytest.mark.parametrize(
    "words",
    [
        *[(w, "x") for w in "status watch pause resume promote rollback history".split()],
        ("certificate", "write", "x"),
    ],
)
def test_an_unknown_name_is_told_which_there_are(stage: Stage, words: tuple[str, ...]) -> None:
    problem = refused(*words)
    assert problem.exit_code == 2
    assert str(problem) == "no rollout of 'x' there; there are: m"


def test_status_tells_evidence_deadline_and_owner(stage: Stage) -> None:
    stage.run(lambda r: r.phase == "shadow")
    stage.look()
    text = told("status", NAME)
    for said in (
        "m: shadow, m-v2 against m-v1\n",
        "weights    m-v1 100 %, m-v2 0 %; routed: not known, the gateway does not answer",
        "600 pairs, 0 live requests",
        "over all metrics, 100 demand it",
        " of 20",
        "then it is held",
        "owner      run-1",
        "next       penstock rollout watch m",
    ):
        assert said in text, said
    body = document("status", NAME)
    assert document("status") == {
        "rollouts": [body | {"left_s": pytest.approx(body["left_s"], abs=5)}]
    }
    assert (body["phase"], body["setting"], body["pairs"]) == ("shadow", "shadow", 600)
    assert body["bounds"] == {"rollback": 100.0, "proof": 20.0}
    assert set(body["evidence"]) == set(POLICY.metrics)
    assert (body["weights"], body["routed"]) == ({CANDIDATE: 0, STABLE: 100}, None)
    assert 3000 < body["left_s"] < 3700


def test_status_on_the_ramp_asks_live_metrics_for_proof(stage: Stage) -> None:
    stage.run(lambda r: r.phase == "ramp" and r.evidence.requests > 0)
    evidence = document("status", NAME)["evidence"]
    assert evidence["error_rate"]["proof"] > 0
    assert evidence["quality"]["proof"] is None  # users' answers are not scored
    assert "ramp 10 %" in told("status")


def test_status_when_it_is_over(stage: Stage) -> None:
    stage.run()
    text, body = told("status"), document("status", NAME)
    assert "m: promoted, m-v2 against m-v1" in text
    assert "time left" not in text
    assert (body["left_s"], body["weights"]) == (None, {CANDIDATE: 100})
    assert body["next"] == "penstock rollout certificate write m"


def test_every_state_has_a_next_step_and_most_a_deadline(stage: Stage) -> None:
    state = view.read(LocalTarget(Settings(home=Path(stage.log.folder).parents[1])), NAME)
    left = {}
    for phase in get_args(Phase):
        for held in get_args(Doubt):
            record = replace(state.record, phase=phase, held=held, held_at=state.now)
            other = replace(state, record=record, holder="run-1")
            assert view.next_step(other).startswith("penstock ")
            due = view.deadline(other)
            assert due is None or due.left_s > 0, (phase, held)
            if not held:
                left[phase] = due and due.then
    assert left["shadow"] == left["ramp"] == "it is held"
    assert (left["warmup"], left["soak"]) == ("it is rolled back", "it is promoted")
    assert left["promoted"] is left["rolled_back"] is left["rollback_blocked"] is None
    alone = replace(state, record=replace(state.record, phase="shadow"), holder="")
    assert "penstock controller" in view.next_step(alone)


def test_the_time_left_reads_well() -> None:
    assert [view.span(s) for s in (-3, 42.4, 725, 7080)] == ["0 s", "42 s", "12 min 5 s",
                                                              "1 h 58 min"]  # fmt: skip
    assert view.e_value(1e9) < math.inf


@pytest.mark.parametrize("asked", ["pause", "promote", "rollback"])
def test_a_request_is_written_down_and_its_owner_named(stage: Stage, asked: Command) -> None:
    stage.run(lambda r: r.phase == "shadow")
    text = told(asked, NAME)
    assert f"m: {asked} is written down" in text
    assert "run-1 does it; next: penstock rollout watch m" in text
    assert stage.record.command == asked
    assert f"asked for  {asked}, not done yet" in told("status")
    stage.look()
    stage.look()
    record = stage.record
    done = {"pause": record.held, "promote": record.phase, "rollback": record.phase}
    assert done[asked] == {"pause": "paused", "promote": "soak", "rollback": "rolled_back"}[asked]


def test_nobody_does_it_when_nobody_holds_the_lease(stage: Stage) -> None:
    stage.run(lambda r: r.phase == "shadow")
    lease.release(stage.cluster, NAME, stage.owner)
    assert "so nothing happens; next: penstock controller" in told("pause", NAME)
    assert "owner      nobody" in told("status")


def test_pause_and_resume_refuse_what_makes_no_sense(stage: Stage) -> None:
    stage.run(lambda r: r.phase == "shadow")
    assert "it is not held" in str(refused("resume", NAME))
    told("pause", NAME)
    stage.look()
    problem = refused("pause", NAME)
    assert (problem.exit_code, problem.hint) == (2, "penstock rollout resume m")
    assert "it goes on" in told("resume", NAME)
    stage.look()
    assert stage.record.held == ""


def test_nothing_is_asked_of_a_rollout_that_is_over(stage: Stage) -> None:
    stage.run(lambda r: r.phase == "shadow")
    told("rollback", NAME)
    stage.look()
    assert "it is being rolled back: a person asked" in str(refused("promote", NAME))
    stage.run()
    problem = refused("promote", NAME)
    assert "no rollout goes on; the last one was rolled back" in str(problem)
    assert (problem.exit_code, problem.hint) == (2, "penstock rollout history m")


def test_history_has_every_rollout_and_nothing_uncommitted(home: Path) -> None:
    stage = Stage(home, BAD)
    stage.run()
    stage.look()
    stage.begin("m-v3")
    stage.log.append(NAME, events.line(stage.record.chain, events.changed(owner="late")))
    stage.log.append(NAME, events.line("", events.started(replace(stage.record, seq=0, chain=""))))
    text = told("history", NAME)
    assert text == told("history")
    assert text.index("m-v3 against m-v1: unfinished") < text.index("m-v2 against m-v1: rolled")
    found = document("history")["rollouts"]
    assert [each["outcome"] for each in found[-2:]] == ["unfinished", "rolled_back"]
    assert "error_rate is worse in shadow" in found[-1]["reason"]
    assert found[-1]["seconds"] > 1
    assert (found[-2]["events"], found[-1]["candidate"]) == (1, CANDIDATE)


def test_history_outlives_the_route(stage: Stage) -> None:
    stage.run()
    stage.cluster.delete("HTTPRoute", NAME)
    assert document("history", NAME)["rollouts"][0]["outcome"] == "promoted"
    assert "no rollouts yet" in told("status")


def test_of_two_writers_the_one_who_was_followed_counts() -> None:
    start, kept = events.started(_first()), events.changed(owner="a")
    chain = _first().linked(start).chain
    after = _first().linked(start).linked(kept).chain
    lines = [
        events.line("", start),
        events.line(chain, kept),
        events.line(chain, events.changed(owner="lost")),
        events.line(after, events.changed(owner="b")),
        events.line(after, events.changed(owner="c")),
        events.line("gone", events.changed(owner="d")),
    ]
    assert events.chains(lines) == [[start, kept, events.changed(owner="c")]]
    assert events.chains(lines, after) == [[start, kept]]
    assert events.chains([]) == []


def _first() -> Record:
    return Record(candidate=CANDIDATE, stable=STABLE, policy="", evidence=Judge(POLICY).start())


def test_a_certificate_is_written_and_holds(stage: Stage, tmp_path: Path) -> None:
    stage.run(lambda r: r.phase == "shadow")
    told("pause", NAME)
    stage.look()
    told("resume", NAME)
    stage.run()
    path = tmp_path / "proof.json"
    assert f"verify {path}" in told("certificate", "write", NAME, "--out", path)
    text = told("certificate", "verify", path)
    for said in (
        "m-v2 against m-v1, 20",
        "run-1 looks after it",
        "a person asks: pause",
        "held (paused): a person paused it",
        "goes on: a person resumed it",
        "stays: not proven yet: ",
        "ramp 10 %: proven in shadow",
        "e-values: rollback ",
        "proofs, 20 wanted: error_rate ",
        "lead to the same end: m-v2, promoted",
    ):
        assert said in text, said
    body = document("certificate", "verify", path)
    assert (body["holds"], body["phase"]) == (True, "promoted")
    proven = [d for d in body["decisions"] if "proven in shadow" in d["told"]]
    assert min(proven[0]["proofs"].values()) >= 20
    assert [d["at_s"] for d in body["decisions"]] == sorted(d["at_s"] for d in body["decisions"])


def test_a_certificate_that_was_changed_does_not_hold(stage: Stage, tmp_path: Path) -> None:
    stage.run()
    path = tmp_path / "proof.json"
    told("certificate", "write", NAME, "--out", path)
    body = json.loads(path.read_text())
    looks = [event for event in body["events"] if event["kind"] == "look"]
    looks[-1]["action"]["reason"] = "because"
    path.write_text(json.dumps(body))
    problem = refused("certificate", "verify", path, "--output", "json")
    assert (problem.exit_code, "does not hold" in str(problem)) == (5, True)
    looks[-1]["batch"]["pairs"]["latency"] = []
    path.write_text(json.dumps(body))
    assert refused("certificate", "verify", path).exit_code == 2


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{}", b"\xff", b'{"format": "x"}'])
def test_what_is_no_certificate(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "proof.json"
    if content is not None:
        path.write_bytes(content)
    assert refused("certificate", "verify", path).exit_code == 2


def test_a_certificate_needs_a_folder_to_lie_in(stage: Stage, tmp_path: Path) -> None:
    problem = refused("certificate", "write", NAME, "--out", tmp_path / "absent" / "proof.json")
    assert (problem.exit_code, "no such folder" in str(problem)) == (2, True)


def test_watch_ends_as_the_rollout_ended(home: Path) -> None:
    stage = Stage(home)
    stage.run()
    assert "promoted: proven live" in told("watch", NAME)
    lost = Stage(home / "other", BAD)
    lost.run()
    result = CliRunner(env={"PENSTOCK_HOME": str(home / "other")}).invoke(
        app, ["rollout", "watch", NAME]
    )
    assert isinstance(result.exception, LifecycleError)
    assert result.exception.exit_code == 4
    assert "m-v2 was rolled back: error_rate is worse in shadow" in str(result.exception)


def test_watching_tells_every_change_once(stage: Stage, home: Path) -> None:
    changes: list[str] = []
    looks = 0

    def wait(_seconds: float) -> None:
        nonlocal looks
        looks += 1
        stage.look()

    settings = Settings(home=home, gateway_port=1)
    last = watching.follow(
        lambda: view.read(LocalTarget(settings), NAME),
        lambda _state, new: changes.extend(new),
        wait=wait,
    )
    assert last.record.phase == "promoted"
    assert [line.split(" ", 1)[1].partition(":")[0] for line in changes] == [
        "deploying", "warmup", "shadow", "ramp 10 %", "ramp 25 %", "ramp 50 %", "soak 100 %",
        "promoted",
    ]  # fmt: skip
    assert looks > len(changes)


def test_the_terminal_shows_evidence_against_its_bounds(stage: Stage, home: Path) -> None:
    settings = Settings(home=home, gateway_port=1)
    out = io.StringIO()
    with watching.terminal(Console(file=out, force_terminal=True, width=120)) as show:
        stage.run(lambda r: r.phase == "shadow")
        for _ in range(3):
            stage.look()
            state = view.read(LocalTarget(settings), NAME)
            show(replace(state, routed={STABLE: 100}), [watching.change(state)])
    text = out.getvalue()
    for said in (
        "m: shadow",
        "worse, 1 to 100",
        "proof, 1 to 20",
        "█",
        "░",
        "1,800 pairs",
        "routed: 100 %",
        "time left",
        "owner      run-1",
        "the candidate is warm",
    ):
        assert said in text, said


def test_a_bar_is_full_at_the_bound() -> None:
    full = len(watching.bar(0.0, 100))
    drawn = [watching.bar(math.log(e), 100).count("█") for e in (0.1, 1, 10, 100, 1e9)]
    assert drawn == [0, 0, full // 2, full, full]


def test_ctrl_c_ends_only_the_watching(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_state: view.State, _changes: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watching, "lines", interrupted)
    problem = refused("watch", NAME)
    assert (problem.exit_code, "the rollout goes on" in str(problem)) == (130, True)
    assert not stage.record.over


def test_the_split_of_now_as_seldon_writes_it(stage: Stage) -> None:
    stage.run(until=lambda r: r.weight >= 10)
    result = CliRunner().invoke(app, ["rollout", "experiment", NAME])
    assert result.exit_code == 0, result.output
    made = yaml.safe_load(result.output)
    assert made["spec"]["default"] == STABLE
    shares = {each["name"]: each["weight"] for each in made["spec"]["candidates"]}
    assert shares == acting.weights(stage.record)
    missing = CliRunner().invoke(app, ["rollout", "experiment", "nobody"])
    assert isinstance(missing.exception, LifecycleError)
    assert "nobody is not served" in str(missing.exception)
