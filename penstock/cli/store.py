"""`penstock store`."""

from __future__ import annotations

import time

import click

from penstock.cli.edge import gc_options, need, output_option, print_json, settings_of
from penstock.core.identity import Digest
from penstock.core.settings import Settings

Kept = dict[Digest, list[str]]


@click.group()
def command() -> None:
    """Show the checkpoints on this machine, or remove those that nothing needs."""


@command.command("list")
@output_option
def list_(output: str) -> None:
    """Show every checkpoint, its size, and what needs it."""
    from registry.store import Store

    settings = settings_of()
    store, needed = Store(settings.store), needed_by(settings)
    rows = [
        {
            "root": str(root),
            "source": str(manifest.source),
            "size_bytes": manifest.size_bytes,
            "needed_by": needed.get(root, []),
        }
        for root in store.roots()
        for manifest in [store.manifest(root)]
    ]
    if output == "json":
        print_json({"checkpoints": rows})
        return
    for row in rows:
        digest, size = Digest.parse(str(row["root"])), float(str(row["size_bytes"])) / 1e6
        click.echo(f"{digest.short}  {size:10.1f} MB  {row['source']}")
        click.echo(f"              {', '.join(needed.get(digest, [])) or 'nothing needs it'}")
    if not rows:
        click.echo("no checkpoints yet; next: penstock run model.yaml")


@command.command()
@gc_options("Keep what was pulled within this time: a run may be about to register it.")
@output_option
def gc(hours: float, dry_run: bool, output: str) -> None:
    """Remove checkpoints that are not served and that no alias of the registry points at."""
    from registry.store import Store

    settings = settings_of()
    store, needed = Store(settings.store), needed_by(settings)
    recent = time.time() - hours * 3600
    removed = [r for r in store.roots() if r not in needed and store.used_at(r) <= recent]
    freed = 0 if dry_run else store.gc([r for r in store.roots() if r not in removed])
    if output == "json":
        print_json({"removed": [str(r) for r in removed], "freed_bytes": freed, "dry_run": dry_run})
        return
    verb = "would remove" if dry_run else "removed"
    click.echo("".join(f"{verb} {root.short}\n" for root in removed), nl=False)
    click.echo(f"{verb} {len(removed)} checkpoints" + ("" if dry_run else f", {freed:,} bytes"))


def needed_by(settings: Settings) -> Kept:
    """Return what needs each checkpoint: services of this machine, aliases of the registry."""
    need("local", "mlflow")
    from registry.catalog import Catalog
    from serving.local import lifecycle
    from serving.manifests import ROOT

    found: Kept = {}
    if (settings.cluster / "cluster.db").exists():
        for obj in lifecycle.cluster(settings).list("InferenceService"):
            root = Digest.parse(obj["metadata"]["annotations"][ROOT])
            found.setdefault(root, []).append(f"served as {obj['metadata']['name']}")
    for version in Catalog(settings.tracking_uri).aliased():
        told = f"{version.name} version {version.number} ({', '.join(version.aliases)})"
        found.setdefault(Digest.parse(version.root), []).append(told)
    return found
