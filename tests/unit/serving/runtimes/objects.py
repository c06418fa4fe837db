"""Runtimes as objects: `python -m tests.unit.serving.runtimes.objects` writes the files anew.

ServingRuntimes are installed from `deploy/runtimes`; the rest lies beside the other golden files.
"""

from __future__ import annotations

from pathlib import Path

from serving.cluster import Object
from serving.kserve.facts import Facts
from serving.kserve.serving_runtimes import cluster_serving_runtime, preset, serving_runtime
from serving.runtimes.catalog import RUNTIMES
from tests.unit.serving.kserve.objects import text

ROOT = Path(__file__).resolve().parents[4]
GOLDEN = ROOT / "tests/golden/runtimes"
DEPLOY = ROOT / "deploy/runtimes"
PRESETS = [each for each in RUNTIMES.values() if each.tensor_option]
FACTS = Facts(version="1.2.3")


def files() -> dict[Path, Object]:
    """Return every object by its file."""
    found = {}
    for runtime in RUNTIMES.values():
        installed = serving_runtime(runtime, Facts())
        del installed["metadata"]["namespace"]  # whichever `kubectl -n` says
        found[DEPLOY / f"{runtime.name}.yaml"] = installed
    for runtime in PRESETS:
        found[GOLDEN / f"preset-{runtime.key}.yaml"] = preset(runtime, FACTS)
    found[GOLDEN / "cluster-vllm.yaml"] = cluster_serving_runtime(RUNTIMES["vllm"], FACTS)
    return found


HEAD = "# Made by serving.kserve.serving_runtimes; a test compares.\n"


def written(obj: Object) -> str:
    """Return an object as its file has it."""
    return HEAD + text(obj)


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for path, obj in files().items():
        path.write_text(written(obj))
