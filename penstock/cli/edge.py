"""What several commands share at the edge: the environment of steps, and how results are told."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock.core.errors import ConfigurationError
from penstock.core.settings import Settings

if TYPE_CHECKING:
    from penstock.core.spec import KServe
    from serving.targets.kserve import ClusterTarget
    from serving.targets.target import Target

output_option: Callable[[Any], Any] = click.option(
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="For people, or for programs.",
)

_QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "GX_ANALYTICS_ENABLED": "False",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "0",
}


def environment(**overrides: str) -> dict[str, str]:
    """Return the environment of the processes we start; what the user set wins over defaults."""
    return {**_QUIET, **os.environ, **overrides}


def settings_of(env: Mapping[str, str] | None = None) -> Settings:
    """Return the settings, from the process's environment unless another is given."""
    return Settings.from_env(os.environ if env is None else env)


@dataclass(frozen=True, slots=True)
class Where:
    """Which place a command is about."""

    context: str | None = None
    namespace: str | None = None
    mode: str | None = None
    gateway: str | None = None
    address: str | None = None
    prometheus: str | None = None
    render: Path | None = None
    """Folder that objects are written into, instead of the cluster."""

    @property
    def options(self) -> str:
        """What to add to another command about the same place; it begins with a space."""
        return "".join(f" --{name} {value}" for name, value in self._named().items())

    @property
    def cluster(self) -> bool:
        """Whether it is a cluster."""
        return bool(self.context or self.namespace)

    def target(self) -> Target:
        """Return the place: this machine, unless a context or a namespace was named."""
        from serving.targets.choose import rendered, target_of

        if not self.cluster:
            return rendered(target_of(settings_of(), "local"), self.render)
        return rendered(self.cluster_target(), self.render)

    def cluster_target(self) -> ClusterTarget:
        """Return the cluster that was named."""
        from serving.targets.kserve import connect

        need("cluster", "kubernetes")
        return connect(self.kserve(), settings_of())

    def kserve(self) -> KServe:
        """Return it as a spec has it."""
        from pydantic import ValidationError

        from penstock.core.spec import KServe

        named = {name: value for name, value in self._named().items() if name != "render"}
        try:
            return KServe.model_validate(named)
        except ValidationError as problem:
            name = str(problem.errors()[0]["loc"][0])
            raise ConfigurationError(
                f"--{name}: found {self._named()[name]!r}; allowed: "
                f"{KServe.model_fields[name].description}",
                hint="or its variable in the environment: penstock status --help names them",
            ) from problem

    def _named(self) -> dict[str, str]:
        return {name: str(value) for name, value in asdict(self).items() if value}


def target_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that name a cluster; the command gets `where`."""

    @click.option(
        "--context",
        envvar="PENSTOCK_CONTEXT",
        help="Context of the kubeconfig: the cluster there, not this machine.",
    )
    @click.option(
        "-n", "--namespace", envvar="PENSTOCK_NAMESPACE", help="Namespace on the cluster."
    )
    @click.option(
        "--mode",
        envvar="PENSTOCK_MODE",
        type=click.Choice(["auto", "route", "llmisvc", "istio"]),
        help="Mechanism that splits traffic on the cluster, if it is not the one that auto takes.",
    )
    @click.option(
        "--gateway",
        envvar="PENSTOCK_GATEWAY",
        metavar="NAMESPACE/NAME",
        help="The Gateway there that routes, if it is not KServe's own.",
    )
    @click.option(
        "--address",
        envvar="PENSTOCK_ADDRESS",
        metavar="URL",
        help="That Gateway as seen from here, if not by the address in its status.",
    )
    @click.option(
        "--prometheus",
        envvar="PENSTOCK_PROMETHEUS",
        metavar="URL",
        help="The Prometheus that scrapes the pods there; without it they are read directly.",
    )
    @wraps(command)
    def with_target(*args: object, **kwargs: Any) -> None:
        where = Where(**{field.name: kwargs.pop(field.name, None) for field in fields(Where)})
        command(*args, where=where, **kwargs)

    return with_target


render_option: Callable[[Any], Any] = click.option(
    "--render",
    envvar="PENSTOCK_RENDER",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write manifests into DIR, to be committed, instead of changing the cluster.",
)
"""Above `target_options`; docs/gitops.md."""


def has_registry(settings: Settings) -> bool:
    """Return whether there is a registry: somebody named one, or a run made one here."""
    return not settings.own_registry or (settings.home / "mlflow.db").exists()


NO_REGISTRY = "MLFLOW_TRACKING_URI is not set, so no alias of a registry is moved"


def gc_options(keep: str) -> Callable[[Any], Any]:
    """Return what adds the options of a command that removes what nothing needs.

    Args:
        keep: What `--unused-for` keeps, and why.
    """
    options = (
        click.option(
            "--unused-for",
            "hours",
            default=24.0,
            show_default=True,
            type=click.FloatRange(0),
            metavar="HOURS",
            help=keep,
        ),
        click.option(
            "--dry-run", is_flag=True, help="Say what would be removed, and remove nothing."
        ),
    )
    return lambda command: options[0](options[1](command))


def need(extra: str, *modules: str) -> None:
    """Raise with the install line when an extra's packages are not here."""
    import importlib.util

    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"this command needs {', '.join(missing)}", hint=f"pip install 'penstock[{extra}]'"
        )


def print_json(body: object) -> None:
    """Print a document for programs."""
    click.echo(json.dumps(body, indent=1, default=_plain))


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else repr(value)
