"""Time, memory, size and quality of every recipe: `python -m benchmarks.quantize [--out DIR]`.

Two models: the example, and a Llama of about 100 million random weights that is generated here. The
floor of a recipe is its worker's peak on a model of no size; what is above it is compared with the
size of the parent (goal: at most 1.3 times, GPTQ's Hessians apart). Quality is measured on the
example only: random weights have none. ModelOpt's checkpoints are not read by transformers, and
NVFP4 is not computed in float32, so their weights are unpacked first; activations then stay in 16
bits.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from components.quantization.calibration import rendered
from components.quantization.fit import OVERHEAD, fitting_group_size
from components.quantization.produce import produce
from components.steps.scoring import Item, measure
from penstock.core.errors import RecipeImpossible
from penstock.core.recipes import SHORT_NAMES, Recipe, parse_recipe
from registry.conformance.reading import read
from registry.datasets import read_rows
from serving.completer import Message

EXAMPLE = Path("examples/skills")
NAMES = (
    "fp8 fp8-static fp8-block int8 int4 gptq awq nvfp4 "
    "modelopt-fp8 modelopt-int4-awq modelopt-w4a8-awq modelopt-nvfp4"
).split()
PROMPTS, ITEMS, LONGEST_ANSWER = 64, 300, 48


@dataclass(frozen=True, slots=True)
class Dimensions:
    """Of a generated Llama."""

    hidden: int
    intermediate: int
    layers: int
    heads: int


NOTHING = Dimensions(128, 128, 1, 2)
LARGE = Dimensions(768, 2048, 15, 12)


def generated(folder: Path, size: Dimensions) -> Path:
    """Write a bf16 Llama with random weights and the example's tokenizer; return its folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=max(1, size.heads // 3),
        vocab_size=640,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    from components.training.export import write_portable_config

    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(EXAMPLE / "model" / name, folder / name)
    write_portable_config(folder)
    return folder


def fitted(name: str, folder: Path) -> Recipe:
    """Return a short name's recipe with the largest group size that divides the model's layers."""
    body = SHORT_NAMES[name].model_dump()
    if "group_size" in body:
        body["group_size"] = fitting_group_size(read(folder), body["group_size"])
    return parse_recipe(body)


def cost(parent: Path, recipe: Recipe, target: Path, prompts: list[str]) -> dict[str, Any]:
    """Return what making a checkpoint cost, or why it cannot be made."""
    try:
        made = produce(parent, recipe, target, prompts, lambda *_: None)
    except RecipeImpossible as problem:
        return {"refused": str(problem)}
    return {
        "wall_s": made.wall_s,
        "peak_bytes": made.peak_rss_bytes,
        "planned_bytes": made.planned_bytes,
        "parent_bytes": made.parent_bytes,
        "size_bytes": made.size_bytes,
    }


def quality(folder: Path, count: int) -> dict[str, Any]:
    """Return exact match and perplexity of a checkpoint on the example's evaluation set."""
    from serving.engine.inprocess import InProcessCompleter

    items = [
        Item(row.id, row.skill, cast(list[Message], row.conversation), row.answer)
        for row in read_rows(EXAMPLE / "data/evaluate.jsonl")[:count]
    ]
    completer = InProcessCompleter(folder)
    found = measure(
        completer, items, max_new_tokens=LONGEST_ANSWER, on_progress=lambda _done, _total: None
    )
    return {"exact_match": found["exact_match"]["share"], "perplexity": found["perplexity"]}


def readable(made: Path, recipe: Recipe, parent: Path, target: Path) -> Path:
    """Return a folder that the CPU engine reads: what was made, or its weights in bf16."""
    if recipe.producer == "modelopt":
        return unpacked(made, parent, target)
    if recipe.name == "nvfp4":
        return decompressed(made, parent, target)
    return made


def decompressed(folder: Path, parent: Path, target: Path) -> Path:
    """Write what compressed-tensors unpacks, in bf16: the engine computes in float32."""
    import torch
    from transformers import AutoModelForCausalLM, CompressedTensorsConfig

    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.bfloat16,
        quantization_config=CompressedTensorsConfig(dequantize=True),
    )
    names = set(read(parent).tensors)
    kept = {n: v.to(torch.bfloat16) for n, v in model.state_dict().items() if n in names}
    return _written(kept, parent, target)


def unpacked(folder: Path, parent: Path, target: Path) -> Path:
    """Write a ModelOpt checkpoint's weights in bf16, as TensorRT-LLM's kernels see them."""
    from safetensors.torch import load_file

    tensors = load_file(folder / "model.safetensors")
    whole = {}
    for name, values in tensors.items():
        stem, _, last = name.rpartition(".")
        if last == "weight" and f"{stem}.weight_scale" in tensors:
            whole[name] = _weight(tensors, stem)
        elif last in ("weight", "bias"):
            whole[name] = values
    return _written(whole, parent, target)


