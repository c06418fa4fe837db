"""An HTTPRoute that is there and leads nobody. Pure.

Proxies learn of backends and of what leads to them apart. A route that begins closed, and is closed
before it is removed, moves users between backends that are known there all the time.
"""

from __future__ import annotations

from serving.cluster import Object
from serving.headers import SERVICE
from serving.kserve.http_route import users_rules

_NOBODY: Object = {"type": "Exact", "name": SERVICE, "value": "nobody"}
"""No version is called so."""


def closed(route: Object) -> Object:
    """Return the route with users' rules in their places, which no request meets."""
    users = users_rules(route)
    return _with(route, [_meeting(r, [_NOBODY]) if r in users else r for r in _rules(route)])


def opened(route: Object) -> Object:
    """Return the route as it was before it was closed; one that was not, as it is."""
    return _with(route, [_meeting(r, []) if _closed(r) else r for r in _rules(route)])


def is_closed(route: Object) -> bool:
    """Return whether no request meets users' rules."""
    return any(map(_closed, _rules(route)))


def _meeting(rule: Object, headers: list[Object]) -> Object:
    """Return a rule whose matches want these headers, besides paths."""
    wanted = {"headers": headers} if headers else {}
    matches = rule.get("matches", [{}])
    bare = [{key: value for key, value in match.items() if key != "headers"} for match in matches]
    return {**rule, "matches": [{**match, **wanted} for match in bare]}


def _closed(rule: Object) -> bool:
    return any(_NOBODY in match.get("headers", []) for match in rule.get("matches", []))


def _rules(route: Object) -> list[Object]:
    found: list[Object] = route["spec"]["rules"]
    return found


def _with(route: Object, rules: list[Object]) -> Object:
    return {**route, "spec": {**route["spec"], "rules": rules}}
