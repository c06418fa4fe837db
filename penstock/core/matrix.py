"""The one answer to "does this artifact run in this engine on this GPU?", and to "what would?".

Every decision about precision asks here; docs/reference/precision.md is made from the same rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from penstock.core.errors import ConfigurationError
from penstock.core.gpus import CPU, FAMILIES, sm_of
from penstock.core.matrix_rows import (
    ARTIFACTS,
    ENGINES,
    FIRST_SM,
    ROWS,
    Artifact,
    Engine,
    How,
    Row,
)
from penstock.core.matrix_sources import SOURCES

_RANK: dict[How, int] = {"yes": 0, "fallback": 1, "emulated": 2}
_SHOWN = {
    "Ampere (80, 86)": 80,
    "Ada (89)": 89,
    "Hopper (90)": 90,
    "Blackwell (100, 103)": 100,
    "Blackwell (120, 121)": 120,
    "CPU": CPU,
}


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether and how an artifact runs."""

    ok: bool
    how: How
    reason: str
    nearest: str | None
    """The nearest artifact that runs there: same bits first; None where the engine runs nothing."""

    source: str
    """Where that is known from, and whether it was measured, read or inferred."""


def judge(artifact: str, engine: str, version: str, gpu: str) -> Fit:
    """Say whether an engine runs an artifact on a GPU, why, and what would run instead.

    Args:
        artifact: A name of `ARTIFACTS`.
        engine: A name of `ENGINES`.
        version: Of the engine (`ENGINES[engine].text` says of what); empty means the one that
            Penstock's documentation assumes.
        gpu: Any name that `gpus.sm_of` knows, or `cpu`.

    Raises:
        ConfigurationError: The artifact, the engine, the version or the GPU is not known by name.
    """
    sm = sm_of(gpu)
    row = _row(_known(artifact, ARTIFACTS, "artifact"), engine, version, sm)
    runs = row.how != "no"
    return Fit(
        ok=runs,
        how=row.how,
        reason=row.reason,
        nearest=artifact if runs else _nearest(ARTIFACTS[artifact], _fits(engine, version, sm)),
        source=SOURCES[row.source].told(row.basis),
    )


def possible(engine: str, version: str, gpu: str) -> list[str]:
    """Return what the engine runs on the GPU, the artifact most worth trying first.

    Native arithmetic comes before a fallback, and a fallback before emulation; among equals the
    order of `ARTIFACTS` decides. The arguments are those of `judge`.
    """
    return list(_fits(engine, version, sm_of(gpu)))


def _fits(engine: str, version: str, sm: int) -> dict[str, How]:
    """Return how each artifact that runs does so, in the order of `possible`."""
    hows = {name: _row(name, engine, version, sm).how for name in ARTIFACTS}
    found = [name for name in hows if hows[name] != "no"]
    return {name: hows[name] for name in sorted(found, key=lambda name: _RANK[hows[name]])}


def _nearest(wanted: Artifact, fits: dict[str, How]) -> str | None:
    checkpoints = [name for name in fits if ARTIFACTS[name].bits]
    if not wanted.bits:  # an engine directory: whatever is most worth trying
        return next(iter(checkpoints), None)

    def distance(name: str) -> tuple[int, int, int, bool]:
        # at the same distance more bits win, for they lose less; then native arithmetic
        other = ARTIFACTS[name]
        off = abs(other.bits - wanted.bits)
        return off, -other.bits, _RANK[fits[name]], other.integer != wanted.integer

    return min(checkpoints, key=distance, default=None)


def _row(artifact: str, engine: str, version: str, sm: int) -> Row:
    """Return the first row that speaks of the pair, or the refusal of what no row speaks of."""
    known = ENGINES[_known(engine, ENGINES, "engine")]
    told = _release(version or known.versions[0], known)
    name = known.same_as or known.name
    for row in ROWS:
        if (
            row.engine == name
            and artifact in row.artifacts.split()
            and row.sm[0] <= sm <= row.sm[1]
            and (not row.since or told >= _release(row.since, known))
            and (not row.before or told < _release(row.before, known))
        ):
            return row
    return Row(name, "", "", artifact, (sm, sm), "no", _unknown(name, sm, artifact), "closed")


