"""Speed of verifying digests against a bare hash loop: `python -m benchmarks.hashing [--out DIR]`.

The bare loop hashes the same files with one thread per core and does nothing else. Rounds
alternate, so that a busy host hurts both alike; the ratio is of medians.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from penstock.core.identity import ModelRef
from registry.store import manifest_of, verify

FILES, FILE_BYTES, ROUNDS = 8, 48 << 20, 7


def bare(path: Path) -> str:
    """Hash one file."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def timed(work: Callable[[], object]) -> float:
    """Return the seconds of a call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure() -> dict[str, float]:
    """Return throughputs in bytes per second, and their ratio."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        paths = [folder / f"{number}.safetensors" for number in range(FILES)]
        for path in paths:
            path.write_bytes(os.urandom(FILE_BYTES))
        manifest = manifest_of(folder, ModelRef.parse("hf://bench/bench"))
        ours, theirs = [], []
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in range(ROUNDS):
                ours.append(timed(lambda: verify(folder, manifest)))
                theirs.append(timed(lambda: list(pool.map(bare, paths))))
    total = FILES * FILE_BYTES
    speed = total / statistics.median(ours)
    limit = total / statistics.median(theirs)
    return {"verify_bytes_per_s": speed, "bare_bytes_per_s": limit, "ratio": speed / limit}


def main() -> None:
    """Measure, print, and write JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks"))
    out: Path = parser.parse_args().out
    found = measure()
    out.mkdir(parents=True, exist_ok=True)
    (out / "hashing.json").write_text(json.dumps(found, indent=1) + "\n")
    table = (
        "| what | MB/s |\n|---|---|\n"
        f"| verify | {found['verify_bytes_per_s'] / 1e6:.0f} |\n"
        f"| bare hash loop | {found['bare_bytes_per_s'] / 1e6:.0f} |\n"
        f"| ratio | {found['ratio']:.2f} (goal 0.80) |\n"
    )
    (out / "hashing.md").write_text(table)
    print(table, end="")


if __name__ == "__main__":
    main()
