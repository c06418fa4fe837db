"""`penstock controller`."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import click

from penstock.cli.edge import (
    NO_REGISTRY,
    Where,
    has_registry,
    need,
    settings_of,
    target_options,
)

if TYPE_CHECKING:
    from penstock.cli.rollout_keeper import Keeper
    from serving.rollout.record import Record
    from serving.targets.target import Target


@click.command()
@click.option("--once", is_flag=True, help="End when no rollout is left that needs it.")
@click.option(
    "--threads",
    default=8,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Looks at the same time; one that replays prompts takes seconds.",
)
@target_options
def command(where: Where, once: bool, threads: int) -> None:
    """Look after every rollout there that nobody else looks after.

    Finishes what a dead pipeline left, and keeps deadlines. Stops at SIGTERM or Ctrl-C; another
    owner can then go on at once.

    In shadow it replays what penstock run would have replayed: the items of data.evaluate, which
    were kept beside the rollout, and the requests that the gateway logged. A version that it
    promotes becomes the registry's champion.
    """
    need("local", "aiohttp", "prometheus_client")
    from components.steps.rollout import promoted
    from penstock.cli.rollout_keeper import Duty, Keeper

    settings, target = settings_of(), where.target()

    def champion(name: str, record: Record) -> None:
        if where.cluster and not has_registry(settings):
            _tell(f"{name}: {NO_REGISTRY}")
            return
        promoted(settings, name, record.candidate)

    duty = Duty(
        cluster=target.cluster,
        log=target.log,
        world=lambda name, policy: closing(target.world(name, policy)),
        owner=f"controller-{socket.gethostname()}-{os.getpid()}",
        tell=_tell,
        promoted=champion,
        traffic=target.traffic,
        hint=target.hint,
        left=partial(_forget, target),
    )
    if not once:
        _tell(f"{duty.owner} looks after rollouts{where.options or ' on this machine'}")
    keeper = Keeper(duty, threads=threads, look_s=target.look_s)
    asyncio.run(_until_told(keeper, once=once))


def _forget(target: Target, name: str) -> None:
    """Remove what was kept for a rollout that is over: a pipeline that died no longer does."""
    from serving.controller import record_of

    obj = target.cluster.get(target.traffic.carrier, name)
    record = record_of(obj) if obj is not None else None
    if record is not None and record.over:
        target.forget_prompts(record.candidate)


async def _until_told(keeper: Keeper, *, once: bool) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, keeper.stop)
    await keeper.run(once=once)


def _tell(line: str) -> None:
    click.echo(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {line}")
