"""The smallest change that would make an impossible request work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

from penstock.core.hardware import ACCELERATORS
from serving.sizing.memory import GIB
from serving.sizing.shape import Shape
from serving.sizing.trial import NODE, Trial, attempt, longest, splits
from serving.sizing.wish import Change, Option, Place, Wish

_COUNTS = (1, 2, 4, 8, 16)
_SHARE = 0.95
"""vLLM's recipes go so far for what hardly fits, such as gpt-oss-120b on one H100."""


def remedies(
    shape: Shape,
    place: Place,
    options: Sequence[Option],
    wish: Wish,
    others: Sequence[Option] = (),
) -> Iterator[Change]:
    """Yield changes that would work, one per kind, the one that asks for least first.

    Args:
        shape: The model.
        place: What it does not fit on.
        options: Precisions that may be served there.
        wish: What was asked for.
        others: Precisions that nobody asked for, but that would run there.
    """
    found = list(_one(shape, place, options, wish, others))
    yield from found or _both(shape, place, options, wish)


def _one(
    shape: Shape,
    place: Place,
    options: Sequence[Option],
    wish: Wish,
    others: Sequence[Option],
) -> Iterator[Change]:
    """Yield changes to one field."""
    yield from _shorter(shape, place, options, wish)
    yield from _fewer(shape, place, options, wish)
    cache: Literal["auto", "fp8"] = "fp8" if wish.kv_cache == "auto" else "auto"
    other_cache = replace(wish, kv_cache=cache)
    yield from _so(f"serving.kv_cache: {cache}", shape, place, options, other_cache)
    share = None if wish.memory_share else _SHARE
    other_share = replace(wish, memory_share=share)
    told = f"serving.memory_share: {share or 'null'}"
    yield from _so(told, shape, place, options, other_share)
    for other in others:
        found = list(_so(f"precision: {other.name}", shape, place, [other], wish))
        yield from found
        if found:
            break
    if not place.mig:  # parts of a device cannot exchange
        yield from _more_devices(shape, place, options, wish)
    yield from _other_devices(shape, place, options, wish)


def _shorter(shape: Shape, place: Place, options: Sequence[Option], wish: Wish) -> Iterator[Change]:
    """Yield a shorter context, where one was asked for."""
    if not wish.context:
        return
    unbound = replace(wish, context=None)
    found = [
        (longest(shape, trial, wish.concurrency or 1), trial)
        for trial in _trials(shape, place, options, unbound)
        if not trial.why_not
    ]
    if found:
        tokens, trial = max(found, key=lambda each: each[0])
        yield Change(f"serving.context: {tokens}", _told(trial))


def _fewer(shape: Shape, place: Place, options: Sequence[Option], wish: Wish) -> Iterator[Change]:
    """Yield fewer sequences at once, where more than one was asked for."""
    if not wish.concurrency or wish.concurrency == 1:
        return
    alone = replace(wish, concurrency=1)
    found = [each for each in _trials(shape, place, options, alone) if not each.why_not]
    best = max(found, key=lambda each: each.concurrency, default=None)
    if best is not None:
        yield Change(
            f"serving.concurrency: {min(best.concurrency, wish.concurrency - 1)}", _told(best)
        )


def _more_devices(
    shape: Shape, place: Place, options: Sequence[Option], wish: Wish
) -> Iterator[Change]:
    free = replace(wish, tensor_parallel=None, pipeline_parallel=None)
    beside = "" if free == wish else ", without tensor_parallel and pipeline_parallel"
    for count in _COUNTS:
        if count > place.count and count % place.nodes == 0:
            more = _spread(place, count)
            nodes = f" and hardware.nodes: {more.nodes}" if more.nodes != place.nodes else ""
            what = f"hardware.count: {count}{nodes}{beside}"
            found = list(_so(what, shape, more, options, free))
            if found:
                yield from found
                return


def _both(shape: Shape, place: Place, options: Sequence[Option], wish: Wish) -> Iterator[Change]:
    """Yield the least number of other devices that would do, where no change alone does."""
    if place.mig:
        return
    came = [each for each in options if each.as_it_came]
    free = replace(wish, tensor_parallel=None, pipeline_parallel=None)
    for count in _COUNTS:
        for _, larger in _larger(place):
            more = _spread(replace(larger, nodes=1), count)
            nodes = f", nodes: {more.nodes}" if more.nodes > 1 else ""
            what = f"hardware: {{accelerator: {larger.gpu.name}, count: {count}{nodes}}}"
            found = list(_so(what, shape, more, came or options, free))
            if found:
                yield from found
                return


def _spread(place: Place, count: int) -> Place:
    """Return the place with so many devices, in as few nodes as have them."""
    return replace(place, count=count, nodes=max(place.nodes, -(-count // NODE)))


def _other_devices(
    shape: Shape, place: Place, options: Sequence[Option], wish: Wish
) -> Iterator[Change]:
    came = [each for each in options if each.as_it_came]  # the matrix was asked for this device
    for what, larger in _larger(place):
        found = list(_so(what, shape, larger, came or options, wish))
        if found:
            yield from found
            return


def _larger(place: Place) -> list[tuple[str, Place]]:
    """Return devices with more memory, the smallest first; instead of a part, larger parts."""
    whole = ACCELERATORS[place.gpu.name]
    if place.mig:
        found = [(name, replace(place, gpu=whole.slice(name), mig=name)) for name in whole.mig]
        found = [(f"hardware.mig: {name}", part) for name, part in found]
        found.append(("hardware.mig: null", replace(place, gpu=whole, mig="")))
    else:
        found = [
            (f"hardware.accelerator: {each.name}", replace(place, gpu=each))
            for each in ACCELERATORS.values()
        ]
    larger = [each for each in found if each[1].gpu.visible_gib > place.gpu.visible_gib]
    return sorted(larger, key=lambda each: (each[1].gpu.visible_gib, each[0]))


def _so(
    what: str, shape: Shape, place: Place, options: Sequence[Option], wish: Wish
) -> Iterator[Change]:
    first = next((each for each in _trials(shape, place, options, wish) if not each.why_not), None)
    if first is not None:
        yield Change(what, _told(first))


def _trials(shape: Shape, place: Place, options: Sequence[Option], wish: Wish) -> Iterator[Trial]:
    for option in options:
        for split in splits(place, wish):
            yield attempt(shape, place, option, split, wish)


def _told(trial: Trial) -> str:
    return (
        f"{trial.name}, {trial.fixed / GIB:.1f} GiB and {trial.room / GIB:.1f} GiB of cache per"
        f" device: {trial.concurrency} x {trial.context:,} tokens"
    )
