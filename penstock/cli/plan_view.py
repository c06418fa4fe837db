"""How a plan is told: a few lines for people, all of the arithmetic with `--explain`; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.cli.plan_diff import Running
    from serving.sizing.memory import Item
    from serving.sizing.wish import Change, Rejected

GIB = 1 << 30
_WIDTH = 48


@dataclass(frozen=True, slots=True)
class Answer:
    """A plan, as it is told."""

    name: str
    source: str
    model: str
    """One line about the checkpoint."""

    engine: str
    precision: str
    devices: str
    items: tuple[Item, ...]
    device: float
    """Bytes of one device."""

    capacity: float
    """Bytes that the engine may use of it."""

    room: float
    """Bytes for the KV cache beside the items."""

    context: int
    concurrency: int
    reasons: tuple[str, ...] = ()
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    replicas: int = 0
    """For the load that was named; 0: none was."""

    share: float = 1.0
    sequence: float = 0.0
    token: float = 0.0
    settings: str = ""
    """What to write into model.yaml to have exactly this."""

    estimates: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    running: Running | None = None
    fits: bool = True


def lines(answer: Answer, *, explain: bool) -> Iterator[str]:
    """Yield what a person reads."""
    yield answer.model
    for reason in answer.reasons:
        yield f"  {reason}"
    yield from _memory(answer)
    if answer.context:
        yield f"  context   {answer.context:,} tokens x {answer.concurrency:,} at once"
    for told in answer.estimates:
        yield f"  estimate  {told}"
    if answer.settings:
        yield f"  settings  {answer.settings}"
    for warning in answer.warnings:
        yield f"  ! {warning}"
    if explain:
        yield from _arithmetic(answer)
        yield from rejected(answer.rejected)
    if answer.running is not None:
        yield from _running(answer.running, explain=explain)


def bar(parts: Iterable[tuple[str, float]], whole: float) -> str:
    """Return a bar of parts, one sign each, dots for what stays free."""
    drawn = ""
    for sign, size in parts:
        if size > 0:
            drawn += sign * max(1, round(_WIDTH * size / whole))
    return f"[{drawn[:_WIDTH].ljust(_WIDTH, '.')}]"


def changes(found: Iterable[Change]) -> Iterator[str]:
    """Yield what would make a request work."""
    for each in found:
        yield f"  {each.what}: {each.then}"


def rejected(found: Iterable[Rejected]) -> Iterator[str]:
    """Yield what was looked at and not taken."""
    told = [f"    {each.what}: {each.why}" for each in found]
    if told:
        yield "  rejected"
        yield from told


def document(answer: Answer) -> dict[str, Any]:
    """Return it for programs."""
    return asdict(answer)


def _memory(answer: Answer) -> Iterator[str]:
    if not answer.items:
        return
    fixed, whole = sum(item.bytes for item in answer.items), answer.capacity
    weights = answer.items[0].bytes
    drawn = bar((("#", weights), ("+", fixed - weights), ("=", answer.room)), answer.device)
    yield f"  memory    {drawn} {answer.device / GIB:.1f} GiB per device"
    cache = f"  = KV cache {answer.room / GIB:.1f}" if answer.room else ""
    yield (
        f"            # weights {weights / GIB:.1f}  + beside them {(fixed - weights) / GIB:.1f}"
        f"{cache}  of {whole / GIB:.1f} GiB it may use"
    )


def _arithmetic(answer: Answer) -> Iterator[str]:
    yield "  arithmetic, on the fullest device"
    for item in answer.items:
        yield from _item(item)
    if answer.sequence:
        yield (
            f"    {'KV cache':<16}{answer.room / GIB:>9.2f} GiB  what is left of"
            f" {answer.share:.0%}; a sequence of {answer.context:,} tokens takes"
            f" {answer.sequence / GIB:.3f} GiB, one token more {answer.token:,.0f} bytes"
        )


def _item(item: Item) -> Iterator[str]:
    yield f"    {item.name:<16}{item.bytes / GIB:>9.2f} GiB  {item.formula}"
    yield f"    {'':<16}{'':>9}      {item.source}"


def _running(running: Running, *, explain: bool) -> Iterator[str]:
    if running.devices:
        yield f"  devices   {running.devices}"
    if running.unknown:
        yield f"  what runs is not known: {running.unknown}"
    elif not running.service:
        yield "  nothing runs under this name: everything would be new"
    elif not running.changes:
        yield f"  {running.service} runs so already, the checkpoint aside"
    else:
        count = len(running.changes)
        yield f"  {count} change{'s' if count > 1 else ''} to what runs ({running.service})"
        shown = running.changes if explain else running.changes[:5]
        yield from (f"    {each}" for each in shown)
        if count > len(shown):
            yield f"    and {count - len(shown)} more: --explain"
