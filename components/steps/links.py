"""Where MLflow's UI shows what a step is about; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit


def tracked(tracking_uri: str, name: str, detail: Mapping[str, Any]) -> str:
    """Return the address of the run, or of the registered version; empty where there is none.

    Args:
        tracking_uri: Of MLflow; a database has no pages.
        name: Of the model.
        detail: What the step left: `tracking_run` (a training), or a version.
    """
    door = _door(tracking_uri)
    if not door:
        return ""
    if run := detail.get("tracking_run"):
        return f"{door}/#/runs/{quote(str(run), safe='')}"
    version = detail.get("version", detail.get("champion"))
    if name and version is not None:
        return f"{door}/#/models/{quote(name, safe='')}/versions/{quote(str(version), safe='')}"
    return ""


def _door(tracking_uri: str) -> str:
    """Return where a browser finds MLflow: no user, no password, no question."""
    parts = urlsplit(tracking_uri)
    if parts.scheme not in ("http", "https"):
        return ""
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
