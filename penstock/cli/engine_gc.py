"""`penstock engine gc`."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from penstock.cli.edge import gc_options, output_option, print_json, settings_of
from penstock.cli.engine_view import cache_of
from penstock.core.errors import StoreError

if TYPE_CHECKING:
    from components.trtllm.cache import EngineCache
    from components.trtllm.unused import Unused
    from penstock.core.identity import Digest
    from penstock.core.settings import Settings


@click.command("gc")
@gc_options("Keep what was built or found within this time: a run may be about to judge it.")
@output_option
def command(hours: float, dry_run: bool, output: str) -> None:
    """Remove engines that are not served and whose model nothing needs, and unfinished builds.

    What is being built, judged or served is kept, and what was not refused as long as a service of
    this machine or an alias of the registry points at the checkpoint that it was built from.
    """
    from components.trtllm.unused import remove, unused

    settings = settings_of()
    cache = cache_of(settings)
    found = unused(cache, time.time() - hours * 3600)
    kept = _referenced(cache, settings, found)
    removed = [each for each in found if each.digest not in kept]
    freed = 0 if dry_run else sum(remove(cache, each) for each in removed)
    if output == "json":
        names = [str(each.digest) for each in removed]
        print_json({"removed": names, "freed_bytes": freed, "dry_run": dry_run})
        return
    verb = "would remove" if dry_run else "removed"
    click.echo("".join(f"{verb} {each.digest.short}\n" for each in removed), nl=False)
    click.echo(f"{verb} {len(removed)} engines" + ("" if dry_run else f", {freed:,} bytes"))


def _referenced(cache: EngineCache, settings: Settings, found: list[Unused]) -> set[Digest]:
    """Return what is served on this machine, or was not refused and is of a checkpoint in use."""
    finished = [each.digest for each in found if each.finished]
    if not finished:
        return set()
    from penstock.cli.store import needed_by

    services, needed = _services(settings), needed_by(settings)
    kept = {digest for digest in finished if digest.hex in services}
    for digest in finished:
        with suppress(StoreError):  # what is damaged belongs to nothing
            entry = cache.entry(digest)
            refused = entry.verdict is not None and not entry.servable
            if entry.manifest.root in needed or (entry.key.weights in needed and not refused):
                kept.add(digest)
    return kept


def _services(settings: Settings) -> str:
    """Return every service of this machine as text: one that serves a build names its key."""
    from serving.local import lifecycle

    if not (settings.cluster / "cluster.db").exists():
        return ""
    return json.dumps(lifecycle.cluster(settings).list("InferenceService"))
