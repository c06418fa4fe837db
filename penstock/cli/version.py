"""`penstock version`."""

from __future__ import annotations

import importlib.metadata
import platform

import click

import penstock
from penstock.cli.edge import output_option, print_json

_PARTS = ("kfp", "mlflow-skinny", "huggingface-hub", "transformers", "torch", "great-expectations")


@click.command()
@output_option
def command(output: str) -> None:
    """Print the version, and those of the parts it stands on."""
    found = {"penstock": penstock.__version__, "python": platform.python_version()}
    for part in _PARTS:
        try:
            found[part] = importlib.metadata.version(part)
        except importlib.metadata.PackageNotFoundError:
            found[part] = "not installed"
    if output == "json":
        print_json(found)
        return
    for name, version in found.items():
        click.echo(f"{name:<20} {version}")
