"""Which versions a name has, where their replicas are, and who answers the next request."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from serving.cluster import Object
from serving.local.split import Split
from serving.manifests import NAME, sticky, weights_of


@dataclass(frozen=True, slots=True)
class Route:
    """How a name's requests are split."""

    split: Split
    sticky: bool = True

    def choose(self, name: str, session: str | None) -> str | None:
        """Return the InferenceService for a request, and None when every weight is 0.

        Args:
            name: The route's.
            session: The conversation it belongs to; None for none.
        """
        if session and self.sticky:
            return self.split.choose_for(f"{name}\0{session}")
        return self.split.choose()


@dataclass(frozen=True, slots=True)
class Backend:
    """An InferenceService."""

    name: str
    """What clients call the model; empty where no label says it."""

    endpoints: tuple[str, ...]


class Conversations:
    """Remembers the newest `capacity` conversations, by a digest of each.

    A conversation stays on its version, so it says something about the split only once.
    """

    def __init__(self, capacity: int = 100_000) -> None:
        self._capacity = capacity
        self._met: OrderedDict[bytes, None] = OrderedDict()

    def first(self, name: str, session: str) -> bool:
        """Return whether this is a conversation's first request for a name, as far as known."""
        key = hashlib.blake2b(f"{name}\0{session}".encode(errors="replace"), digest_size=8).digest()
        known = key in self._met
        self._met[key] = None
        self._met.move_to_end(key)
        if len(self._met) > self._capacity:
            self._met.popitem(last=False)
        return not known


_NOBODY = Backend("", ())


@dataclass
class Table:
    """Where requests go, as the objects say."""

    routes: dict[str, Route] = field(default_factory=dict)
    backends: dict[str, Backend] = field(default_factory=dict)
    conversations: Conversations = field(default_factory=Conversations)

    def update(self, routes: Iterable[Object], services: Iterable[Object]) -> None:
        """Take over the objects; a split whose weights did not change keeps its place."""
        found = {}
        for obj in routes:
            name, weights = obj["metadata"]["name"], weights_of(obj)
            kept = self.routes.get(name)
            split = kept.split if kept and kept.split.weights == weights else Split(weights)
            found[name] = Route(split, sticky(obj))
        self.routes = found
        self.backends = {
            obj["metadata"]["name"]: Backend(
                obj["metadata"].get("labels", {}).get(NAME, ""),
                tuple(obj.get("status", {}).get("endpoints", ())),
            )
            for obj in services
        }

    def drawn(self, name: str, session: str | None) -> bool:
        """Return whether a request's version is chosen now; asked once for every request."""
        if not session or not self.routes[name].sticky:
            return True
        return self.conversations.first(name, session)

    def owns(self, name: str, service: str) -> bool:
        """Return whether an InferenceService is a version of a name, routed to or not."""
        return self.backends.get(service, _NOBODY).name == name

    def endpoints(self, service: str | None) -> tuple[str, ...]:
        """Return the URLs of the replicas that are ready."""
        return self.backends.get(service or "", _NOBODY).endpoints
