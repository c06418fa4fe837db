"""Writes what engines' parsers know: `python -m tests.conformance.list_options [ENVIRONMENTS]`.

The files in `serving/runtimes/options` are facts: an option per line with its other spellings.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from serving import runtimes
from serving.runtimes.catalog import RUNTIMES
from tests.conformance.conftest import PARSERS, Answer, python_of, run_in

OPTIONS = Path(runtimes.__file__).parent / "options"
PROGRAMS = {"vllm": "vllm serve", "sglang": "python3 -m sglang.launch_server"}


def text(engine: str, answer: Answer, day: str) -> str:
    """Return a file of options."""
    rows = sorted(" ".join(spellings) for spellings in answer["options"])
    head = [f"# {PROGRAMS[engine]} {answer['version']}, read in its parser on {day}"]
    if engine == "vllm":
        head.append("# underscores")
    return "\n".join([*head, *rows]) + "\n"


def main(cache: Path, wanted: list[str]) -> None:
    """Write a file per version."""
    used = {name for runtime in RUNTIMES.values() for name in runtime.known.split()}
    day = datetime.now(UTC).date().isoformat()
    for engine, versions in PARSERS.items():
        for version in versions:
            name = f"{engine}-{version}"
            if name not in used or (wanted and name not in wanted):
                continue
            answer = run_in(python_of(cache, name), "read_arguments.py", engine)
            (OPTIONS / f"{name}.txt").write_text(text(engine, answer, day))


if __name__ == "__main__":
    main(Path(".pytest_cache/d/conformance"), sys.argv[1:])
