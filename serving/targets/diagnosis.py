"""Why a version's pods do not serve, in a sentence: what `kubectl describe` would have shown.

Containers say how they ended in their pod's status (`terminationMessagePolicy`), so nobody needs
the right to read logs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from serving.cluster import Object

_LONGEST = 300
_END = 120
_FAILING = ("CrashLoopBackOff", "Error", "OOMKilled", "StartError", "RunContainerError")
_STARTING = ("PodInitializing", "ContainerCreating")
_NEXT: Mapping[str, str] = {
    "Insufficient": "lower hardware.cpu, memory or count, or add nodes",
    "persistentvolumeclaim": "create the claim, or name another in target.kserve.storage",
    "ImagePull": "is target.kserve.images right, and may the nodes pull from there?",
    "InvalidImageName": "correct target.kserve.images",
    "OOMKilled": "raise hardware.memory",
}
"""What a person can do, by a word of the reason."""


def sentence(pods: Iterable[Object]) -> str:
    """Return why a version's pods do not serve; empty where their status has no reason."""
    staying = (pod for pod in pods if "deletionTimestamp" not in pod["metadata"])
    found = [reason for pod in staying if (reason := next(_of(pod), ""))]
    if not found:
        return ""
    steps = [step for word, step in _NEXT.items() if word in found[0]]
    others = f" (and {len(found) - 1} more pods)" if len(found) > 1 else ""
    return "; ".join([found[0], *steps[:1]]) + others


def replaced(pods: Iterable[Object]) -> bool:
    """Return whether pods of a version that served were taken away, and others start.

    An engine that crashes starts again in its pod, and is counted there; a pod that was deleted or
    evicted has a successor that never started before.
    """
    return any("deletionTimestamp" in pod["metadata"] or _is_new(pod) for pod in pods)


def _is_new(pod: Object) -> bool:
    status = pod.get("status", {})
    ready = {"type": "Ready", "status": "True"}.items()
    starts = not any(ready <= each.items() for each in status.get("conditions", []))
    return starts and not any(c.get("restartCount") for c in status.get("containerStatuses", []))


def warning(events: Iterable[Object], service: str) -> str:
    """Return the newest warning about a version; empty where there is none.

    Where there is no pod yet, or it cannot mount what it needs, no status says why.

    Args:
        events: Of the namespace.
        service: The version: names of what is made for it begin so.
    """
    own = [e for e in events if f"{e['involvedObject'].get('name')}-".startswith(f"{service}-")]
    if not own:
        return ""
    newest = max(own, key=_seen_at)
    about = newest["involvedObject"]
    told = f"{newest.get('reason', '')}: {_short(newest.get('message', ''))}"
    return f"{about.get('kind', 'object')} {about['name']}: {told}"


def _of(pod: Object) -> Iterator[str]:
    """Yield what is wrong with one pod, the most telling first."""
    name, status = pod["metadata"]["name"], pod.get("status", {})
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield f"pod {name}: not scheduled: {_unscheduled(pod, condition.get('message', ''))}"
    for kind in ("initContainerStatuses", "containerStatuses"):
        for each in status.get(kind, []):
            yield from (f"pod {name}: {reason}" for reason in _of_container(each))
    if status.get("phase") == "Failed":
        told = status.get("message") or status.get("reason", "")
        yield f"pod {name}: failed: {_short(told)}"


def _unscheduled(pod: Object, message: str) -> str:
    """Return the scheduler's first sentence, which has the reasons; the rest is of preemption."""
    told = _short(message.partition(". ")[0].rstrip("."))
    if "Insufficient" not in told:
        return told
    asked = [
        f"{amount} {resource}"
        for container in pod.get("spec", {}).get("containers", [])
        for resource, amount in container.get("resources", {}).get("requests", {}).items()
    ]
    return f"{told}; it asks for {', '.join(asked)}"


def _of_container(status: Object) -> Iterator[str]:
    name, state = status["name"], status.get("state", {})
    last = status.get("lastState", {}).get("terminated")
    if waiting := state.get("waiting"):
        reason = waiting.get("reason", "")
        if reason in _FAILING and last:
            yield f"{name} ended with {_how(last)}"
        elif reason not in _STARTING:
            told = _short(waiting.get("message", ""))
            yield f"{name}: {reason}" + (f": {told}" if told else "")
        elif last:
            yield f"{name} is started again, it ended with {_how(last)}"
    elif (ended := state.get("terminated")) and ended.get("exitCode"):
        yield f"{name} ended with {_how(ended)}"
    elif state.get("running") is not None and last and not status.get("ready"):
        yield f"{name} was started again, it ended with {_how(last)}"


def _how(ended: Object) -> str:
    reason, said = ended.get("reason", ""), _said(ended.get("message", ""))
    code = f"exit code {ended.get('exitCode')}"
    if reason not in ("", "Error"):
        code += f" ({reason})"
    return f"{code}: {said}" if said else code


def _said(text: str) -> str:
    """Return the last error that a container wrote, with the indented lines that belong to it."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    errors = [n for n, line in enumerate(lines) if line.lower().startswith(("error", "fatal"))]
    if not errors:
        return _short(lines[-1]) if lines else ""
    first, *rest = lines[errors[-1] :]
    more = []
    for line in rest:
        if not line.startswith(" "):
            break
        more.append(line.strip())
    return _short("; ".join([first.removeprefix("error: "), *more]))


def _seen_at(event: Object) -> str:
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return max(str(each) for each in (*times, "") if each is not None)


def _short(text: str) -> str:
    """Return a text on one line; of a long one, what is in the middle goes: causes come last."""
    text = " ".join(text.split())
    if len(text) <= _LONGEST:
        return text
    return f"{text[: _LONGEST - _END]} … {text[-_END:]}"