def _written(whole: dict[str, Any], parent: Path, target: Path) -> Path:
    from safetensors.torch import save_file

    target.mkdir()
    save_file(whole, target / "model.safetensors", metadata={"format": "pt"})
    for path in parent.iterdir():
        if path.suffix != ".safetensors":
            shutil.copyfile(path, target / path.name)
    return target


def _weight(tensors: dict[str, Any], stem: str) -> Any:
    import torch

    packed, scale = tensors[f"{stem}.weight"], tensors[f"{stem}.weight_scale"].float()
    if packed.dtype == torch.uint8:  # two 4-bit integers per byte, rows 2i and 2i + 1
        low, high = packed & 15, packed >> 4
        rows = torch.stack((low, high), dim=1).flatten(0, 1).to(torch.int8)
        values = torch.where(rows > 7, rows - 16, rows).float()
        values *= scale.repeat_interleave(values.shape[1] // scale.shape[1], dim=1)
    else:
        values = packed.float() * scale
    before = tensors.get(f"{stem}.pre_quant_scale")
    return (values if before is None else values * before.float()).to(torch.bfloat16)


def rows(names: list[str], items: int, scratch: Path) -> Iterator[dict[str, Any]]:
    """Yield a row per recipe and model; the first is the example as it is."""
    calibrate = read_rows(EXAMPLE / "data/calibrate.jsonl")[:PROMPTS]
    prompts = rendered(
        EXAMPLE / "model",
        [[*r.conversation, {"role": "assistant", "content": r.answer}] for r in calibrate],
    )
    nothing = generated(scratch / "nothing", NOTHING)
    models = {"example": EXAMPLE / "model", "100M": generated(scratch / "100M", LARGE)}
    yield {"model": "example", "recipe": "bf16", **quality(models["example"], items)}
    for name in names:
        floor = cost(nothing, fitted(name, nothing), scratch / "floor", prompts).get("peak_bytes")
        shutil.rmtree(scratch / "floor", ignore_errors=True)
        for model, parent in models.items():
            recipe, target = fitted(name, parent), scratch / "made"
            row = {"model": model, "recipe": recipe.label, "floor_bytes": floor}
            row |= cost(parent, recipe, target, prompts)
            if target.exists() and model == "example":
                row |= quality(readable(target, recipe, parent, scratch / "unpacked"), items)
            for folder in (target, scratch / "unpacked"):
                shutil.rmtree(folder, ignore_errors=True)
            yield row


def table(found: list[dict[str, Any]]) -> str:
    """Return the rows in Markdown."""
    lines = [
        "| Model | Recipe | Wall s | Peak MB | Floor MB | Above floor / parent | Size MB "
        "| Exact match | Perplexity |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(_cells(row))} |" for row in found]
    return "\n".join(lines) + "\n"


def _cells(row: dict[str, Any]) -> list[str]:
    if "refused" in row:
        return [row["model"], row["recipe"], f"refused: {row['refused']}", *[""] * 6]
    numbers = [""] * 5
    if "wall_s" in row:
        above = (row["peak_bytes"] - row["floor_bytes"]) / row["parent_bytes"]
        # a few megabytes of noise are many times the example's size
        told = f"{above:.2f} (goal {OVERHEAD})" if row["model"] == "100M" else ""
        mega = [f"{row[key] / 1e6:.0f}" for key in ("peak_bytes", "floor_bytes")]
        numbers = [f"{row['wall_s']:.1f}", *mega, told, f"{row['size_bytes'] / 1e6:.2f}"]
    scores = ["", ""]
    if row.get("perplexity") is not None:
        scores = [f"{row['exact_match']:.4f}", f"{row['perplexity']:.4f}"]
    return [row["model"], row["recipe"], *numbers, *scores]


def main() -> None:
    """Measure, print, and write JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks"))
    parser.add_argument("--recipes", nargs="*", choices=NAMES, default=list(NAMES))
    parser.add_argument("--items", type=int, default=ITEMS, help="evaluation items per checkpoint")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for row in rows(given.recipes, given.items, Path(scratch)):
            found.append(row)
            print(f"| {' | '.join(_cells(row))} |", flush=True)
            (given.out / "quantize.json").write_text(json.dumps(found, indent=1) + "\n")
            (given.out / "quantize.md").write_text(table(found))
    print(table(found), end="")


if __name__ == "__main__":
    main()
