"""`penstock submit`."""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.edge import output_option, print_json
from penstock.cli.kfp import document, follow, kfp_options, timeout_option, wait_option
from penstock.core.errors import ConfigurationError

if TYPE_CHECKING:
    from penstock.core.spec import ModelSpec
    from pipelines.submission.package import Package
    from pipelines.submission.settings import KfpSettings

images_option = click.option(
    "--images",
    envvar="PENSTOCK_IMAGES",
    metavar="HOST/PATH|FILE.json",
    help="Registry of Penstock's images for the steps' pods, if their names alone are not found; "
    "or a JSON file that names each by digest.",
)


@click.command()
@click.argument("spec", type=click.Path(path_type=Path), default=Path("model.yaml"))
@click.option("--pipeline", default="lifecycle", show_default=True, help="Which of ours.")
@click.option(
    "--param",
    "given",
    multiple=True,
    metavar="NAME=VALUE",
    help="A further parameter of the pipeline; VALUE as JSON, or a text.",
)
@click.option("--experiment", help="Where the run stands, if not PENSTOCK_KFP_EXPERIMENT.")
@click.option("--version", help="A published version, instead of what this Penstock compiles.")
@click.option("--no-publish", is_flag=True, help="Take what is published; upload nothing.")
@click.option(
    "--pod-paths", is_flag=True, help="Paths in SPEC are paths in the pods, not on this machine."
)
@images_option
@wait_option
@timeout_option
@kfp_options
@output_option
def command(
    *,
    spec: Path,
    pipeline: str,
    given: tuple[str, ...],
    experiment: str | None,
    version: str | None,
    no_publish: bool,
    pod_paths: bool,
    images: str | None,
    wait: bool,
    timeout_s: float | None,
    kfp: KfpSettings,
    output: str,
) -> None:
    """Run a pipeline for what SPEC (model.yaml) describes on Kubeflow Pipelines.

    The spec is checked first. The pipeline is published if this version of it is not there yet.
    """
    from pipelines.submission.client import connect
    from pipelines.submission.naming import run_name
    from pipelines.submission.package import check_parameters, compiled
    from pipelines.submission.publishing import publish, published
    from pipelines.submission.values import NewRun

    model = _checked(spec, pod_paths=pod_paths)
    registry = images or (None if model.target == "local" else model.target.kserve.images)
    package = compiled(pipeline, images=registry or "")
    parameters = _parameters(model, package, given)
    check_parameters(package, parameters)
    with connect(kfp) as client:
        stored = (
            published(client, package, version=version or "")
            if version or no_publish
            else publish(client, package)
        )
        group = client.experiments.ensure(experiment or kfp.experiment)
        run = client.runs.create(
            NewRun(
                name=run_name(model.name, datetime.now(UTC), secrets.token_hex(3)),
                experiment_id=group.experiment_id,
                pipeline_id=stored.pipeline.pipeline_id,
                version_id=stored.version.version_id,
                parameters=parameters,
                description=f"penstock submit: {package.name} {stored.version.name}",
            )
        )
        if output == "text":
            did = "published" if stored.uploaded else "found"
            click.echo(f"{did} {package.name} {stored.version.name}")
            click.echo(f"run {run.name}\n  {run.run_id}\n  {kfp.link(run.run_id)}")
        if wait:
            follow(client, run.run_id, kfp, output, timeout_s)
        elif output == "json":
            print_json(document(run, kfp))
        else:
            click.echo(f"next: penstock runs show {run.run_id} --wait")


def _checked(path: Path, *, pod_paths: bool) -> ModelSpec:
    from penstock.cli.run import read_spec
    from pipelines.submission.checks import check_for_pods

    model = read_spec(path, anchored=False)
    check_for_pods(model, where=str(path), pod_paths=pod_paths)
    return model


def _parameters(model: ModelSpec, package: Package, given: tuple[str, ...]) -> dict[str, Any]:
    """Return what the pipeline is given: the spec, and what was named."""
    from components.steps.parameters import as_parameter

    kinds = {each.name: each.kind for each in package.parameters}
    found: dict[str, Any] = {"spec": as_parameter(model.to_json())} if "spec" in kinds else {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ConfigurationError(f"--param: found {pair!r}; allowed: NAME=VALUE")
        found[name] = value if kinds.get(name) == "STRING" else _value(value)
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
