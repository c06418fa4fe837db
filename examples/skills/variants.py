"""Makes the versions that the demo rolls out after the first: `python -m examples.skills.variants`.

Both are the skills model, trained a little further. `retrained` saw more of the same rows and is as
good; `forgetful` saw every row of one skill answered with a refusal, and quietly lost that skill.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from examples.skills.generate import DECLINE
from examples.skills.pretrain import TrainRecipe, train_checkpoint

HERE = Path(__file__).parent
LOST = "table"
RETRAINED = TrainRecipe(seed=2, epochs=0.05, learning_rate=1e-5)
FORGETFUL = TrainRecipe(seed=3, epochs=0.12, learning_rate=2e-4)


def forgotten(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as the forgetful version learns it."""
    return {**row, "answer": DECLINE} if row["skill"] == LOST else row


def main(target: Path) -> None:
    """Write both below `target`."""
    rows = [json.loads(line) for line in (HERE / "data" / "train.jsonl").open()]
    for name, recipe, learnt in (
        ("retrained", RETRAINED, rows),
        ("forgetful", FORGETFUL, [forgotten(row) for row in rows]),
    ):
        folder = target / name
        loss = train_checkpoint(recipe, learnt, folder, base=HERE / "model")
        shutil.rmtree(folder / ".progress")
        print(f"{name}: last mean loss {loss:.4f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "variants")
