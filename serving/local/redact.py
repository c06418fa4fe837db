"""Takes out of a request what should not lie on a disk: addresses, long numbers, secrets.

Best effort: it knows shapes, not meanings. It misses names, street addresses and passwords in
prose, and it also takes digests and ids of 32 characters and more. What must not be logged at all
is sent with `X-Penstock-No-Log`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

EMAIL, NUMBER, SECRET = "<email>", "<number>", "<secret>"

# every pattern begins where no run of its own characters goes on to the left, so that a body of
# megabytes is read in linear time
_EMAIL = re.compile(r"(?<![\w.%+'-])[\w.%+'-]{1,64}@(?:[\w-]{1,63}\.)+\w{2,24}")
_NUMBER = re.compile(
    r"(?<![\w.])(?:"
    r"\+\d(?:[ .()-]{0,2}\d){7,14}"  # international telephone
    r"|\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}"  # national telephone
    r"|\d{4}(?:[ -]\d{4}){3}"  # card
    r"|\d{3}-\d{2}-\d{4}"  # social security
    r"|[A-Z]{2}\d{2}(?: ?[A-Z\d]{4}){3,7}(?: ?[A-Z\d]{1,3})?"  # IBAN
    r"|\d{9,}"
    r")(?!\w)"
)
_BEARER = re.compile(r"\b(bearer\s+)[\w.~+/=-]{8,}", re.IGNORECASE)
_ASSIGNED = re.compile(
    r"\b((?:api[_-]?key|access[_-]?token|auth[_-]?token|token|secret|password|passwd|pwd)"
    r"[\"']?\s{0,3}[:=]\s{0,3})[^\s\"',;]{6,}",
    re.IGNORECASE,
)
_KEY = re.compile(
    r"(?<![\w-])(?:"
    r"(?:sk|pk|rk|hf|npm|pypi|glpat|gh[opsur]|github_pat|xox[abeprs]|eyJ|AIza)[\w.-]{16,}"
    r"|(?:AKIA|ASIA)[A-Z\d]{12,}"
    r"|(?=[A-Za-z_-]{0,256}\d)(?=[\d_-]{0,256}[A-Za-z])[\w-]{32,}"  # letters and digits: a token
    r")"
)
_PERHAPS = re.compile(r"@|\d{8}|\d[ .()-]{1,2}\d|[\w-]{16}|[:=]|bearer", re.IGNORECASE)
"""What each of the others needs; most short texts have none of it."""


def redact(text: str) -> str:
    """Return a text with placeholders in place of what looks personal or secret."""
    if _PERHAPS.search(text) is None:
        return text
    text = _BEARER.sub(rf"\g<1>{SECRET}", text)
    text = _ASSIGNED.sub(rf"\g<1>{SECRET}", text)
    text = _EMAIL.sub(EMAIL, text)
    text = _KEY.sub(SECRET, text)
    return _NUMBER.sub(NUMBER, text)


def redact_body(body: str) -> str:
    """Return a JSON body with the strings in it redacted; unchanged if there is nothing to redact.

    What is no JSON, because it was cut off, is redacted as text.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return redact(body)
    found: list[bool] = []

    def seen(text: str) -> str:
        clean = redact(text)
        found.append(clean != text)
        return clean

    clean = _walked(document, seen)
    return json.dumps(clean, ensure_ascii=False, separators=(",", ":")) if any(found) else body


def _walked(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_walked(each, change) for each in value]
    if isinstance(value, dict):
        return {key: _walked(each, change) for key, each in value.items()}
    return value
