"""The smallest change that would make an impossible request work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from penstock.core.hardware import ACCELERATORS
from serving.sizing.memory import GIB
from serving.sizing.shape import Shape
from serving.sizing.trial import Trial, attempt, longest, splits
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
    yield from _shorter(shape, place, options, wish)
    yield from _fewer(shape, place, options, wish)
    if wish.kv_cache == "auto":
        yield from _so(
            "serving.kv_cache: fp8", shape, place, options, replace(wish, kv_cache="fp8")
        )
    if not wish.memory_share:
        less = replace(wish, memory_share=_SHARE)
        yield from _so(f"serving.memory_share: {_SHARE}", shape, place, options, less)
    for other in others:
        found = list(_so(f"precision: {other.name}", shape, place, [other], wish))
        yield from found
        if found:
            break
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
    for count in _COUNTS:
        if count > place.count:
            found = list(
                _so(f"hardware.count: {count}", shape, replace(place, count=count), options, free)
            )
            if found:
                yield from found
                return


def _other_devices(
    shape: Shape, place: Place, options: Sequence[Option], wish: Wish
) -> Iterator[Change]:
    larger = sorted(
        (a for a in ACCELERATORS.values() if a.visible_gib > place.gpu.visible_gib),
        key=lambda a: (a.visible_gib, a.name),
    )
    came = [each for each in options if each.as_it_came]  # the matrix was asked for this device
    for gpu in larger:
        found = list(
            _so(
                f"hardware.accelerator: {gpu.name}",
                shape,
                replace(place, gpu=gpu),
                came or options,
                wish,
            )
        )
        if found:
            yield from found
            return


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
