"""`penstock guard`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli.edge import need, output_option, print_json
from penstock.core.errors import ConfigurationError, PrecisionRefused

if TYPE_CHECKING:
    from components.guard.verdict import Verdict


@click.command()
@click.argument("parent")
@click.argument("candidate")
@click.option("--data", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--parent-model", default="", help="Name of the parent at its endpoint.")
@click.option("--model", default="", help="Name of the candidate at its endpoint.")
@click.option("--api-key", envvar="OPENAI_API_KEY", help="For the endpoints.")
@click.option(
    "--margin",
    default=0.015,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of right answers that may be lost.",
)
@click.option("--max-new-tokens", default=64, show_default=True, type=click.IntRange(1))
@click.option("--limit", type=click.IntRange(1), help="Only the first items.")
@click.option("--sequential", is_flag=True, help="Stop as soon as the verdict is known.")
@output_option
def command(  # noqa: PLR0917 - options of one command
    parent: str,
    candidate: str,
    data: Path,
    parent_model: str,
    model: str,
    api_key: str | None,
    margin: float,
    max_new_tokens: int,
    limit: int | None,
    sequential: bool,
    output: str,
) -> None:
    """Judge whether CANDIDATE may replace PARENT: folders, or URLs of OpenAI-compatible endpoints.

    Both answer the same items, and their distributions are compared token by token. Exit code 0:
    accepted; 4: refused, or the items do not suffice.
    """
    from components.steps.judging import Questions, Side, judge
    from components.steps.measuring import items_of

    items = items_of(data)[:limit]
    if not items:
        raise ConfigurationError(f"--data: {data} has no items")
    sides = Side(parent, parent_model, api_key), Side(candidate, model, api_key)
    if not all(side.served for side in sides):
        need("local", "torch", "transformers")
    quiet = output == "json" or not sys.stderr.isatty()

    def tell(done: int, total: int, what: str) -> None:
        if not quiet:
            click.echo(f"\r\x1b[2K  {what}: {done} of {total}", nl=False, err=True)

    verdict = judge(*sides, Questions(items, margin, max_new_tokens, sequential), tell)
    if output == "json":
        print_json(verdict.to_json())
        sys.exit(0 if verdict.outcome == "accept" else PrecisionRefused.exit_code)
    if not quiet:
        click.echo("\r\x1b[2K", nl=False, err=True)
    _tell(verdict)
    if verdict.outcome != "accept":
        raise PrecisionRefused(verdict.reason, hint="keep the parent, or add items to --data")


def _tell(verdict: Verdict) -> None:
    click.echo(f"{verdict.outcome}: {verdict.reason}")
    click.echo(
        f"  {verdict.form}: {verdict.n} of {verdict.available} items, {verdict.gained} answers "
        f"gained and {verdict.lost} lost: {verdict.difference:+.2%} ({verdict.low:+.2%} to "
        f"{verdict.high:+.2%}); an equal version would pass {verdict.power:.0%} of the time"
    )
    for each in verdict.measures:
        between = "" if each.low is None else f" ({each.low:.3g} to {each.high:.3g})"
        limit = "" if each.limit is None else f", limit {each.limit:g}"
        click.echo(f"  {each.name}: {each.value:.3g}{between}{limit}")
