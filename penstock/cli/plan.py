"""`penstock plan`."""

from __future__ import annotations

from pathlib import Path

import click

from penstock.cli.edge import output_option, print_json, settings_of
from penstock.cli.run import read_spec


@click.command()
@click.argument("spec", type=click.Path(path_type=Path), default=Path("model.yaml"))
@click.option("--explain", is_flag=True, help="Show the arithmetic, and what was rejected and why.")
@click.option(
    "--load",
    metavar="RPS:PROMPT:ANSWER",
    help="How many replicas so many requests per second need, by tokens of prompt and answer.",
)
@output_option
def command(spec: Path, explain: bool, load: str | None, output: str) -> None:
    """Say how SPEC (model.yaml) would be served, whether it fits, and what would change.

    Reads the headers of the weights, never the weights; changes nothing. What does not fit is
    refused with the smallest change that would: exit code 2.
    """
    from penstock.cli import plan_view
    from penstock.cli.plan_answer import answer_of, load_of

    answer = answer_of(read_spec(spec), settings_of(), load_of(load))
    if output == "json":
        print_json(plan_view.document(answer))
        return
    for line in plan_view.lines(answer, explain=explain):
        click.echo(line)
