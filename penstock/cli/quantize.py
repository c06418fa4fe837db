"""`penstock quantize`."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.edge import environment, need, output_option, print_json, settings_of
from penstock.cli.run import new_run_id, read_spec
from penstock.core.errors import ConfigurationError, Interrupted, PrecisionRefused
from penstock.core.settings import Settings
from penstock.core.spec import ModelSpec

if TYPE_CHECKING:
    from components.steps.context import Context
    from penstock.core.manifest import Manifest


@click.command()
@click.argument("spec", type=click.Path(path_type=Path), default=Path("model.yaml"))
@click.option(
    "--recipe",
    "names",
    multiple=True,
    help="Try this instead of the spec's precision: fp8, int4, awq, nvfp4, …; may be repeated.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Copy the checkpoint that was accepted to this folder.",
)
@output_option
def command(spec: Path, names: tuple[str, ...], out: Path | None, output: str) -> None:
    """Make the checkpoint of SPEC (model.yaml) smaller, and judge whether it may replace it.

    Every recipe's checkpoint is inspected, answers data.evaluate, and is compared with its parent.
    The smallest that is accepted wins. If none is, nothing replaces the parent: exit code 4.
    """
    model = _with(read_spec(spec), names)
    if out is not None and out.exists():
        raise ConfigurationError(f"--out: {out} exists already", hint="name a folder that does not")
    need("quantize", "torch", "transformers", "llmcompressor")
    try:
        manifest, folder, decided = _decide(model, quiet=output == "json")
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted; what is done is kept", hint="run the same command again to resume"
        ) from None
    if out is not None and decided["outcome"] == "accept":
        _copy(folder, out)
    refused = decided["outcome"] == "kept"
    if output == "json":
        print_json({**decided, "root": str(manifest.root), "folder": str(folder)})
        sys.exit(PrecisionRefused.exit_code if refused else 0)
    _tell(decided["tried"])
    if refused:
        raise PrecisionRefused(
            decided["reason"],
            hint="a larger group size costs less memory, a smaller one less quality; or more items "
            "in data.evaluate where they were insufficient",
        )
    click.echo(f"{decided['outcome']}: {decided['reason']}")
    click.echo(f"  {out if out is not None else folder}")


def _copy(folder: Path, out: Path) -> None:
    """Copy a checkpoint so that it appears whole, or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        shutil.copytree(folder, scratch)
        scratch.rename(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _with(model: ModelSpec, names: Sequence[str]) -> ModelSpec:
    """Return the spec with the recipes a person named."""
    from penstock.core.recipes import recipe_of

    if not names:
        return model
    return model.model_copy(update={"precision": tuple(recipe_of(name) for name in names)})


def _decide(model: ModelSpec, *, quiet: bool) -> tuple[Manifest, Path, dict[str, Any]]:
    from components.steps.quantize import choose, pinned
    from components.steps.verbs import hub_of
    from registry.pull import pull, resolve
    from registry.store import Store

    settings = settings_of(environment(PENSTOCK_RUN_ID=new_run_id()))
    context = _context(settings, quiet=quiet)
    store = Store(settings.store)
    source = resolve(model.ref, hub_of(settings))
    told = lambda done, total: context.progress(done, total, "bytes")  # noqa: E731
    parent = pull(source, hub_of(settings), store, model.policy, told).manifest
    chosen, decided = choose(context, model, pinned(model), parent, store.checkpoint(parent.root))
    return chosen, store.checkpoint(chosen.root), decided


def _context(settings: Settings, *, quiet: bool) -> Context:
    from components.steps.context import Context

    @dataclass
    class Shown(Context):
        """Tells a person how far it is, in one line that is written over."""

        def progress(self, done: float, total: float, unit: str) -> None:
            if not quiet and sys.stderr.isatty():
                click.echo(f"\r\x1b[2K  {unit}: {done:.0f} of {total:.0f}", nl=False, err=True)

    folder = settings.run_dir / "steps"
    folder.mkdir(parents=True, exist_ok=True)
    return Shown(settings, folder, "quantize")


def _tell(tried: Sequence[Mapping[str, Any]]) -> None:
    if sys.stderr.isatty():
        click.echo("\r\x1b[2K", nl=False, err=True)
    for each in tried:
        size = f"{each['size_bytes'] / 1e6:,.1f} MB" if "size_bytes" in each else "-"
        score = f"{each['score']:.1%}" if "score" in each else "-"
        click.echo(f"  {each['label']:<22}{each['outcome']:<14}{size:>12}{score:>9}")
        click.echo(f"      {each['reason']}")
