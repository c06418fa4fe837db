"""What `penstock engine` shows."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.edge import print_json
from penstock.core.errors import LifecycleError

if TYPE_CHECKING:
    from components.trtllm.cache import EngineCache, Entry
    from components.trtllm.plan import Plan
    from penstock.core.settings import Settings


def cache_of(settings: Settings) -> EngineCache:
    """Return the builds below the home folder."""
    from components.trtllm.cache import EngineCache

    return EngineCache(settings.home / "engines")


def tell_plan(plan: Plan, output: str) -> None:
    """Print commands, files and what is asked for."""
    if output == "json":
        print_json(
            {
                "commands": [list(stage.argv) for stage in plan.stages],
                "files": plan.files,
                "resources": plan.resources.kubernetes(),
                "shm_bytes": plan.resources.shm_bytes,
                "serve": list(plan.serve),
            }
        )
        return
    for stage in plan.stages:
        click.echo(shlex.join(stage.argv))
    if not plan.stages:
        click.echo("# nothing to run: the checkpoint is served as it is")
    for name, text in plan.files.items():
        click.echo(f"\n# {name}\n{text}", nl=False)
    click.echo(f"\n# served by\n{shlex.join(plan.serve)}")
    asked = plan.resources.kubernetes()["requests"]
    click.echo(f"\n# asks for {', '.join(f'{name} {much}' for name, much in asked.items())}")


def row(entry: Entry) -> dict[str, Any]:
    """Return a build as a row, for programs."""
    key = entry.key
    return {
        "key": str(key.digest),
        "model": str(entry.manifest.source),
        "strategy": key.strategy,
        "scheme": key.scheme,
        "gpu": f"{key.node.gpu} (SM{key.node.sm})" if key.node else "any that has the precision",
        "image": key.image,
        "size_bytes": entry.manifest.size_bytes,
        "age_s": round(time.time() - entry.built_at),
        "state": "built",
        "verdict": verdict_of(entry),
        "servable": entry.servable,
    }


def verdict_of(entry: Entry) -> str:
    """Return the guard's verdict on a build in a line; it is served only if that accepts it."""
    found = entry.verdict
    if found is None:
        return "not judged, so not to be served yet; next: penstock engine run model.yaml"
    refused = "" if found["outcome"] == "accept" else ", so not to be served"
    return f"{found['outcome']}{refused}: {found['reason']}"


_BLANK = dict.fromkeys(("model", "strategy", "scheme", "gpu", "image", "verdict"), "")
_NOT_BUILT = {**_BLANK, "size_bytes": 0, "age_s": 0, "servable": False}


def rows_of(cache: EngineCache) -> list[dict[str, Any]]:
    """Return every build as a row; what is damaged or unfinished says so in `state`."""
    rows = []
    for digest in cache.digests():
        try:
            rows.append(row(cache.entry(digest)))
        except LifecycleError as problem:
            state = f"damaged: {problem}"
            rows.append({"key": str(digest), **_NOT_BUILT, "state": state})
    for left in cache.unfinished():
        state = f"being built by {left.owner}" if left.owner else "unfinished; a build goes on"
        rows.append({"key": f"sha256:{left.hex}", **_NOT_BUILT, "state": state})
    return rows
