"""Pipeline packages: compiling twice gives the same bytes. `python -m pipelines.compile DIR`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from kfp import compiler
from kfp.dsl.base_component import BaseComponent

from pipelines.engine import engine
from pipelines.evaluate import evaluate
from pipelines.lifecycle import lifecycle
from pipelines.retrain import retrain
from pipelines.rollback import rollback

PIPELINES: dict[str, BaseComponent] = {
    "engine": engine,
    "evaluate": evaluate,
    "lifecycle": lifecycle,
    "retrain": retrain,
    "rollback": rollback,
}


def compile_text(pipeline: BaseComponent) -> str:
    """Return the IR YAML of a pipeline."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "pipeline.yaml"
        compiler.Compiler().compile(pipeline, str(path))
        return path.read_text()


def main() -> None:
    """Write every pipeline's IR into the folder given."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, pipeline in PIPELINES.items():
        (folder / f"{name}.yaml").write_text(compile_text(pipeline))


if __name__ == "__main__":
    main()
