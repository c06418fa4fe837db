"""`penstock serve`."""

from __future__ import annotations

from pathlib import Path

import click

from penstock.cli.edge import need


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--name", help="What clients call the model.  [default: the folder's name]")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8482, show_default=True, type=click.IntRange(0, 65535))
def command(folder: Path, name: str | None, host: str, port: int) -> None:
    """Serve the checkpoint in FOLDER with the CPU engine until Ctrl-C."""
    need("local", "torch", "transformers", "aiohttp", "uvloop")
    from serving.engine.server import run

    served = name or folder.absolute().name

    def tell(url: str) -> None:
        click.echo(f"serving {served} at {url}\nnext: penstock chat --url {url} {served}")

    run(folder, model_name=served, host=host, port=port, on_ready=tell)
