"""Lists, page by page, and the API's filters."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

_PAGE = 100


def where(**equal: str) -> str | None:
    """Return a filter of what equals all of these, as the API reads it; None if nothing is asked.

    Args:
        equal: Field and value; an empty value is not asked for.
    """
    predicates = [
        {"operation": "EQUALS", "key": key, "string_value": value}
        for key, value in equal.items()
        if value
    ]
    return json.dumps({"predicates": predicates}) if predicates else None


def listed(
    ask: Callable[..., dict[str, Any]], name: str, limit: int = 1_000_000
) -> list[dict[str, Any]]:
    """Return what a list has, page by page, up to a limit.

    Args:
        ask: Returns one page; takes `page_size` and `page_token`.
        name: Field of the answer that holds the objects.
        limit: At most so many.
    """
    found: list[dict[str, Any]] = []
    token = ""
    while len(found) < limit:
        page = ask(page_size=min(_PAGE, limit - len(found)), page_token=token)
        found += page.get(name) or []
        token = page.get("next_page_token") or ""
        if not token:
            break
    return found[:limit]
