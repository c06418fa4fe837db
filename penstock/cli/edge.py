"""What several commands share at the edge: the environment of steps, and how results are told."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from penstock.core.errors import ConfigurationError
from penstock.core.settings import Settings

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
