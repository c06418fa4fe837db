"""The sentence that names what is wrong with a version's pods."""

from __future__ import annotations

from typing import Any

import pytest

from serving.targets.diagnosis import replaced, sentence, warning


def _pod(*, requests: dict[str, str] | None = None, **status: Any) -> dict[str, Any]:
    engine = {"name": "engine", "resources": {"requests": requests or {}}}
    return {"metadata": {"name": "p"}, "spec": {"containers": [engine]}, "status": status}


def _container(name: str, state: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "state": state, **more}


def _unscheduled(message: str) -> dict[str, Any]:
    return {"type": "PodScheduled", "status": "False", "message": message}


def _ended(code: int, message: str = "", reason: str = "Error") -> dict[str, Any]:
    return {"terminated": {"reason": reason, "exitCode": code, "message": message}}


def _event(about: str, message: str, at: str, **more: Any) -> dict[str, Any]:
    involved = {"kind": "ReplicaSet", "name": about}
    return {
        "involvedObject": involved,
        "reason": "FailedCreate",
        "message": message,
        "lastTimestamp": at,
        **more,
    }


WAITING = {
    "waiting": {
        "reason": "ImagePullBackOff",
        "message": f"Back-off pulling image x:1: {'failed to resolve, ' * 40}x:1: not found",
    }
}
CRASHING = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
KILLED = _ended(137, reason="OOMKilled")
FULL = (
    "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 "
    "nodes are available: 1 Preemption is not helpful for scheduling."
)
REFUSED = """fetching
error: pvc://c/x: changed: model.safetensors
  publish the checkpoint again
"""
TRACEBACK = """Traceback (most recent call last):
  File "x.py", line 1, in <module>
ValueError: no such architecture
"""


@pytest.mark.parametrize(
    ("pod", "says"),
    [
        (
            _pod(conditions=[_unscheduled(FULL)], requests={"cpu": "100", "memory": "1Gi"}),
            "pod p: not scheduled: 0/1 nodes are available: 1 Insufficient cpu; it asks for 100 "
            "cpu, 1Gi memory; lower hardware.cpu, memory or count, or add nodes",
        ),
        (
            _pod(conditions=[_unscheduled('persistentvolumeclaim "c" not found. not found')]),
            'pod p: not scheduled: persistentvolumeclaim "c" not found; create the claim, or name '
            "another in target.kserve.storage",
        ),
        (
            _pod(
                initContainerStatuses=[_container("verify", _ended(5, REFUSED))],
                containerStatuses=[
                    _container("engine", {"waiting": {"reason": "PodInitializing"}})
                ],
            ),
            "pod p: verify ended with exit code 5: pvc://c/x: changed: model.safetensors; publish "
            "the checkpoint again",
        ),
        (
            _pod(
                initContainerStatuses=[
                    _container("verify", CRASHING, lastState=_ended(5, REFUSED))
                ],
            ),
            "pod p: verify ended with exit code 5: pvc://c/x: changed: model.safetensors; publish "
            "the checkpoint again",
        ),
        (
            _pod(containerStatuses=[_container("engine", _ended(1, TRACEBACK))]),
            "pod p: engine ended with exit code 1: ValueError: no such architecture",
        ),
        (
            _pod(containerStatuses=[_container("engine", CRASHING, lastState=KILLED)]),
            "pod p: engine ended with exit code 137 (OOMKilled); raise hardware.memory",
        ),
        (
            _pod(containerStatuses=[_container("engine", {"running": {}}, lastState=KILLED)]),
            "pod p: engine was started again, it ended with exit code 137 (OOMKilled); raise "
            "hardware.memory",
        ),
        (
            _pod(
                containerStatuses=[
                    _container(
                        "engine",
                        {"waiting": {"reason": "CreateContainerConfigError", "message": "no key"}},
                    )
                ]
            ),
            "pod p: engine: CreateContainerConfigError: no key",
        ),
        (_pod(phase="Failed", reason="Evicted"), "pod p: failed: Evicted"),
        (_pod(containerStatuses=[_container("engine", {"running": {}}, ready=True)]), ""),
        (_pod(containerStatuses=[_container("e", {"waiting": {"reason": "PodInitializing"}})]), ""),
        (
            _pod(
                containerStatuses=[
                    _container("engine", {"running": {}}, ready=True, lastState=KILLED)
                ]
            ),
            "",
        ),
    ],
)
def test_what_is_wrong_is_named(pod: dict[str, Any], says: str) -> None:
    assert sentence([pod]) == says


def test_of_a_long_message_the_end_is_kept_it_has_the_cause() -> None:
    says = sentence([_pod(containerStatuses=[_container("engine", WAITING)])])
    assert says.startswith("pod p: engine: ImagePullBackOff: Back-off pulling image x:1: failed")
    assert "x:1: not found; is target.kserve.images right" in says
    assert len(says) < 450


def test_one_pod_speaks_for_all_that_stay() -> None:
    pods = [_pod(phase="Failed", reason="Evicted"), _pod(phase="Failed", reason="Evicted")]
    assert sentence(pods) == "pod p: failed: Evicted (and 1 more pods)"
    ending = {**pods[1], "metadata": {"name": "q", "deletionTimestamp": "now"}}
    assert sentence([pods[0], ending]) == "pod p: failed: Evicted"
    assert sentence([]) == ""


def test_without_a_pod_the_newest_warning_about_the_version_tells() -> None:
    events = [
        _event("m-v2-predictor-5b6", "no RuntimeClass", "2026-11-28T17:00:02Z"),
        _event("m-v2-predictor-5b6", "out of quota", "2026-11-28T17:00:01Z"),
        _event("m-v1-predictor-5b6", "another version's", "2026-11-28T17:00:09Z"),
        _event("m-v22", "another version's, too", "2026-11-28T17:00:09Z"),
    ]
    said = "ReplicaSet m-v2-predictor-5b6: FailedCreate: no RuntimeClass"
    assert warning(events, "m-v2") == said
    again = {"lastObservedTime": "2026-11-28T17:00:03.000000Z"}
    whole = _event("m-v2", "no runtime", "", lastTimestamp=None, series=again)
    assert warning([*events, whole], "m-v2") == "ReplicaSet m-v2: FailedCreate: no runtime"
    assert warning(events, "m-v3") == ""


def _state(ready: str, restarts: int) -> dict[str, Any]:
    return _pod(
        conditions=[{"type": "Ready", "status": ready}],
        containerStatuses=[_container("engine", {}, restartCount=restarts)],
    )


@pytest.mark.parametrize(
    ("pods", "found"),
    [
        ([_state("True", 0)], False),
        ([_state("True", 3)], False),
        ([_state("False", 1)], False),  # it crashed
        ([_state("False", 0)], True),  # a successor
        ([_pod(phase="Pending")], True),
        ([_state("True", 0) | {"metadata": {"name": "p", "deletionTimestamp": "now"}}], True),
        ([], False),
    ],
)
def test_a_pod_that_was_taken_away_is_told_from_one_that_crashed(
    pods: list[Any], found: bool
) -> None:
    assert replaced(pods) is found
