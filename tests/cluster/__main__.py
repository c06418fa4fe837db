"""`python -m tests.cluster`: build, start, stop and use the cluster."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from penstock.core.errors import LifecycleError
from tests.cluster import able, build, cgroups, containerfiles, kept, namespace, packages, prepare
from tests.cluster.places import Place, cache
from tests.cluster.waiting import pause


@click.group()
@click.option("--name", default="default", help="Which cluster: several may stand side by side.")
@click.pass_context
def main(context: click.Context, name: str) -> None:
    """Build, start, stop and use a cluster of one node, without Docker."""
    context.obj = Place(name)


@main.command("able")
def able_() -> None:
    """Say whether a cluster can run on this machine; exit with 1 if it cannot."""
    if missing := able.missing(able.this_machine()):
        raise click.ClickException(f"no cluster can run here: {'; '.join(missing)}")


@main.command("definitions")
def definitions_() -> None:
    """Fetch the definitions of objects that unit tests read: a minute, once."""
    build.definitions()


@main.command("build")
def build_() -> None:
    """Build and fetch what a start needs; done once."""
    with _alone():
        build.binaries(click.echo)
        packages.environment(click.echo)
        _builder().build(*containerfiles.TESTED)
        kept.prune(click.echo, time.time())


@main.command("images")
@click.argument("names", nargs=-1, type=click.Choice(containerfiles.named()))
@click.pass_obj
def images_(place: Place, names: tuple[str, ...]) -> None:
    """Build images from their Containerfiles; those that tests use unless NAMES says which.

    A cluster that runs gets them too; pods that run already keep theirs.
    """
    chosen = names or containerfiles.TESTED
    with _alone():
        _builder().build(*chosen)
    first = namespace.first_process(place)
    if first is not None:
        command = (sys.executable, "-m", "tests.cluster.containerfiles", *chosen)
        subprocess.run(namespace.entering(first, command), check=True)


def _builder() -> containerfiles.Builder:
    debian = packages.debian(click.echo)
    return containerfiles.Builder(debian, packages.base(debian, click.echo), click.echo)


@contextmanager
def _alone() -> Iterator[None]:
    """Have other starts wait: two would build the same into the same folder."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@main.command()
@click.pass_context
def up(context: click.Context) -> None:
    """Start the cluster unless it runs; ready when this returns."""
    place: Place = context.obj
    context.invoke(able_)
    if namespace.first_process(place) is None:
        context.invoke(build_)  # inside there is no network to fetch from
        _clean(place)
        place.run.mkdir(parents=True)
        _follow(place, namespace.start(place))
    click.echo(f"KUBECONFIG={place.kubeconfig}, only inside: python -m tests.cluster run -- CMD")


def _follow(place: Place, started: subprocess.Popen[bytes]) -> None:
    """Show what the supervisor says until the cluster is up or is not to be."""
    with (place.logs / "supervisor.log").open() as log:
        while not place.state.exists() and started.poll() is None:
            click.echo(log.read(), nl=False)
            pause(0.1)
        click.echo(log.read(), nl=False)
    if not place.state.exists():
        _clean(place)
        sys.exit(1)


@main.command()
@click.pass_obj
def down(place: Place) -> None:
    """Stop the cluster, also one that broke, and remove what it left."""
    _clean(place)


def _clean(place: Place) -> None:
    namespace.end(place)
    cgroups.remove(place)
    if place.run.exists():
        shutil.rmtree(place.run)
    if not any(place.run.parent.glob("*")):  # another cluster may have mounted something there
        with suppress(OSError):  # never made, or somebody else's
            prepare.VOLUMES.rmdir()


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("command", nargs=-1, type=click.UNPROCESSED, required=True)
@click.pass_obj
def run(place: Place, command: tuple[str, ...]) -> None:
    """Run a command inside the namespaces, with KUBECONFIG set."""
    first = namespace.first_process(place)
    if first is None:
        raise click.ClickException("no cluster runs: python -m tests.cluster up")
    environment = {
        **os.environ,
        "KUBECONFIG": str(place.kubeconfig),
        "PATH": f"{place.binaries}:{os.environ['PATH']}",
    }
    argv = namespace.entering(first, command)
    os.execvpe(argv[0], argv, environment)  # noqa: S606 - a list, no shell


@main.command()
@click.pass_context
def shell(context: click.Context) -> None:
    """Open a shell inside the namespaces; kubectl is there."""
    context.invoke(run, command=(os.environ.get("SHELL", "/bin/sh"),))


@main.command()
@click.option("--output", type=click.Choice(["text", "json"]), default="text")
@click.pass_obj
def status(place: Place, output: str) -> None:
    """Show the cluster's processes, their memory, and where its parts answer."""
    if not place.state.exists():
        raise click.ClickException("no cluster runs: python -m tests.cluster up")
    state = json.loads(place.state.read_text())
    first = namespace.first_process(place)
    outside = namespace.processes(first) if first is not None else {}
    memory = {name: _rss_mb(outside.get(pid)) for name, pid in state["components"].items()}
    if output == "json":
        click.echo(json.dumps({**state, "memory_mb": memory}, indent=1))
        return
    for name, pid in state["components"].items():
        told = "ended" if memory[name] is None else f"{memory[name]} MB"
        click.echo(f"  {name:<26} {pid:>6}  {told}")
    for name in ("kubeconfig", "gateway", "s3", "prometheus", "registry"):
        click.echo(f"{name}: {state[name]}")


def _rss_mb(pid: int | None) -> int | None:
    """Return the memory of a process; None when it ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    lines = dict(line.split(":", 1) for line in text.splitlines())
    return int(lines["VmRSS"].split()[0]) // 1024 if "VmRSS" in lines else None


if __name__ == "__main__":
    try:
        main()
    except LifecycleError as problem:
        sys.exit(f"{problem}\n{problem.hint}".strip())
