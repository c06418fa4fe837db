"""Memory of the CPU engine, predicted and measured: `python -m benchmarks.sizing [--out DIR]`.

Llamas of random weights are made on the spot and served by `python -m serving.engine`. Every page
of the cache is used: sixteen requests at once that fill it, then one as long as the context. What
is measured is the most resident memory of the process, sampled every 10 ms. While a checkpoint is
opened its file is mapped beside the weights that are made of it; those pages can be dropped, so
until the engine is ready only what it wrote itself counts. Weights in float32 stay mapped, and
count. Goal: what `serving.sizing.host` predicts is never less, and at most 5 % more. The floor, an
engine with a model of no size under the same load, is told too: it differs between machines.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from penstock.core.identity import ModelRef
from registry.headers import look
from registry.pull import Hub
from serving.sizing import host
from serving.sizing.shape import Shape, shape_of

EXAMPLE = Path("examples/skills/model")
GOAL, STREAMS, SAMPLE_S = 0.05, 16, 0.01
MB = 1e6


@dataclass(frozen=True, slots=True)
class Dimensions:
    """Of a generated Llama."""

    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    keys: int
    vocab: int
    context: int
    tied: bool = False
    dtype: str = "float32"


NOTHING = Dimensions("nothing", 32, 64, 1, 2, 1, 640, 64)
MODELS = (
    Dimensions("100M", 768, 2048, 12, 12, 4, 8192, 2048),
    Dimensions("100M tied, bf16", 768, 2048, 12, 12, 4, 16384, 1024, tied=True, dtype="bfloat16"),
    Dimensions("200M, long context", 1024, 2816, 14, 16, 4, 8192, 4096),
    Dimensions("350M, bf16", 1024, 4096, 20, 16, 16, 16384, 512, dtype="bfloat16"),
    Dimensions("500M", 1280, 3456, 24, 20, 5, 16384, 512),
)


def generated(folder: Path, size: Dimensions) -> Path:
    """Write a Llama with random weights and the example's tokenizer; return its folder."""
    script = (
        "import sys, json, torch; from transformers import LlamaConfig, LlamaForCausalLM;"
        "d = json.loads(sys.argv[2]); dtype = getattr(torch, d.pop('dtype'));"
        "torch.manual_seed(0); m = LlamaForCausalLM(LlamaConfig(**d)).to(dtype);"
        "m.save_pretrained(sys.argv[1])"
    )
    config = {
        "hidden_size": size.hidden,
        "intermediate_size": size.intermediate,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.keys,
        "vocab_size": size.vocab,
        "max_position_embeddings": size.context,
        "tie_word_embeddings": size.tied,
        "bos_token_id": None,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "dtype": size.dtype,
    }
    subprocess.run([sys.executable, "-c", script, str(folder), json.dumps(config)], check=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(EXAMPLE / name, folder / name)
    return folder


def shape_in(folder: Path) -> Shape:
    """Return a folder's shape."""
    seen = look(ModelRef("file", str(folder.absolute())), Hub("unused"))
    return shape_of(seen.config, seen.tensors, seen.modelopt)


class Memory:
    """The most resident memory of a process; of files only what is mapped once it is ready."""

    def __init__(self, pid: int) -> None:
        self.peak, self.ready = 0, False
        self._path, self._over = Path(f"/proc/{pid}/status"), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """Return it, in bytes."""
        self._over.set()
        self._thread.join()
        return self.peak

    def _watch(self) -> None:
        while not self._over.wait(SAMPLE_S):
            try:
                lines = self._path.read_text().splitlines()
            except OSError:
                return
            kinds = ("RssAnon", "RssShmem", *(("RssFile",) if self.ready else ()))
            sizes = [int(line.split()[1]) for line in lines if line.startswith(kinds)]
            self.peak = max(self.peak, sum(sizes) * 1024)


@contextmanager
def engine(folder: Path) -> Iterator[tuple[str, Memory]]:
    """Serve a folder; yield the URL and what watches its memory from its first moment."""
    command = [sys.executable, "-m", "serving.engine", str(folder), "--model-name", "m", "--port=0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    memory = Memory(process.pid)
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line.startswith("ready "):
            raise RuntimeError(f"{folder}: the engine did not start: {line!r}")
        memory.ready = True
        yield line.split()[1], memory
    finally:
        process.terminate()
        process.communicate(timeout=60)


def texts(tokens: int, count: int) -> list[str]:
    """Return prompts of so many tokens that share no beginning."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(EXAMPLE / "tokenizer.json"))
    found = []
    for number in range(count):
        words = " ".join(str((i * 7919 + number * 104729) % 9973) for i in range(tokens))
        ids = tokenizer.encode(words, add_special_tokens=False).ids[: tokens - 12]
        found.append(tokenizer.decode(ids))
    return found


def exercise(url: str, context: int) -> None:
    """Fill the cache with many sequences at once, then with a single one."""
    pages = host.cache_tokens(context)
    each = min(pages // STREAMS, context) - 4

    def ask(prompt: str) -> None:
        body = {"model": "m", "prompt": prompt, "max_tokens": 8, "ignore_eos": True}
        answer = httpx.post(f"{url}/v1/completions", json=body, timeout=1200)
        answer.raise_for_status()

    with ThreadPoolExecutor(STREAMS) as pool:
        list(pool.map(ask, texts(each, STREAMS)))
    ask(texts(context - 4, 1)[0])


def measured(folder: Path, context: int) -> int:
    """Return the most memory that serving a folder took, in bytes."""
    with engine(folder) as (url, memory):
        exercise(url, context)
        return memory.stop()


def run(models: Sequence[Dimensions]) -> dict[str, Any]:
    """Measure everything; every model is made, served and removed before the next one."""
    with tempfile.TemporaryDirectory(prefix="penstock-sizing-") as scratch:
        nothing = generated(Path(scratch) / "nothing", NOTHING)
        predicted = host.above_floor(shape_in(nothing))
        floor = measured(nothing, NOTHING.context) - predicted
        rows = [_row("skills (example)", EXAMPLE, 512)]
        for size in models:
            folder = generated(Path(scratch) / "model", size)
            rows.append(_row(size.name, folder, size.context))
            shutil.rmtree(folder)
    floors = {"floor_mb": round(floor / MB, 1), "floor_predicted_mb": round(host.FLOOR / MB, 1)}
    return {**floors, "goal": GOAL, "models": rows}


def _row(name: str, folder: Path, context: int) -> dict[str, Any]:
    shape = shape_in(folder)
    context = min(context, shape.context)
    predicted = sum(item.bytes for item in host.whole(shape))
    found = measured(folder, context)
    print(f"{name}: {predicted / MB:.0f} MB predicted, {found / MB:.0f} measured", file=sys.stderr)
    return {
        "model": name,
        "parameters": shape.parameters,
        "context": context,
        "predicted_mb": round(predicted / MB, 1),
        "measured_mb": round(found / MB, 1),
        "over": round(predicted / found - 1, 4),
        "ok": 0 <= predicted - found <= GOAL * found,
        "items": {item.name: round(item.bytes / MB, 1) for item in host.whole(shape)},
    }


def markdown(found: dict[str, Any]) -> str:
    """Return the results as a table."""
    lines = [
        "| Model | Parameters | Context | Predicted, MB | Measured, MB | Over |",
        "|---|---|---|---|---|---|",
        *(
            f"| {r['model']} | {r['parameters']:,} | {r['context']:,} | {r['predicted_mb']:,.1f} |"
            f" {r['measured_mb']:,.1f} | {r['over']:+.1%} |"
            for r in found["models"]
        ),
        "",
        f"Of that {found['floor_mb']:,.0f} MB were Python, torch and transformers, "
        f"{found['floor_predicted_mb']:,.0f} predicted.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    parser.add_argument("--models", type=int, default=len(MODELS), help="how many, smallest first")
    options = parser.parse_args()
    found = run(MODELS[: options.models])
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "sizing.json").write_text(json.dumps(found, indent=1))
    (options.out / "sizing.md").write_text(markdown(found))
    print(markdown(found))


if __name__ == "__main__":
    main()
