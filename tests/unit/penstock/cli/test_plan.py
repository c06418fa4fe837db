from collections.abc import Mapping
from typing import Any

import pytest

from penstock.cli import plan_view
from penstock.cli.plan_answer import load_of
from penstock.cli.plan_diff import Running, compare, differences
from penstock.cli.plan_view import Answer
from penstock.core.errors import ConfigurationError
from penstock.core.identity import Digest
from penstock.core.spec import ModelSpec
from serving.gpus.surge import Beside, Decision, Refuse
from serving.kserve.facts import Facts
from serving.kserve.traffic import LlmTraffic, RouteTraffic
from serving.manifests import Release
from serving.sizing.memory import GIB, Item
from serving.sizing.resolve import wish_of
from serving.sizing.wish import Rejected
from serving.traffic import LocalTraffic, Traffic
from tests.fakes.cluster import MemoryCluster

ANSWER = Answer(
    name="acme",
    source="hf://acme/chat@0",
    model="acme: llama, 8 B parameters",
    engine="vllm",
    precision="bf16",
    devices="1 x nvidia-l4",
    items=(
        Item("weights", 12 * GIB, "12 GiB", "headers"),
        Item("activations", 1 * GIB, "1 GiB", "vllm"),
    ),
    device=24 * GIB,
    capacity=22 * GIB,
    room=9 * GIB,
    context=8192,
    concurrency=3,
    reasons=("fits: vllm on 1 x nvidia-l4",),
    settings="serving: {context: 8192}",
    warnings=("no NVLink",),
    rejected=(Rejected("fp8, tp 1", "fits too"),),
    sequence=3 * GIB,
    token=131072,
    share=0.92,
)


def _spec(**more: Any) -> ModelSpec:
    return ModelSpec.model_validate({"name": "acme", "source": "hf://acme/chat", **more})


def test_a_person_reads_choice_memory_and_context() -> None:
    told = "\n".join(plan_view.lines(ANSWER, explain=False))
    assert "fits: vllm on 1 x nvidia-l4" in told
    assert "8,192 tokens x 3 at once" in told
    assert "! no NVLink" in told
    assert "fits too" not in told
    assert "arithmetic" not in told


def test_explained_it_shows_every_term_with_its_source_and_what_was_rejected() -> None:
    told = list(plan_view.lines(ANSWER, explain=True))
    for item in ANSWER.items:
        at = next(i for i, line in enumerate(told) if line.split()[:1] == [item.name])
        assert f"{item.bytes / GIB:.2f} GiB" in told[at]
        assert item.formula in told[at]
        assert told[at + 1].strip() == item.source
    assert any("fp8, tp 1: fits too" in line for line in told)
    assert any("131,072 bytes" in line for line in told)


def test_the_bar_shows_shares() -> None:
    assert (
        plan_view.bar((("#", 1), ("+", 1), ("=", 1)), 4)
        == f"[{'#' * 12}{'+' * 12}{'=' * 12}{'.' * 12}]"
    )
    assert plan_view.bar((("#", 0.001), ("+", 0)), 4) == f"[#{'.' * 47}]"
    assert len(plan_view.bar((("#", 9),), 4)) == 50


@pytest.mark.parametrize(
    ("running", "told"),
    [
        (Running(""), "nothing runs under this name"),
        (Running("acme-v1"), "acme-v1 runs so already"),
        (Running("acme-v1", ("~ a: 1 -> 2",)), "1 change to what runs (acme-v1)"),
        (Running("acme-v1", devices="2 are free"), "  devices   2 are free"),
        (Running("", unknown="no answer"), "what runs is not known: no answer"),
        (Running("acme-v1", tuple("abcdefg")), "and 2 more: --explain"),
    ],
)
def test_what_runs_is_told(running: Running, told: str) -> None:
    from dataclasses import replace

    lines = plan_view.lines(replace(ANSWER, running=running), explain=False)
    assert any(told in line for line in lines)


