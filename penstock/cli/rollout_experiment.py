"""`penstock rollout experiment`: the split of now, as Seldon Core 2 writes it."""

from __future__ import annotations

import click
import yaml

from penstock.cli.edge import Where, target_options
from penstock.core.errors import ConfigurationError


@click.command()
@click.argument("name")
@target_options
def experiment(where: Where, name: str) -> None:
    """Print who gets which share of NAME as an Experiment of Seldon Core 2.

    It splits the endpoint of the stable version, over Models with the names of the versions.
    """
    from serving import controller as acting
    from serving import seldon

    target = where.target()
    obj = target.cluster.get(target.traffic.carrier, name) if target.began else None
    if obj is None:
        raise ConfigurationError(f"{name} is not served", hint=f"{target.hint} shows what is")
    shares = target.traffic.weights_of(obj)
    stable = acting.stable_of(target.cluster, name, target.traffic)
    namespace = obj["metadata"].get("namespace", "default")
    made = seldon.experiment(name, namespace, shares, stable)
    click.echo(yaml.safe_dump(made, sort_keys=False), nl=False)
