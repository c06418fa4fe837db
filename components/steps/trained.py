"""What checkpoints were trained from: kept by their roots, for whoever registers them later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.steps.context import write_atomically
from penstock.core.identity import Digest
from penstock.core.settings import Settings
from registry.passport import Trained


def remember(settings: Settings, found: Mapping[str, Any]) -> None:
    """Keep what the step `train` found of the checkpoint `root`."""
    record = Trained.model_validate({name: found[name] for name in Trained.model_fields})
    path = _record(settings, found["root"])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, record.model_dump_json(indent=1))


def trained_from(settings: Settings, root: str) -> Trained | None:
    """Return what a checkpoint was trained from; None if it was not, here."""
    path = _record(settings, root)
    return Trained.model_validate_json(path.read_text()) if path.is_file() else None


def _record(settings: Settings, root: str) -> Path:
    return settings.home / "trained" / f"{Digest.parse(root).hex}.json"
