"""Shows a rollout while it goes on: a live view in a terminal, a line per change elsewhere."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from penstock.cli import rollout_view as view
from penstock.core.spec import Rollout
from serving import controller as acting
from serving.rollout.judge import told
from serving.rollout.record import Record

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table
    from rich.text import Text

PERIOD_S = 0.5
_SHOWN, _CELLS = 6, 24

Show = Callable[[view.State, Iterable[str]], None]


def follow(
    look: Callable[[], view.State],
    show: Show,
    *,
    wait: Callable[[float], object] | None = None,
) -> view.State:
    """Show a rollout until it is over; return how it ended.

    Args:
        look: Returns it as it is now.
        show: Shows it, and the changes since the last call.
        wait: Passes the time between two looks.
    """
    before: Record | None = None
    wait = wait or threading.Event().wait
    while True:
        state = look()
        after = state.record
        changed = before is None or _place(before) != _place(after)
        show(state, [change(state)] if changed else [])
        if after.over:
            return state
        before = after
        wait(PERIOD_S)


def change(state: view.State) -> str:
    """Return a change as a line: when, where it is now, and why."""
    return f"{_clock(state.now)} {view.place(state.record)}: {state.record.reason}"


def lines(_state: view.State, changes: Iterable[str]) -> None:
    """Print a line per change."""
    for line in changes:
        click.echo(line)


@contextmanager
def terminal(console: Console) -> Iterator[Show]:
    """Yield what shows a rollout in a terminal, at the same place each time."""
    from rich.live import Live

    last: deque[str] = deque(maxlen=_SHOWN)
    with Live(console=console, auto_refresh=False) as live:

        def show(state: view.State, changes: Iterable[str]) -> None:
            last.extend(changes)
            live.update(picture(state, last), refresh=True)

        yield show


def picture(state: view.State, changes: Iterable[str]) -> Group:
    """Return a rollout as it is drawn in a terminal."""
    from rich.console import Group
    from rich.text import Text

    record, due = state.record, view.deadline(state)
    left = f"{view.span(due.left_s)}, then {due.then}" if due is not None else "no limit"
    owner = state.holder or "nobody: penstock controller"
    return Group(
        Text(f"{state.name}: {view.place(record)}", style="bold"),
        Text(f"{record.candidate} against {record.stable}: {record.reason}"),
        _weights(state),
        Text(""),
        _evidence(record, state.policy),
        Text(""),
        Text(f"evidence   {view.counted(record)}"),
        Text(f"time left  {left}"),
        Text(f"owner      {owner}" if not record.over else ""),
        *(Text(line, style="dim") for line in changes),
    )


def bar(log: float, bound: float) -> str:
    """Return an e-value between 1 and its bound, on a log scale; below 1 there is nothing."""
    share = min(1.0, max(0.0, log / math.log(bound)))
    full = int(share * _CELLS)
    return "█" * full + "░" * (_CELLS - full)


def _weights(state: view.State) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for service, asked in sorted(acting.weights(state.record).items()):
        full = asked * _CELLS // 100
        real = "not known" if state.routed is None else f"{state.routed.get(service, 0)} %"
        drawn = "█" * full + "░" * (_CELLS - full)
        table.add_row(service, drawn, f"{asked} % asked for", f"routed: {real}")
    return table


def _evidence(record: Record, policy: Rollout) -> Table:
    from rich.table import Table

    setting, verdict, rows = view.standings(record, policy)
    demand, wanted = 1 / policy.false_rollback, 1 / policy.missed
    table = Table.grid(padding=(0, 2))
    table.add_row(setting, f"worse, 1 to {demand:,.0f}", "", f"proof, 1 to {wanted:,.0f}", "")
    for row in rows:
        worse = (_coloured(row.worse, demand, "red"), told(row.worse))
        proof: tuple[Text | str, str] = ("", "")
        if row.proof is not None:
            proof = (_coloured(row.proof, wanted, "green"), told(row.proof))
        table.add_row(row.metric, *worse, *proof)
    total = (_coloured(verdict.rollback, demand, "red"), told(verdict.rollback))
    table.add_row("rollback", *total, "over all metrics, shadow and live", "")
    return table


def _coloured(log: float, bound: float, colour: str) -> Text:
    from rich.text import Text

    return Text(bar(log, bound), style=f"bold {colour}" if log >= math.log(bound) else colour)


def _place(record: Record) -> tuple[object, ...]:
    return record.candidate, record.phase, record.step, record.held, record.reason


def _clock(now: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(now))
