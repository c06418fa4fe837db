"""The sentence that names what is wrong with a version's pods."""

from __future__ import annotations

from typing import Any

import pytest

from serving.targets.diagnosis import Trouble, sentence


def _pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "status": status}


def _container(name: str, state: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "state": state, **more}


WAITING = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image x:1"}}
CRASHING = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
KILLED = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
UNSCHEDULED = {
    "type": "PodScheduled",
    "status": "False",
    "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
}


@pytest.mark.parametrize(
    ("pod", "says"),
    [
        (
            _pod(conditions=[UNSCHEDULED]),
            "pod p: not scheduled: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
        ),
        (
            _pod(containerStatuses=[_container("engine", WAITING)]),
            "pod p: engine: ImagePullBackOff: Back-off pulling image x:1",
        ),
        (
            _pod(
                initContainerStatuses=[
                    _container("verify", {"terminated": {"reason": "Error", "exitCode": 5}})
                ],
                containerStatuses=[
                    _container("engine", {"waiting": {"reason": "PodInitializing"}})
                ],
            ),
            "pod p: verify ended with exit code 5: error: of verify",
        ),
        (
            _pod(containerStatuses=[_container("engine", CRASHING, lastState=KILLED)]),
            "pod p: engine ended with exit code 137 (OOMKilled): error: of engine, before",
        ),
        (
            _pod(containerStatuses=[_container("engine", {"running": {}}, lastState=KILLED)]),
            "pod p: engine was restarted, it ended with exit code 137 (OOMKilled): "
            "error: of engine, before",
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
    def log(trouble: Trouble) -> str:
        before = ", before" if trouble.previous else ""
        return f"starting\nerror: of {trouble.container}{before}\nbye\n"

    assert sentence([pod], log) == says


def test_one_pod_speaks_for_all() -> None:
    pods = [_pod(conditions=[UNSCHEDULED]), _pod(conditions=[UNSCHEDULED])]
    assert sentence(pods, lambda _: "").endswith("(and 1 more pods)")
    assert sentence([], lambda _: "") == ""
