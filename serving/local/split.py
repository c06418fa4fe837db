"""Splits requests by weight: each by itself, or a conversation as a whole.

Single requests: smooth weighted round-robin, as nginx does it. After any number of requests each
share is off by less than one request per backend, so a split needs no luck. Source: nginx,
`ngx_http_upstream_round_robin`, smooth weighted balancing.

Conversations: weighted rendezvous hashing. Every backend draws a number from the conversation's
key, exponential with its weight as the rate, and the smallest wins; so shares are the weights, no
state is kept, and raising one weight against the others moves conversations only to that backend.
Unlike one hash over stacked intervals, this is so for any number of backends, and every new
candidate meets other conversations first. Source: Schindelhauer & Schomaker, "Weighted distributed
hash tables", SPAA 2005, the logarithmic method.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping


class Split:
    """Chooses a backend per request or per conversation.

    Args:
        weights: Backend to share; shares are relative to their sum.
    """

    def __init__(self, weights: Mapping[str, int]) -> None:
        self.weights = dict(weights)
        self._credit = dict.fromkeys(weights, 0)

    def choose(self) -> str | None:
        """Return the next backend; None when every weight is 0."""
        total = sum(self.weights.values())
        if total <= 0:
            return None
        for name, weight in self.weights.items():
            self._credit[name] += weight
        chosen = max(self._credit, key=lambda name: (self._credit[name], self.weights[name]))
        self._credit[chosen] -= total
        return chosen

    def choose_for(self, key: str) -> str | None:
        """Return the backend of a conversation; None when every weight is 0."""
        weighed = {name: weight for name, weight in self.weights.items() if weight > 0}
        if len(weighed) < 2:
            return next(iter(weighed), None)
        return min(weighed, key=lambda name: _exponential(f"{key}\0{name}") / weighed[name])


def _exponential(key: str) -> float:
    """Return an exponential variate that is the same for the same key, everywhere."""
    number = int.from_bytes(hashlib.sha256(key.encode(errors="replace")).digest()[:6])
    return -math.log((number + 0.5) / (1 << 48))
