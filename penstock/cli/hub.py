"""`penstock hub`."""

from __future__ import annotations

from pathlib import Path

import click

from penstock.cli.edge import need


@click.group()
def command() -> None:
    """Serve a folder as a mirror of the Hub."""


@command.command()
@click.argument("root", type=click.Path(path_type=Path))
@click.option("--port", default=8481, show_default=True, type=click.IntRange(0, 65535))
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Tokens that open gated and private repositories, one per line.",
)
def serve(root: Path, port: int, token_file: Path | None) -> None:
    """Serve ROOT, with ORG/NAME folders in it, until Ctrl-C; read-only."""
    need("local", "aiohttp")
    from registry.mirror import serve as serve_mirror

    tokens = frozenset(token_file.read_text().split()) if token_file else frozenset()

    def tell(url: str) -> None:
        click.echo(f"serving {root} at {url}\nnext: export HF_ENDPOINT={url}")

    serve_mirror(root, port, tokens=tokens, on_ready=tell)
