"""The supervisor's process: here the registry's verification meets the serving side."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from penstock.core.identity import Digest
from registry.store import Store, verify
from serving.cluster import Object
from serving.local.supervisor import Launch, run
from serving.manifests import ROOT


def verifier(store: Store) -> Callable[[Object], None]:
    """Return the check that a service's checkpoint is what was registered."""

    def check(obj: Object) -> None:
        root = Digest.parse(obj["metadata"]["annotations"][ROOT])
        verify(store.checkpoint(root), store.manifest(root))

    return check


def command(cluster: Path, store: Path) -> list[str]:
    """Return the command line that starts the supervisor."""
    return [sys.executable, "-m", "penstock.cli.supervise", str(cluster), str(store)]


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), Launch(verifier(Store(Path(sys.argv[2]))), dict(os.environ))))
