from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from examples.skills.pretrain import Shape, TrainRecipe, train_checkpoint
from examples.skills.train import make_tokenizer
from penstock.core.spec import Policy
from registry.scans import scan
from registry.store import hash_file

ROWS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": f"what is {n}?"}], "answer": str(n)} for n in range(8)
]
RECIPE = TrainRecipe(
    epochs=2,
    batch_rows=4,
    shape=Shape(hidden_size=16, intermediate_size=32, layers=1, heads=2, kv_heads=1),
)


def test_equal_seeds_train_equal_models(tmp_path: Path) -> None:
    make_tokenizer([row["messages"][0]["content"] for row in ROWS], tmp_path / "tokenizer")
    digests, told = [], []
    for name in ("one", "two"):
        loss = train_checkpoint(
            RECIPE,
            ROWS,
            tmp_path / name,
            base=tmp_path / "tokenizer",
            on_progress=lambda done, total: told.append((done, total)),
        )
        assert loss > 0
        digests.append(hash_file(tmp_path / name / "model.safetensors"))
    assert digests[0] == digests[1]
    assert told[-1] == (4, 4)
    gates = {g.name: g.outcome for g in scan(tmp_path / "one", Policy())}
    assert gates["safetensors"] == gates["tokenizer"] == gates["config"] == "passed"
    assert json.loads((tmp_path / "one/config.json").read_text())["use_cache"] is True
