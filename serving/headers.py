"""Penstock's request and answer headers, as gateway, engine and replay know them."""

from __future__ import annotations

from collections.abc import Mapping

VERSION = "X-Penstock-Version"
"""On an answer: the InferenceService that gave it."""

REQUEST = "X-Penstock-Request"
"""On an answer to a user: its id, by which a score can be given to it later."""

SESSION = "X-Penstock-Session"
"""On a request: its conversation, any text; a conversation stays on its version."""

SERVICE = "X-Penstock-Service"
"""On a request: the InferenceService that must answer. It is a replay: not counted, not logged."""

REPLAY = "X-Penstock-Replay"
"""From gateway to engine: `1` on a replay. Never taken from a client."""

NO_LOG = "X-Penstock-No-Log"
"""On a request: do not log it."""


WEIGHTS = "X-Penstock-Weights"
"""On an answer to a user, where the gateway is Istio's: the shares that it was routed by."""


def replayed(headers: Mapping[str, str]) -> bool:
    """Return whether a request at an engine is a replay: no user waits for its answer.

    The local gateway says so; on a cluster the header that chose the version arrives itself.
    """
    return REPLAY in headers or SERVICE in headers
