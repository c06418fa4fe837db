"""Records how rounded versions of the skills model answer: `python -m benchmarks.guard_items`.

Writes `benchmarks/guard-items.json`, on which `benchmarks.guard` simulates: per evaluation item its
skill and the tokens of the parent's answer, and per version one digit per item, 1 for right.
Takes about a minute per version on one core.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from components.steps.scoring import Item, measure
from serving.engine.inprocess import InProcessCompleter

HERE = Path(__file__).parent
SKILLS = HERE.parent / "examples" / "skills"
RECORDED = HERE / "guard-items.json"
VERSIONS = {"int4-g32": (4, 32), "int4-row": (4, 0), "int3-row": (3, 0), "int2-g32": (2, 32)}
"""Name: bits and group size; 0: one scale per row."""


def rounded(source: Path, target: Path, *, bits: int, group: int, layers: str = "") -> Path:
    """Write a copy whose linear layers are rounded to the nearest of 2^bits values per group.

    Symmetric, without calibration; the result is a plain bf16 checkpoint that loads anywhere.

    Args:
        source: A checkpoint with one `model.safetensors`.
        target: Where the copy goes; must not exist.
        bits: Width of the integers.
        group: Weights along the input that share a scale; 0: all of a row.
        layers: Only tensors whose name contains this.
    """
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, target)
    weights = load_file(source / "model.safetensors")
    for name, weight in weights.items():
        if name.endswith("_proj.weight") and layers in name:
            weights[name] = _round(weight, bits, group)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


def _round(weight, bits: int, group: int):  # type: ignore[no-untyped-def]  # torch loads late
    largest = 2 ** (bits - 1) - 1
    groups = weight.float().reshape(weight.shape[0], -1, group or weight.shape[1])
    scale = groups.abs().amax(dim=-1, keepdim=True).clamp(min=1e-12) / largest
    return ((groups / scale).round() * scale).reshape(weight.shape).to(weight.dtype).contiguous()


def items(path: Path = SKILLS / "data" / "evaluate.jsonl") -> list[Item]:
    """Return the evaluation items."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [Item(r["id"], r["skill"], r["messages"], r["answer"]) for r in rows]


def answers(folder: Path, asked: list[Item]) -> list[dict[str, object]]:
    """Return the records of `scoring.measure`, one per item."""
    completer = InProcessCompleter(folder)
    try:
        found = measure(completer, asked, max_new_tokens=24, on_progress=lambda *_: None)
    finally:
        completer.close()
    records: list[dict[str, object]] = found["items"]
    return records


def main() -> None:
    """Answer with every version, and write the file."""
    asked = items()
    parent = answers(SKILLS / "model", asked)
    versions = {"parent": _digits(parent)}
    with tempfile.TemporaryDirectory() as scratch:
        for name, (bits, group) in VERSIONS.items():
            folder = rounded(SKILLS / "model", Path(scratch) / name, bits=bits, group=group)
            versions[name] = _digits(answers(folder, asked))
            print(name, versions[name].count("1"), file=sys.stderr)
        for name in ("retrained", "forgetful"):
            versions[name] = _digits(answers(SKILLS / "variants" / name, asked))
    document = {
        "skills": [item.skill for item in asked],
        "tokens": [record["tokens"] for record in parent],
        "right": versions,
    }
    RECORDED.write_text(json.dumps(document) + "\n")


def _digits(records: list[dict[str, object]]) -> str:
    return "".join(str(int(bool(record["correct"]))) for record in records)


if __name__ == "__main__":
    main()
