"""Filters, orders and pages of lists."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import kfp_server_api

from tests.fakes.kfp.bodies import check
from tests.fakes.kfp.failure import invalid

_SHARED = ("display_name", "name", "created_at", "description", "id")
FIELDS = {
    "experiments": (*_SHARED, "experiment_id", "namespace", "storage_state", "last_run_created_at"),
    "pipelines": (*_SHARED, "pipeline_id", "namespace"),
    "pipeline_versions": (*_SHARED, "pipeline_version_id", "status", "pipeline_spec"),
    "recurringRuns": (*_SHARED, "recurring_run_id", "updated_at"),
    "runs": (
        *_SHARED,
        *("run_id", "recurring_run_id", "experiment_id", "namespace", "state", "storage_state"),
        *("finished_at", "scheduled_at", "status"),
    ),
}
_NAMED = ("runs", "recurringRuns", "experiments")
"""What has no name beside its display name."""


def page(kind: str, rows: Sequence[Mapping[str, Any]], query: Mapping[str, str]) -> dict[str, Any]:
    """Return one page of a list, as the API does."""
    chosen = _ordered(kind, [r for r in rows if _matches(kind, r, query)], query)
    size = int(query.get("page_size") or 0)
    if size < 0:
        raise invalid(f"The page size should be greater than 0. Got {size}")
    size = min(size or 20, 200)
    start = _start(query.get("page_token", ""))
    answer: dict[str, Any] = {"total_size": len(chosen)} if chosen else {}
    if chosen[start : start + size]:
        answer[kind] = list(chosen[start : start + size])
    if len(chosen) > start + size:
        answer["next_page_token"] = base64.b64encode(str(start + size).encode()).decode()
    return answer


def _start(token: str) -> int:
    try:
        return int(base64.b64decode(token, validate=True)) if token else 0
    except ValueError:
        raise invalid("Invalid page token") from None


def _matches(kind: str, row: Mapping[str, Any], query: Mapping[str, str]) -> bool:
    if not query.get("filter"):
        return True
    try:
        asked = json.loads(query["filter"])
    except ValueError:
        raise invalid(f"failed to parse valid filter from {query['filter']!r}") from None
    asked = _snake(asked)
    check(asked, "V2beta1Filter")
    return all(_holds(kind, row, each) for each in asked.get("predicates", ()))


_OPERATIONS = kfp_server_api.V2beta1PredicateOperation.allowable_values


def _snake(asked: Any) -> Any:
    """Return JSON as the models name it; a protobuf's JSON may be in camels, its enums numbers."""
    if isinstance(asked, list):
        return [_snake(each) for each in asked]
    if not isinstance(asked, dict):
        return asked
    found = {re.sub("[A-Z]", lambda m: f"_{m[0].lower()}", k): _snake(v) for k, v in asked.items()}
    number = found.get("operation")
    return {**found, "operation": _OPERATIONS[number]} if isinstance(number, int) else found


def _holds(kind: str, row: Mapping[str, Any], predicate: Mapping[str, Any]) -> bool:
    key = predicate.get("key", "")
    if key not in FIELDS[kind]:
        raise invalid(f'no support for filtering on unrecognized field "{key}"')
    found = str(_field(kind, row, key)).lower()  # the database compares without case
    wanted = str(predicate.get("string_value", "")).lower()
    match predicate.get("operation"):
        case "EQUALS":
            return found == wanted
        case "NOT_EQUALS":
            return found != wanted
        case "IS_SUBSTRING":
            return wanted in found
        case other:
            raise invalid(f"invalid predicate operation: {other}")


def _ordered(
    kind: str, rows: list[Mapping[str, Any]], query: Mapping[str, str]
) -> list[Mapping[str, Any]]:
    words = (query.get("sort_by") or "created_at asc").split()
    if len(words) > 2 or (len(words) == 2 and words[1] not in ("asc", "desc")):
        raise invalid(f"Received invalid sort by format {' '.join(words)!r}")
    if words[0] not in FIELDS[kind]:
        raise invalid(f'Invalid sorting field: "{words[0]}" on listable type {kind}')
    reverse = words[-1] == "desc"
    return sorted(rows, key=lambda r: (str(_field(kind, r, words[0])), _id(r)), reverse=reverse)


def _id(row: Mapping[str, Any]) -> str:
    """What orders rows of the same second: the primary key, which is random."""
    return next(str(value) for key, value in row.items() if key.endswith("_id"))


def _field(kind: str, row: Mapping[str, Any], key: str) -> Any:
    if key == "name" and kind in _NAMED:
        key = "display_name"
    return row.get(key, "")
