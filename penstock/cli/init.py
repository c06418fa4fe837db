"""`penstock init`."""

from __future__ import annotations

from pathlib import Path

import click

from penstock.core.documents import parse_spec
from penstock.core.errors import ConfigurationError

_TEMPLATE = """\
# What to serve, where it comes from, and how good it must be.
# Every field: docs/reference/model-yaml.md
apiVersion: penstock/v1
name: {name}
source: {source}
# data:
#   # a line each: {{"id", "skill", "messages": [{{"role", "content"}}], "answer"}}
#   evaluate: evaluate.jsonl
# evaluation:
#   min_exact_match: 0.8
#   max_quality_loss: 0.015
"""


@click.command()
@click.argument("path", type=click.Path(path_type=Path), default=Path("model.yaml"))
@click.option("--name", default="my-model", show_default=True, help="Name of the model.")
@click.option("--source", default="hf://ORG/NAME", show_default=True, help="Where it comes from.")
def command(path: Path, name: str, source: str) -> None:
    """Write a model.yaml to start from; an existing file is never overwritten."""
    text = _TEMPLATE.format(name=name, source=source)
    parse_spec(text, where=str(path))
    try:
        with path.open("x") as file:
            file.write(text)
    except FileExistsError as problem:
        raise ConfigurationError(f"{path} exists", hint="name another file") from problem
    except OSError as problem:
        raise ConfigurationError(f"{path}: {problem.strerror}") from problem
    click.echo(f"wrote {path}; next: penstock run {path}")
