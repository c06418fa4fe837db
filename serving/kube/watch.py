"""Watching: a list, then a stream of changes, and a list again when the stream has a gap."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from penstock.core.errors import ServingError
from penstock.core.patience import wait_s
from serving.cluster import Object
from serving.kube.api import Api
from serving.kube.calls import Answer, Call, Target
from serving.kube.errors import Expired, Unreachable
from serving.kube.refusals import refusal

_SILENT_S = 90.0  # a server sends a bookmark about every minute; after this the line is dead


class Seen:
    """What a watcher has been told: decides what is news. No I/O."""

    def __init__(self, shape: Mapping[str, str]) -> None:
        self._shape = shape  # kind and apiVersion: lists of built-in kinds leave them out
        self._last: dict[tuple[str, str], Object] = {}
        self.version = ""
        """Where the stream goes on; empty when only a list can tell what is there."""

    def listed(self, objects: Iterable[Object], version: str) -> list[Object]:
        """Return what is new in a list, by name, and what has vanished since the last one."""
        now = {_key(obj): {**self._shape, **obj} for obj in objects}
        news = [_ended(obj) for key, obj in self._last.items() if key not in now]
        news += [
            obj
            for key, obj in sorted(now.items())
            if key not in self._last or not _same(obj, self._last[key])
        ]
        self._last, self.version = now, version
        return news

    def told(self, event: Mapping[str, Any]) -> Object | None:
        """Return the object if an event of the stream is news."""
        obj: Object = {**self._shape, **event["object"]}
        self.version = obj["metadata"]["resourceVersion"]
        if event["type"] == "BOOKMARK":
            return None
        if event["type"] == "DELETED":
            return _ended(obj) if self._last.pop(_key(obj), None) else None
        known = self._last.get(_key(obj))
        self._last[_key(obj)] = obj
        return None if known is not None and _same(obj, known) else obj


def watch(api: Api, target: Target, shape: Mapping[str, str], timeout_s: float) -> Iterator[Object]:
    """Yield what is there, then what changes, until `timeout_s` has passed.

    A connection that drops is opened again, as often as needed. What a gap has swallowed is found
    by listing again. When the server stays away, the watch ends at its time without an error: it
    is the next read that fails.
    """
    seen, failed, patience = Seen(shape), 0, api.patience
    deadline = patience.clock() + timeout_s
    yield from seen.listed(*api.list(target.call("list")))
    while (left_s := deadline - patience.clock()) > 0:
        after_s = 0.0
        try:
            if not seen.version:
                yield from seen.listed(*api.list(target.call("list"), patience.tries(left_s)))
            for obj in _changes(api, target, seen, deadline):
                failed = 0
                yield obj
        except Expired:
            seen.version = ""
        except Unreachable as problem:
            after_s = problem.after_s
        failed += 1  # every end before the deadline is too early
        pause_s = wait_s(failed, after_s=after_s, jitter=patience.jitter())
        patience.pause(max(0.0, min(pause_s, deadline - patience.clock())))


def _changes(api: Api, target: Target, seen: Seen, deadline: float) -> Iterator[Object]:
    def left_s() -> float:
        return min(_SILENT_S, deadline - api.patience.clock())

    call = target.call(
        "watch",
        query={
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": seen.version,
            "timeoutSeconds": str(max(1, round(deadline - api.patience.clock() + 0.5))),
        },
    )
    with api.stream(call, timeout_s=max(0.01, left_s())) as stream:
        for line in stream.lines(left_s):
            event = json.loads(line)
            if event["type"] == "ERROR":
                raise _broken(call, event["object"])
            obj = seen.told(event)
            if obj is not None:
                yield obj


def _broken(call: Call, status: Object) -> ServingError:
    """Return what a stream's last words mean: they are a status, as an answer's body is."""
    answer = Answer(int(status.get("code", 500)), {}, json.dumps(status).encode())
    return refusal(call, answer) or Unreachable(f"{call}: {status}")


def _ended(obj: Object) -> Object:
    """Return the object as deleted; the server sends no timestamp of what went at once."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {**obj, "metadata": {"deletionTimestamp": now, **obj["metadata"]}}


def _key(obj: Object) -> tuple[str, str]:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def _same(one: Object, other: Object) -> bool:
    fields = ("uid", "resourceVersion")
    return all(one["metadata"].get(f) == other["metadata"].get(f) for f in fields)
