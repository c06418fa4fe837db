"""Results that need not be computed twice: keyed by what went in, kept under the home folder.

KFP's own cache keys on artifact identities, so any step that runs again upstream makes every
later one run again; these keys are digests of content (docs/architecture.md, "Resume").
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import penstock
from components.scratch import scratch


def remembered(
    folder: Path, key: Mapping[str, object], target: Path, make: Callable[[Path], None]
) -> bool:
    """Fill the folder `target`, from memory if this was made before; True says it was.

    Args:
        folder: Where results are kept.
        key: Everything the result depends on, as JSON values; Penstock's version is added.
        target: Folder to fill; created.
        make: Fills an empty folder; what it raises leaves nothing behind.
    """
    text = json.dumps({**key, "penstock": penstock.__version__}, sort_keys=True)
    kept = folder / hashlib.sha256(text.encode()).hexdigest()
    found = kept.is_dir()
    if not found:
        folder.mkdir(parents=True, exist_ok=True)
        with scratch(kept) as room:
            make(room)
            (room / "key.json").write_text(text)
            try:
                room.rename(kept)
            except OSError:  # another process finished the same work first; its result is as good
                if not kept.is_dir():
                    raise
    shutil.copytree(kept, target, dirs_exist_ok=True)
    return found
