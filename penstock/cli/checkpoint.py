"""`penstock checkpoint`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli.edge import output_option, print_json
from penstock.core.errors import CheckpointBroken

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.conformance import Finding

_ENGINES = ("vllm", "sglang", "tensorrt-llm", "triton", "tgi", "huggingface", "cpu")
_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.group()
def command() -> None:
    """Look at a checkpoint on disk."""


@command.command()
@click.argument("folder", type=_FOLDER)
@click.option(
    "--parent",
    type=_FOLDER,
    metavar="FOLDER",
    help="The checkpoint it was quantized from: what must be equal is compared.",
)
@click.option(
    "--engine",
    type=click.Choice(_ENGINES),
    default=None,
    help="Judge for this engine only; without it an error for any engine refuses.",
)
@output_option
def verify(folder: Path, parent: Path | None, engine: str | None, output: str) -> None:
    """Find what an engine would read wrongly without a word: exit code 4.

    Reads headers and scales, never the weights.
    """
    from registry.conformance import broken, inspect

    findings = inspect(folder, parent)
    refusing = broken(findings, engine or "")
    if output == "json":
        rows = [{**asdict(f), "refuses": f in refusing} for f in findings]
        print_json({"folder": folder, "ok": not refusing, "findings": rows})
        if refusing:  # the document has said it: the error would be a second one
            sys.exit(CheckpointBroken.exit_code)
        return
    _tell(findings, refusing)
    if refusing:
        count = f"{len(refusing)} mistake" + ("s" if len(refusing) != 1 else "")
        raise CheckpointBroken(f"{folder}: {count}, see above", hint=refusing[0].fix)
    click.echo(f"{folder}: nothing that {engine or 'an engine'} would read wrongly")


def _tell(findings: Sequence[Finding], refusing: Sequence[Finding]) -> None:
    for finding in findings:
        click.echo(f"{'✗' if finding in refusing else '!'} {finding}")
        if finding.engines:
            click.echo(f"    read wrongly by: {', '.join(finding.engines)}")
        click.echo(f"    fix: {finding.fix}")
