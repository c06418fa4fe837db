"""Entry point of `penstock`."""

from __future__ import annotations

import sys

import click

import penstock
from penstock.core.errors import LifecycleError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(penstock.__version__, prog_name="penstock")
def app() -> None:
    """Carry a language model from the Hub to production, and keep it good there."""


def main() -> None:
    """Run the CLI; a known error is its message and the next step, not a traceback."""
    try:
        app()
    except LifecycleError as problem:
        click.echo(f"error: {problem}", err=True)
        if problem.hint:
            click.echo(f"next: {problem.hint}", err=True)
        sys.exit(problem.exit_code)
