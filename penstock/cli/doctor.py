"""`penstock doctor`."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import sys
from collections.abc import Iterator

import click

from penstock.cli.edge import (
    Where,
    has_registry,
    output_option,
    print_json,
    settings_of,
    target_options,
)
from penstock.core.checks import Check
from penstock.core.errors import ConfigurationError, LifecycleError, ServingError
from penstock.core.settings import Settings

_FREE_BYTES = 2_000_000_000


@click.command()
@target_options
@output_option
def command(where: Where, output: str) -> None:
    """Say what this machine, or a cluster, can do, and what to do about what is missing.

    Changes nothing.
    """
    checks = list(_cluster(where) if where.cluster else _checks(settings_of()))
    if output == "json":
        print_json([check._asdict() for check in checks])
    else:
        for check in checks:
            click.echo(f"  {'✓' if check.ok else '✗'} {check.name:<16} {check.found}")
            if not check.ok and check.hint:
                click.echo(f"    next: {check.hint}")
    if not all(check.ok for check in checks):
        raise ConfigurationError("something is missing", hint="see above")


def _cluster(where: Where) -> Iterator[Check]:
    """Yield what a cluster can do."""
    from serving import kube
    from serving.targets import checks, probe
    from serving.targets.scrape import prometheus

    asked, settings = where.kserve(), settings_of()
    try:
        cluster = kube.connect(asked.context or "", asked.namespace)
        found = probe.look(cluster, asked, rights=True)
    except ServingError as problem:
        yield Check("kubernetes", False, str(problem), problem.hint)
        return
    yield from checks.checks(found, asked)
    there = [name for name, is_there in found.runtimes.items() if is_there]
    install = f"kubectl -n {asked.namespace} apply -k deploy/runtimes"
    yield Check("runtimes", bool(there), ", ".join(there) or "none", install)
    yield Check("gpus", True, "not known" if found.gpus is None else f"{found.gpus} on all nodes")
    if asked.prometheus:
        yield prometheus(asked.prometheus, asked.namespace)
    yield _storage(settings)
    yield _registry(settings)


def _storage(settings: Settings) -> Check:
    secret = settings.storage_secret or "none, PENSTOCK_STORAGE_SECRET is not set"
    place = settings.s3_endpoint or "AWS, AWS_ENDPOINT_URL is not set"
    return Check("storage", True, f"S3 at {place}; pods' Secret: {secret}")


def _registry(settings: Settings) -> Check:
    from components.steps.verbs import catalog_of

    if not has_registry(settings):
        return Check("mlflow", True, "none yet, MLFLOW_TRACKING_URI is not set")
    try:
        aliased = catalog_of(settings).aliased()
    except LifecycleError as problem:
        return Check("mlflow", False, str(problem), problem.hint)
    return Check("mlflow", True, f"{settings.tracking_uri}, {len(aliased)} versions with an alias")


def _checks(settings: Settings) -> Iterator[Check]:
    yield Check("python", sys.version_info >= (3, 11), sys.version.split()[0], "Python >= 3.11")
    packages = ("torch", "transformers", "great_expectations", "aiohttp", "mlflow", "kfp")
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    told = f"missing: {', '.join(missing)}" if missing else "all here"
    yield Check("packages", not missing, told, "pip install 'penstock[local]'")
    yield Check("cores", True, str(os.cpu_count()))
    place = settings.home
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    yield Check(
        "disk", free > _FREE_BYTES, f"{free / 1e9:.1f} GB free at {settings.home}", "free 2 GB"
    )
    yield _paths(settings)
    yield _gateway(settings)
    yield Check(
        "hub", True, settings.hub_endpoint + (", with a token" if settings.hub_token else "")
    )


def _paths(settings: Settings) -> Check:
    from pipelines.runner import check_paths

    try:
        check_paths(settings)
    except LifecycleError as problem:
        return Check("home", False, str(problem), problem.hint)
    return Check("home", True, str(settings.home))


def _gateway(settings: Settings) -> Check:
    from serving.local.processes import holder

    name = f"port {settings.gateway_port}"
    if holder(settings.cluster / "gateway.lock") is not None:
        return Check(name, True, "our gateway")
    with socket.socket() as probe:
        taken = probe.connect_ex(("127.0.0.1", settings.gateway_port)) == 0
    told = "in use by another process" if taken else "free"
    return Check(name, not taken, told, "set PENSTOCK_GATEWAY_PORT")
