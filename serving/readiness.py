"""Whether an OpenAI-compatible server answers yet, and for which model."""

from __future__ import annotations

import httpx

_TIMEOUT_S = 2.0


def ready_model(base_url: str, *, transport: httpx.BaseTransport | None = None) -> str | None:
    """Return the name of the model that is served; None while the server does not answer.

    Args:
        base_url: Where the API is, without the final `/v1`.
        transport: Another way to the server than the network.
    """
    try:
        with httpx.Client(
            base_url=base_url, timeout=_TIMEOUT_S, trust_env=False, transport=transport
        ) as client:
            if not client.get("/health").is_success:
                return None
            return str(client.get("/v1/models").json()["data"][0]["id"])
    except (httpx.HTTPError, ValueError, KeyError, TypeError, IndexError):
        return None
