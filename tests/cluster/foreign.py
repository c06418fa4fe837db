"""A cluster that is there already, such as kind: which, and what it shares with this machine.

With the first variable alone those tests run that need nothing of a node. With a folder that the
nodes see, too, versions are served, and rolled out.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

KUBECONFIG = "PENSTOCK_TEST_KUBECONFIG"
"""Environment variable: how it is reached."""

SHARED = "PENSTOCK_TEST_SHARED"
"""Environment variable: a folder of this machine that every node has at the same path."""

TARGET = "PENSTOCK_TEST_TARGET"
"""Environment variable: what `target.kserve` says of it, as JSON."""


def kubeconfig() -> str:
    """Return the file; empty: tests use a cluster of `python -m tests.cluster`."""
    return os.environ.get(KUBECONFIG, "")


def shared() -> Path | None:
    """Return the folder that its nodes see, if there is one."""
    folder = os.environ.get(SHARED)
    return Path(folder) if kubeconfig() and folder else None


def environment() -> dict[str, str]:
    """Return what commands have to know."""
    told = {"KUBECONFIG": kubeconfig(), "PENSTOCK_ADDRESS": target().get("address", "")}
    return {name: value for name, value in told.items() if value}


def target() -> dict[str, Any]:
    """Return what a spec says of the cluster: an own one's pods have Python from this machine.

    Raises:
        ValueError: Not JSON.
    """
    if not kubeconfig():
        return {"runtime_class": "penstock-host-python"}
    return dict(json.loads(os.environ.get(TARGET, "{}")))
