"""Why a version's pods do not serve, in a sentence: what `kubectl describe` would have shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from serving.cluster import Object

_LONGEST = 300
_FAILING = ("CrashLoopBackOff", "Error", "OOMKilled", "StartError", "RunContainerError")


class Trouble(NamedTuple):
    """What keeps one pod from serving."""

    pod: str
    reason: str
    container: str = ""
    """Whose log tells more; empty where none was written."""

    previous: bool = False
    """Whether that is the log of the container before the current one."""


def troubles(pods: Iterable[Object]) -> Iterator[Trouble]:
    """Yield what is wrong with pods, the most telling first per pod; nothing for healthy ones."""
    for pod in pods:
        found = next(_of(pod), None)
        if found is not None:
            yield found


def sentence(pods: Iterable[Object], log: Callable[[Trouble], str]) -> str:
    """Return why pods do not serve; empty where nothing is wrong with them, or there are none.

    Args:
        pods: Of one version.
        log: Returns the end of a container's log.
    """
    found = list(troubles(pods))
    if not found:
        return ""
    first = found[0]
    said = _last_line(log(first)) if first.container else ""
    others = f" (and {len(found) - 1} more pods)" if len(found) > 1 else ""
    return f"pod {first.pod}: {first.reason}" + (f": {said}" if said else "") + others


def _of(pod: Object) -> Iterator[Trouble]:
    name, status = pod["metadata"]["name"], pod.get("status", {})
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield Trouble(name, f"not scheduled: {_short(condition.get('message', ''))}")
    for kind in ("initContainerStatuses", "containerStatuses"):
        for each in status.get(kind, []):
            yield from _of_container(name, each)
    if status.get("phase") == "Failed":
        yield Trouble(name, f"failed: {_short(status.get('message') or status.get('reason', ''))}")


def _of_container(pod: str, status: Object) -> Iterator[Trouble]:
    name, state = status["name"], status.get("state", {})
    last = status.get("lastState", {}).get("terminated")
    if waiting := state.get("waiting"):
        reason = waiting.get("reason", "")
        if reason in _FAILING and last:
            yield Trouble(pod, f"{name} ended with {_how(last)}", name, previous=True)
        elif reason not in ("PodInitializing", "ContainerCreating"):
            told = _short(waiting.get("message", ""))
            yield Trouble(pod, f"{name}: {reason}" + (f": {told}" if told else ""))
    elif (ended := state.get("terminated")) and ended.get("exitCode"):
        yield Trouble(pod, f"{name} ended with {_how(ended)}", name)
    elif last and not status.get("ready"):
        yield Trouble(pod, f"{name} was restarted, it ended with {_how(last)}", name, previous=True)


def _how(ended: Object) -> str:
    reason = ended.get("reason", "")
    code = f"exit code {ended.get('exitCode')}"
    return f"{code} ({reason})" if reason not in ("", "Error") else code


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    wanted = [line for line in lines if line.lower().startswith(("error", "fatal"))]
    return _short((wanted or lines or [""])[-1])


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
