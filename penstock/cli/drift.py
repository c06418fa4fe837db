"""`penstock drift`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli.edge import (
    NO_REGISTRY,
    Where,
    has_registry,
    output_option,
    print_json,
    settings_of,
    target_options,
)
from penstock.core.errors import ConfigurationError, GateFailed

if TYPE_CHECKING:
    from serving.cluster import Kind, Object
    from serving.gitops.drift import Finding
    from serving.targets.kserve import ClusterTarget


@click.command()
@click.argument(
    "folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@target_options
@output_option
def command(where: Where, folder: Path | None, output: str) -> None:
    """Say where Git (FOLDER, as --render wrote it), cluster and registry disagree.

    Without FOLDER only cluster and registry are compared. Exit code 0: they agree; 4: they do not.
    """
    if not where.cluster:
        raise ConfigurationError("which cluster?", hint="--namespace N names it")
    target, checked = where.cluster_target(), has_registry(settings_of())
    found = [*_objects(target, folder), *(_aliases(target) if checked else ())]
    problem = GateFailed(
        f"{len(found)} {'difference' if len(found) == 1 else 'differences'}",
        hint="commit what is right, and have it applied; an alias follows the next promotion",
    )
    if output == "json":
        print_json({"findings": [asdict(each) for each in found], "registry": checked})
        sys.exit(problem.exit_code if found else 0)
    for each in found:
        click.echo(str(each))
    if not checked:
        click.echo(NO_REGISTRY.replace("moved", "compared"))
    if found:
        raise problem
    click.echo("no difference")


def _objects(target: ClusterTarget, folder: Path | None) -> Iterator[Finding]:
    from serving.gitops import drift
    from serving.gitops.folder import FolderCluster

    if folder is None:
        return iter(())
    git, kinds = FolderCluster(folder, target.where.namespace), _kinds(target)
    return drift.of_objects(
        [obj for kind in kinds for obj in git.list(kind)],
        [obj for kind in kinds for obj in target.cluster.list(kind)],
    )


def _aliases(target: ClusterTarget) -> Iterator[Finding]:
    from components.steps.verbs import catalog_of
    from registry.catalog import CHAMPION
    from serving.gitops import drift

    catalog = catalog_of(settings_of())
    serving = {obj["metadata"]["name"]: _leader(target, obj) for obj in _carriers(target)}
    champions = {}
    for name in serving:
        version = catalog.by_alias(name, CHAMPION)
        champions[name] = version.number if version is not None else None
    return drift.of_aliases(serving, champions)


def _carriers(target: ClusterTarget) -> list[Object]:
    from serving.manifests import NAME

    every = target.cluster.list(target.traffic.carrier)
    return [o for o in every if o["metadata"].get("labels", {}).get(NAME) == o["metadata"]["name"]]


def _leader(target: ClusterTarget, carrier: Object) -> str:
    shares = target.traffic.weights_of(carrier)
    return max(shares, key=lambda service: shares[service], default="")


def _kinds(target: ClusterTarget) -> list[Kind]:
    return [target.traffic.served, target.traffic.carrier]
