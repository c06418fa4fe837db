"""Who is the stable version, asked at the moment it matters; and what lost, and what did not."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from penstock.core.errors import ConfigurationError, Conflict
from serving import controller as acting
from serving.controller import FileLog
from serving.kserve.facts import Facts
from serving.kserve.traffic import LlmTraffic, RouteTraffic
from serving.rollout.decide import Stay
from serving.rollout.record import first_record
from tests.fakes.cluster import MemoryCluster
from tests.fakes.world import CANDIDATE, NAME, STABLE
from tests.unit.serving.rollout.stage import GOOD, POLICY, Stage


def test_a_candidate_is_not_the_stable_version_before_it_is_promoted(tmp_path: Path) -> None:
    stage = Stage(tmp_path, GOOD)
    assert acting.stable_of(MemoryCluster(), NAME) == ""
    stage.run(until=lambda r: r.weight == 50)
    assert acting.stable_of(stage.cluster, NAME) == STABLE
    stage.run(until=lambda r: r.phase == "soak")
    assert stage.weights == {CANDIDATE: 100, STABLE: 0}
    assert acting.stable_of(stage.cluster, NAME) == STABLE
    stage.run()
    assert acting.stable_of(stage.cluster, NAME) == CANDIDATE


def test_what_took_over_meanwhile_is_not_replaced_by_what_was_deleted(tmp_path: Path) -> None:
    """A third version was compared with the first; until it was uploaded the second took over."""
    stage = Stage(tmp_path, GOOD)
    late = first_record("m-v3", acting.stable_of(stage.cluster, NAME), POLICY, stage.world.now)
    stage.run()
    with pytest.raises(Conflict, match="m-v2 took over while m-v3 was prepared"):
        acting.begin(stage.cluster, stage.log, NAME, late, POLICY)
    assert stage.weights == {CANDIDATE: 100}
    assert stage.record.phase == "promoted"


def test_a_version_that_is_made_again_after_the_end_is_not_taken_for_what_lost(
    tmp_path: Path,
) -> None:
    """Somebody goes back between two looks."""
    stage = Stage(tmp_path, GOOD)
    stage.run()
    ended = stage.record.entered_at
    for later_s, stays in ((-1, False), (2, True)):
        stage.cluster.delete("InferenceService", STABLE)
        made = datetime.fromtimestamp(ended + later_s, UTC).isoformat()
        metadata = {"name": STABLE, "creationTimestamp": made}
        stage.cluster.create({"kind": "InferenceService", "metadata": metadata, "spec": {}})
        step = stage.controller.look(NAME)
        assert step is not None
        assert isinstance(step.action, Stay) is stays
        assert (stage.cluster.get("InferenceService", STABLE) is not None) is stays


def test_users_whom_another_mechanism_leads_are_not_led_by_this_one(tmp_path: Path) -> None:
    cluster, traffic = MemoryCluster(), RouteTraffic(Facts())
    cluster.create(LlmTraffic(Facts()).carrying(NAME, {STABLE: 100}))
    first = first_record(CANDIDATE, STABLE, POLICY, 0.0)
    for asked in (
        lambda: acting.stable_of(cluster, NAME, traffic),
        lambda: acting.begin(cluster, FileLog(tmp_path), NAME, first, POLICY, traffic=traffic),
    ):
        with pytest.raises(ConfigurationError, match="leads to something else") as refused:
            asked()
        assert "target.kserve.mode" in refused.value.hint


def test_a_route_that_somebody_extended_tells_nobody_who_serves() -> None:
    cluster, traffic = MemoryCluster(), RouteTraffic(Facts())
    route = traffic.carrying(NAME, {STABLE: 100})
    moved = {"type": "RequestRedirect", "requestRedirect": {"scheme": "https"}}
    route["spec"]["rules"].append({"matches": [{"path": {"value": "/old"}}], "filters": [moved]})
    cluster.create(route)
    with pytest.raises(ConfigurationError, match="different weights"):
        acting.stable_of(cluster, NAME, traffic)
