"""Where Git, the cluster and the registry disagree. Pure.

Only what Git states is compared, as `kubectl diff` does: what servers, webhooks and autoscalers add
is their own business.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from serving.cluster import Object
from serving.gitops.manifest import stated
from serving.manifests import NAME, service_name

What = Literal["missing", "extra", "differs", "alias"]

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|k|[MGTPE]i?|Ki)?")
_POWERS = {"": (10, 0), "m": (10, -3), "k": (10, 3), "Ki": (2, 10)}
_POWERS |= {f"{letter}": (10, 3 * n) for n, letter in enumerate("MGTPE", 2)}
_POWERS |= {f"{letter}i": (2, 10 * n) for n, letter in enumerate("MGTPE", 2)}
_ALIASES = "registry"


@dataclass(frozen=True, slots=True)
class Finding:
    """One disagreement."""

    what: What
    where: str
    """Kind and name of the object, or the registered model."""

    path: str = ""
    """The field, where it is about one."""

    wanted: str = ""
    """What Git states; of an alias, what has the traffic."""

    found: str = ""
    """What the cluster has; of an alias, what it points at."""

    def __str__(self) -> str:
        match self.what:
            case "missing":
                return f"{self.where}: in Git, not on the cluster"
            case "extra":
                return f"{self.where}: on the cluster, not in Git"
            case "differs":
                return f"{self.where} {self.path}: Git {self.wanted}, cluster {self.found}"
            case "alias":
                return f"{self.where}: {self.wanted} has the traffic, champion is {self.found}"


def of_objects(git: Iterable[Object], cluster: Iterable[Object]) -> Iterator[Finding]:
    """Yield how the cluster differs from what Git states.

    Args:
        git: The objects of the folder.
        cluster: Every object of those kinds in the namespace.
    """
    there = {_key(obj): obj for obj in cluster}
    ours = {_key(obj): stated(obj) for obj in git}
    for key in sorted(ours):
        if key not in there:
            yield Finding("missing", key)
            continue
        for path, wanted, found in _differences(ours[key], there[key], ""):
            yield Finding("differs", key, path, wanted, found)
    for key in sorted(there.keys() - ours.keys()):
        metadata = there[key]["metadata"]
        if NAME in metadata.get("labels", {}) and not metadata.get("ownerReferences"):
            yield Finding("extra", key)


def of_aliases(
    serving: Mapping[str, str], champions: Mapping[str, int | None]
) -> Iterator[Finding]:
    """Yield where the registry's champion is not what has most of the traffic.

    Args:
        serving: Model → its version with the largest share; what Penstock did not register, such
            as an adopted InferenceService, cannot be a champion and is left out.
        champions: Model → the version that the alias points at; None where there is none.
    """
    for name, number in sorted(champions.items()):
        service = serving.get(name, "")
        if not service.startswith(f"{name}-v"):
            continue
        wanted = "no version" if number is None else service_name(name, number)
        if service != wanted:
            yield Finding("alias", f"{_ALIASES} {name}", "", service, wanted)


def _differences(git: Any, cluster: Any, path: str) -> Iterator[tuple[str, str, str]]:
    """Yield field, Git's value and the cluster's, for every field that Git states otherwise."""
    if isinstance(git, dict) and isinstance(cluster, dict | None):
        there = cluster or {}
        for key, value in git.items():
            yield from _differences(value, there.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(git, list) and isinstance(cluster, list) and len(git) == len(cluster):
        for index, (one, other) in enumerate(zip(git, cluster, strict=True)):
            yield from _differences(one, other, f"{path}[{index}]")
    elif not _same(git, cluster):
        yield path, _told(git), _told(cluster)


def _same(git: Any, cluster: Any) -> bool:
    """Return whether two values mean the same to a server, which drops what is empty."""
    if git == cluster or (cluster is None and not git):
        return True
    one, other = _amount(git), _amount(cluster)
    return one is not None and one == other


def _amount(value: Any) -> Decimal | None:
    """Return a Kubernetes quantity: a server writes `0.5` as `500m`. None for other text."""
    found = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return None
    base, power = _POWERS[found[2] or ""]
    return Decimal(found[1]) * Decimal(base) ** power


def _told(value: Any) -> str:
    if value is None:
        return "nothing"
    return f"{len(value)} entries" if isinstance(value, list) else str(value)


def _key(obj: Object) -> str:
    return f"{obj['kind']}/{obj['metadata']['name']}"