def _unknown(engine: str, sm: int, artifact: str) -> str:
    if CPU < sm < FIRST_SM:
        return f"bfloat16 needs SM {FIRST_SM}"
    if engine == "cpu":
        return "Penstock's CPU engine uses no GPU"
    if artifact == "tensorrt-engine":
        return "only TensorRT-LLM opens an engine directory"
    return "nothing that was read or measured says that it runs"


def _known(name: str, table: Mapping[str, object], what: str) -> str:
    if name not in table:
        raise ConfigurationError(f"{name!r} is no {what}; allowed: {', '.join(table)}")
    return name


def _release(version: str, engine: Engine) -> tuple[int, ...]:
    """Return the numbers a version starts with; a release candidate counts as its release."""
    found = re.match(r"v?(\d+(?:\.\d+)*)", version)
    if not found:
        raise ConfigurationError(
            f"{version!r} is no version of {engine.name}; such as {engine.versions[0]}"
        )
    numbers = [int(part) for part in found[1].split(".")]
    return (*numbers, *[0] * (4 - len(numbers)))


def render() -> str:
    """Return docs/reference/precision.md."""
    notes: dict[tuple[str, str], int] = {}
    tables = [line for engine in ENGINES.values() for line in _tables(engine, notes)]
    lines = [
        "# Which precision runs where",
        "",
        "Generated from `penstock/core/matrix_rows.py` by `make golden`. `yes`: with arithmetic of"
        " its own;",
        "`fallback`: weights only; `emulated`: unpacked, so only the quality is real; `-`: refused."
        " Numbers are",
        "notes, below: what a cell rests on, when that was read or measured, and the test that"
        " finds the same,",
        "if there is one. The rows speak of hardware and format: whether an engine supports a"
        " model's architecture",
        "is another question.",
        "",
        "## Artifacts",
        "",
        "| Artifact | Bits | What it is |",
        "|---|---|---|",
        *(f"| `{a.name}` | {a.bits or 'as built'} | {a.text} |" for a in ARTIFACTS.values()),
        "",
        *tables,
        "## GPUs",
        "",
        "| SM | GPUs |",
        "|---|---|",
        *_gpus(),
        "",
        "## Notes",
        "",
        *(f"{number}. {reason}. Source: {source}." for (reason, source), number in notes.items()),
    ]
    return "\n".join(lines) + "\n"


def _tables(engine: Engine, notes: dict[tuple[str, str], int]) -> Iterator[str]:
    yield from (f"## {engine.name}", "", f"{engine.text}.", "")
    if engine.same_as:
        yield from (f"As {engine.same_as}.", "")
        return
    columns = {"CPU": CPU} if engine.name == "cpu" else _SHOWN
    for version in engine.versions:
        head = [f"{engine.name} {version}", *columns]
        yield f"| {' | '.join(head)} |"
        yield "|---" * len(head) + "|"
        for artifact in ARTIFACTS:
            cells = [
                _cell(_row(artifact, engine.name, version, sm), notes) for sm in columns.values()
            ]
            yield f"| `{artifact}` | {' | '.join(cells)} |"
        yield ""


def _cell(row: Row, notes: dict[tuple[str, str], int]) -> str:
    key = (row.reason, SOURCES[row.source].told(row.basis))
    number = notes.setdefault(key, len(notes) + 1)
    return f"{'-' if row.how == 'no' else row.how} [{number}]"


def _gpus() -> Iterator[str]:
    for sm in sorted(set(FAMILIES.values())):
        yield f"| {sm} | {', '.join(name for name, found in FAMILIES.items() if found == sm)} |"
