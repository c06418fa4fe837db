"""docs/reference/runtimes.md, made from the data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from penstock.core.matrix import judge, possible
from serving.runtimes.catalog import RUNTIMES
from serving.runtimes.known import known
from serving.runtimes.launch import start_budget_s
from serving.runtimes.runtime import CAN_ALL, Place, Runtime
from serving.runtimes.signals import SIGNALS, Series

_GPUS = ("A100", "L40S", "H100", "B200", "RTX PRO 6000")


def render() -> str:
    """Return the document."""
    every = list(RUNTIMES.values())
    lines = [
        "# Runtimes",
        "",
        "Generated from `serving/runtimes` by `make golden`. What they mean: "
        "[runtimes.md](../runtimes.md).",
        "",
        "## Pinned",
        "",
        "| Runtime | What | Image | Endpoints | Read in |",
        "|---|---|---|---|---|",
        *(_pinned(each) for each in every),
        "",
        "## What `serving` may ask of them",
        "",
        "On a CPU: " + "; ".join(_on_cpu(every)) + ".",
        "",
        f"| Field | {' | '.join(each.key for each in every)} |",
        "|---" * (len(every) + 1) + "|",
        *(
            f"| `{can}` | {' | '.join('yes' if can in each.can else '-' for each in every)} |"
            for can in CAN_ALL
        ),
        "",
        "## What else they do",
        "",
        "| Runtime | Structured output | Several devices | Several nodes | To know |",
        "|---|---|---|---|---|",
        *(_abilities(each) for each in every),
        "",
        "## Precision and GPU",
        "",
        "What runs natively, by GPU; in parentheses what runs as weights only or unpacked. Every "
        "cell's source and",
        "date: [precision.md](precision.md).",
        "",
        f"| Runtime | {' | '.join(_GPUS)} | CPU |",
        "|---" * (len(_GPUS) + 2) + "|",
        *(_precisions(each) for each in every),
        "",
        "## How long a start may take",
        "",
        "What starting takes beside the weights is an estimate; weights are read at 50 MB/s or "
        "faster.",
        "",
        "| Runtime | 0.1 GB | 16 GB | 140 GB |",
        "|---|---|---|---|",
        *(_budgets(each) for each in every),
        "",
        "## Signals",
        "",
        *(f"* `{name}`: {text}" for name, text in SIGNALS.items()),
        "",
        *(line for each in every for line in _signals(each)),
        "## Options that `runtime_args` may have",
        "",
        "| Runtime | Options | Known from |",
        "|---|---|---|",
        *(_options(each) for each in every if each.known),
    ]
    return "\n".join(lines) + "\n"


def _pinned(each: Runtime) -> str:
    image = "Penstock's own" if each.own else f"`{each.image}`"
    ends = f"ready `{each.ready}`, alive `{each.alive}`, metrics `:{each.metrics_port}"
    frozen = f" **Frozen**: {each.frozen}." if each.frozen else ""
    return (
        f"| `{each.key}` | {each.text}.{frozen} | {image} | {ends}{each.metrics}` | {each.source} |"
    )


def _on_cpu(every: Iterable[Runtime]) -> Iterator[str]:
    for each in every:
        if "cpu" in each.matrix:
            yield f"`{each.key}` {', '.join(sorted(each.can_on_cpu)) or 'nothing'}"


def _abilities(each: Runtime) -> str:
    split = " and ".join(
        name
        for can, name in (("tensor_parallel", "layers"), ("pipeline_parallel", "stages"))
        if can in each.can
    )
    note = ". ".join(part for part in (each.note, each.refused) if part)
    return f"| `{each.key}` | {each.structured} | {split or 'no'} | {each.multi_node} | {note} |"


def _precisions(each: Runtime) -> str:
    built = each.key.endswith("-engine")
    cells = []
    for gpu in (*_GPUS, "cpu"):
        where: Place = "cpu" if gpu == "cpu" else "gpu"
        found = possible(*each.matrix[where], gpu) if where in each.matrix else []
        kept = [name for name in found if (name == "tensorrt-engine") == built]
        how = {name: judge(name, *each.matrix[where], gpu).how for name in kept}
        native = [name for name in kept if how[name] == "yes"]
        others = [f"({name})" for name in kept if how[name] != "yes"]
        cells.append(", ".join([*native, *others]) or "-")
    return f"| `{each.key}` | {' | '.join(cells)} |"


def _budgets(each: Runtime) -> str:
    sizes = (100_000_000, 16_000_000_000, 140_000_000_000)
    cells = [f"{start_budget_s(each, size):.0f} s" for size in sizes]
    return f"| `{each.key}` | {' | '.join(cells)} |"


def _signals(each: Runtime) -> Iterator[str]:
    yield from (
        f"### {each.key}",
        "",
        f"{each.series_source}.",
        "",
        "| Signal | Series |",
        "|---|---|",
    )
    for name in SIGNALS:
        if name in each.series:
            series = each.series[name]
            unit = "" if series.unit == 1 else f", times {series.unit}"
            yield f"| `{name}` | `{series.name}`{_only(series)}{unit} |"
        else:
            yield f"| `{name}` | - |"
    if each.own:
        counted = "as the gateway counts them: `penstock_users_…`"
    elif each.answered is None:
        counted = "no evidence: failures are not counted"
    else:
        counted = f"{_named(each.answered.every)}; failed: {_named(each.answered.failed)}"
    yield from ("", f"Users' requests: {counted}.", "")


def _named(every: Iterable[Series]) -> str:
    return ", ".join(f"`{series.name}`{_only(series)}" for series in every)


def _only(series: Series) -> str:
    told = " and ".join(f"{key} begins {value}" for key, value in series.labels.items())
    return f" where {told}" if told else ""


def _options(each: Runtime) -> str:
    options = known(each.known)
    return f"| `{each.key}` | {len(set(options.spellings.values()))} | {options.source} |"
