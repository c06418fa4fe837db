"""`penstock pipelines`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from penstock.cli.edge import output_option, print_json
from penstock.cli.kfp import kfp_options
from penstock.cli.submit import images_option

if TYPE_CHECKING:
    from pipelines.submission.settings import KfpSettings


@click.group()
def command() -> None:
    """Penstock's pipelines on Kubeflow Pipelines."""


@command.command()
@click.argument("names", nargs=-1)
@images_option
@kfp_options
@output_option
def publish(names: tuple[str, ...], images: str | None, kfp: KfpSettings, output: str) -> None:
    """Upload our pipelines, or those of NAMES; what is there already is not uploaded again.

    A version is called after Penstock's version and the content of the pipeline.
    """
    from pipelines.submission import package, publishing
    from pipelines.submission.client import connect

    packages = [package.compiled(n, images=images or "") for n in names or package.names()]
    rows = []
    with connect(kfp) as client:
        for each in packages:
            stored = publishing.publish(client, each)
            rows.append(
                {
                    "pipeline": each.name,
                    "version": stored.version.name,
                    "pipeline_id": stored.pipeline.pipeline_id,
                    "version_id": stored.version.version_id,
                    "uploaded": stored.uploaded,
                }
            )
            if output == "text":
                did = "published" if stored.uploaded else "unchanged"
                click.echo(f"{did}  {each.name}  {stored.version.name}")
    if output == "json":
        print_json({"pipelines": rows})


@command.command("list")
@kfp_options
@output_option
def list_(kfp: KfpSettings, output: str) -> None:
    """Show the pipelines there, their newest version, and what it takes."""
    from penstock import __version__
    from pipelines.submission.client import connect
    from pipelines.submission.naming import penstock_of

    rows: list[dict[str, Any]] = []
    with connect(kfp) as client:
        for pipeline in client.pipelines.list():
            versions = client.pipelines.versions(pipeline.pipeline_id)
            newest = versions[0] if versions else None
            rows.append(
                {
                    "pipeline": pipeline.name,
                    "pipeline_id": pipeline.pipeline_id,
                    "versions": [version.name for version in versions],
                    "penstock": penstock_of(newest.name) if newest else None,
                    "parameters": newest.parameters if newest else [],
                }
            )
    if output == "json":
        print_json({"pipelines": rows})
        return
    for row in rows:
        newest_name = row["versions"][0] if row["versions"] else "no version"
        other = (
            f"  (Penstock {row['penstock']})" if row["penstock"] not in (None, __version__) else ""
        )
        takes = ", ".join(row["parameters"]) or "nothing"
        click.echo(f"{row['pipeline']}  {newest_name}{other}  of {len(row['versions'])}")
        click.echo(f"    takes {takes}")
    if not rows:
        click.echo("no pipelines; next: penstock pipelines publish")
