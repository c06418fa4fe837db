"""`penstock doctor`."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from typing import NamedTuple

import click

from penstock.cli.edge import output_option, print_json, settings_of
from penstock.core.errors import ConfigurationError, LifecycleError
from penstock.core.settings import Settings

_FREE_BYTES = 2_000_000_000


class Check(NamedTuple):
    """One thing that was looked at."""

    name: str
    ok: bool
    found: str
    hint: str = ""


@click.command()
@output_option
def command(output: str) -> None:
    """Say what this machine can do, and what to do about what is missing; changes nothing."""
    checks = list(_checks(settings_of()))
    if output == "json":
        print_json([check._asdict() for check in checks])
    else:
        for check in checks:
            click.echo(f"  {'✓' if check.ok else '✗'} {check.name:<16} {check.found}")
            if not check.ok and check.hint:
                click.echo(f"    next: {check.hint}")
    if not all(check.ok for check in checks):
        raise ConfigurationError("something is missing", hint="see above")


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
