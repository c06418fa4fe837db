"""`penstock evaluate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from penstock.cli.edge import need, output_option, print_json
from penstock.core.errors import ConfigurationError, EvaluationFailed


@click.command()
@click.argument("target")
@click.option("--data", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--model", help="Name of the model at an endpoint.")
@click.option("--api-key", envvar="OPENAI_API_KEY", help="For the endpoint.")
@click.option("--max-new-tokens", default=64, show_default=True, type=click.IntRange(1))
@click.option("--limit", type=click.IntRange(1), help="Only the first items.")
@click.option(
    "--save", type=click.Path(path_type=Path), help="Write the result with every item as JSON."
)
@click.option(
    "--against",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A result saved before: compare on the same items.",
)
@click.option(
    "--margin", default=0.015, show_default=True, type=click.FloatRange(0, 1, min_open=True)
)
@output_option
def command(  # noqa: PLR0917 - options of one command
    target: str,
    data: Path,
    model: str | None,
    api_key: str | None,
    max_new_tokens: int,
    limit: int | None,
    save: Path | None,
    against: Path | None,
    margin: float,
    output: str,
) -> None:
    """Evaluate TARGET: a checkpoint folder, or the URL of an OpenAI-compatible endpoint."""
    import json

    from components.guard.comparison import compare, paired
    from components.steps.judging import Side
    from components.steps.measuring import items_of
    from components.steps.scoring import measure

    before = _saved(against) if against is not None else None
    if save is not None and not save.parent.is_dir():
        raise ConfigurationError(f"--save: no such folder: {save.parent}")
    items = items_of(data)[:limit]
    side = Side(target, model or "", api_key)
    side.check()
    if not side.served:
        need("local", "torch", "transformers")
    completer = side.open()
    try:
        with click.progressbar(length=len(items), hidden=output == "json") as bar:
            result = measure(
                completer,
                items,
                max_new_tokens=max_new_tokens,
                on_progress=lambda done, _total: bar.update(done - bar.pos),
            )
    finally:
        completer.close()
    found = None
    if before is not None:
        found = compare(paired(before, result["items"]), margin)
        result["comparison"] = {**found.to_json(), "against": str(against)}
    if save is not None:
        save.write_text(json.dumps(result, indent=1))
    failed = found is not None and found.outcome != "pass"
    if output == "json":
        print_json({k: v for k, v in result.items() if k != "items"})
        sys.exit(EvaluationFailed.exit_code if failed else 0)  # one document, which says it
    _tell(result)
    if failed:
        raise EvaluationFailed(result["comparison"]["reason"], hint="add items, or widen --margin")


def _saved(path: Path) -> list[dict[str, Any]]:
    """Return the items of a saved result."""
    import json

    try:
        items: list[dict[str, Any]] = json.loads(path.read_text())["items"]
        if all({"id", "expected", "correct"} <= item.keys() for item in items):
            return items
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise ConfigurationError(
        f"--against: {path} is not a saved result", hint="write one with --save"
    )


def _tell(result: dict[str, Any]) -> None:
    for share in ({"skill": "all", **result["exact_match"]}, *result["skills"]):
        click.echo(
            f"  {share['skill']:<12}{share['share']:7.1%}  "
            f"({share['low']:.1%} to {share['high']:.1%}, {share['correct']} of {share['n']})"
        )
    if result["perplexity"]:
        click.echo(f"  perplexity {result['perplexity']:.3f}")
    if result["latency"]:
        ttft = result["latency"]["ttft_s"]
        click.echo(f"  TTFT p50 {ttft['p50'] * 1000:.0f} ms, p95 {ttft['p95'] * 1000:.0f} ms")
    if "comparison" in result:
        click.echo(f"  {result['comparison']['outcome']}: {result['comparison']['reason']}")