def test_only_what_we_write_is_compared() -> None:
    running = {"spec": {"minReplicas": 1, "args": ["--a=1", "--b"], "defaulted": True}}
    planned = {"spec": {"minReplicas": 2, "args": ["--a=1"], "shm": {"size": "1Gi"}}}
    assert list(differences(running, planned)) == [
        "~ minReplicas: 1 -> 2",
        "~ args: --a=1 --b -> --a=1",
        "+ shm.size: 1Gi",
    ]
    assert list(differences(planned, planned)) == []


class _Target:
    """As much of a target as a comparison needs."""

    began = True

    def __init__(self, cluster: MemoryCluster, traffic: Traffic) -> None:
        self.cluster, self.traffic = cluster, traffic
        self.surges: Decision = Beside("2 are free")

    def surge(self, model: ModelSpec, service: str, stable: str) -> Decision:
        assert (service, stable) == ("the next version", "acme-v1")
        return self.surges


ON_CLUSTER = {
    "hardware": {"accelerator": "nvidia-l40s"},
    "runtime": "vllm",
    "target": {"kserve": {}},
}


def _serving(traffic: Traffic, spec: ModelSpec, weights: Mapping[str, int]) -> Any:
    cluster = MemoryCluster()
    for service in weights:
        version = int(service.rpartition("-v")[2])
        root = Digest.of(service.encode())
        release = Release(version, f"s3://models/{root.hex}", root)
        cluster.create(traffic.version(spec, release))
    cluster.create(traffic.carrying("acme", weights))
    return _Target(cluster, traffic)


@pytest.mark.parametrize(
    ("traffic", "more"),
    [
        (LocalTraffic(), {}),
        (RouteTraffic(Facts()), ON_CLUSTER),
        (LlmTraffic(Facts()), {"target": {"kserve": {}}}),
    ],
    ids=["local", "route", "llmisvc"],
)
def test_the_version_with_most_traffic_is_compared_the_checkpoint_aside(
    traffic: Traffic, more: dict[str, Any]
) -> None:
    target = _serving(traffic, _spec(**more), {"acme-v1": 90, "acme-v2": 10})
    told = "2 are free" if "hardware" in more else ""
    assert compare(target, _spec(**more)) == Running("acme-v1", devices=told)
    found = compare(target, _spec(**more, replicas=3))
    assert any(each.endswith("eplicas: 1 -> 3") for each in found.changes)


def test_devices_that_would_not_be_found_are_told_before_anything_is_pulled() -> None:
    target = _serving(RouteTraffic(Facts()), _spec(**ON_CLUSTER), {"acme-v1": 100})
    target.surges = Refuse("no device is free", "rollout.surge: borrow\n  or replicas: 1")
    found = compare(target, _spec(**ON_CLUSTER))
    assert found.devices == "no device is free: it would be refused; rollout.surge: borrow"


def test_nothing_runs_where_there_is_no_route() -> None:
    target: Any = _Target(MemoryCluster(), LocalTraffic())
    assert compare(target, _spec()) == Running("")


def test_a_load_is_read() -> None:
    assert load_of(None) is None
    found = load_of("2.5:1000:200")
    assert found is not None
    assert (found.per_s, found.prompt, found.answer) == (2.5, 1000, 200)


@pytest.mark.parametrize("text", ["5", "5:1000", "a:b:c", "0:10:10", "5:0:10", "-1:1:1"])
def test_a_load_that_says_nothing_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="RPS:PROMPT:ANSWER"):
        load_of(text)


def test_wishes_are_those_of_the_spec() -> None:
    spec = _spec(serving={"context": 4096, "concurrency": 8, "kv_cache": "fp8"})
    wish = wish_of(spec, None)
    assert (wish.context, wish.concurrency, wish.kv_cache) == (4096, 8, "fp8")
    assert wish_of(_spec(), None).context is None
