"""How rules that judge a candidate do: `python -m benchmarks.canary [--out FILE]`.

Every rule meets every scenario in many replications of the same synthetic traffic: how often it is
wrong, how long it takes, and how many users a bad candidate reaches. JSON, and Markdown beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from benchmarks.canary import markdown
from benchmarks.canary.scenarios import SCENARIOS, parse
from benchmarks.canary.table import RULES, SEED, Plan, cells, row, settings
from penstock.core.errors import LifecycleError


def _arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.canary", description=__doc__)
    parser.add_argument("--scenarios", type=Path, help="JSON list of scenarios; default: all 20")
    parser.add_argument("--reps", type=int, default=2000, help="replications (default 2000)")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--rules", default=",".join(RULES), help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks/canary.json"))
    return parser.parse_args()


def _measure(plan: Plan, out: Path) -> None:
    """Run everything, and write and print what came out."""
    out.parent.mkdir(parents=True, exist_ok=True)
    start, rows = time.monotonic(), []
    for rule, scenario, outcomes in cells(plan):
        rows.append(row(rule, scenario, outcomes))
        done = f"{len(rows)}/{len(plan.rules) * len(plan.scenarios)}"
        wrong, undecided = rows[-1]["wrong"], rows[-1]["undecided"]
        line = f"{done} {scenario.name} {rule}: wrong {wrong:.2%}, undecided {undecided:.2%}"
        print(f"{line} ({time.monotonic() - start:.0f} s)", file=sys.stderr, flush=True)
    names = [scenario.name for scenario in plan.scenarios]
    rows.sort(key=lambda one: (names.index(one["scenario"]), plan.rules.index(one["rule"])))
    out.write_text(json.dumps({"rows": rows, "settings": settings(plan)}, indent=1) + "\n")
    table = markdown.text(rows, plan.scenarios)
    out.with_suffix(".md").write_text(table)
    print(table, end="")


def main() -> None:
    """Measure, or say what is wrong with the request."""
    asked = _arguments()
    try:
        scenarios = parse(asked.scenarios) if asked.scenarios else SCENARIOS
        rules = tuple(dict.fromkeys(rule for rule in asked.rules.split(",") if rule))
        _measure(Plan(scenarios, rules, asked.reps, asked.seed), asked.out)
    except LifecycleError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
