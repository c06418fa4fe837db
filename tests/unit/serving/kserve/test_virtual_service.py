"""A VirtualService leads who names a version to it, everybody else by shares, and says so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.cluster import Object
from serving.headers import SERVICE, WEIGHTS
from serving.kserve.facts import Facts
from serving.kserve.virtual_service import carries, observed, virtual_service, weights_of
from tests.fakes.istio import answered

FACTS = Facts()
BOTH = {"m-v1": 100, "m-v2": 0}


def said(obj: Object, headers: dict[str, str]) -> str | None:
    """Return by which weights an answer says that it was routed."""
    return answered(obj, headers)[1].get(WEIGHTS.lower())


def test_a_version_at_nothing_is_reached_by_its_name_alone() -> None:
    made = virtual_service("m", BOTH, FACTS)
    assert answered(made, {SERVICE: "m-v2"}) == ({"m-v2-predictor": 100}, {})
    assert answered(made, {SERVICE: "m-v1"}) == ({"m-v1-predictor": 100}, {})
    assert answered(made, {})[0] == {"m-v1-predictor": 100, "m-v2-predictor": 0}
    assert said(made, {}) == "m-v1=100,m-v2=0"


def test_shares_count_once_an_answer_says_them() -> None:
    made = virtual_service("m", {"m-v1": 75, "m-v2": 25}, FACTS)
    before = virtual_service("m", BOTH, FACTS)
    assert observed(made, said(made, {})) == {"m-v1": 75, "m-v2": 25}
    assert observed(made, said(before, {})) == {}
    assert observed(made, None) == {}


@given(
    st.dictionaries(
        st.integers(1, 99).map("m-v{}".format), st.integers(0, 100), min_size=1, max_size=4
    )
)
def test_shares_come_out_as_they_went_in(weights: dict[str, int]) -> None:
    assert weights_of(virtual_service("m", weights, FACTS)) == weights


@pytest.mark.parametrize("host", ["elsewhere.example", "m-v1-kserve-workload-svc.models.svc"])
def test_somebody_elses_is_none_of_ours(host: str) -> None:
    made = virtual_service("m", BOTH, FACTS)
    assert carries(made)
    made["spec"]["http"][-1]["route"][0]["destination"]["host"] = host
    assert not carries(made)


def test_rules_that_disagree_tell_nothing() -> None:
    made = virtual_service("m", BOTH, FACTS)
    other = virtual_service("m", {"m-v1": 100}, FACTS)["spec"]["http"][-1]
    made["spec"]["http"].append(other)
    assert weights_of(made) == {}
