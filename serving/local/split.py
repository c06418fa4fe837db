"""Splits a stream of requests by weight: smooth weighted round-robin, as nginx does it.

After any number of requests each share is off by less than one request per backend, so a split
needs no luck. Source: nginx, `ngx_http_upstream_round_robin`, smooth weighted balancing.
"""

from __future__ import annotations

from collections.abc import Mapping


class Split:
    """Chooses a backend per request.

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
