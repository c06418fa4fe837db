"""From prompts to token ids: what a producer runs through the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from penstock.core.errors import DataRefused, RecipeImpossible
from penstock.core.recipes import Calibration, Recipe
from registry.conformance.reading import read


def calibration_of(recipe: Recipe) -> Calibration | None:
    """Return how a recipe calibrates; None where it needs no data."""
    found: Calibration | None = getattr(recipe, "calibration", None)
    return found


def refuse_calibration(recipe: Recipe, prompts: Sequence[str], config: Mapping[str, Any]) -> None:
    """Raise for prompts that cannot calibrate.

    Raises:
        DataRefused: The recipe needs prompts and there are none, or one is empty.
        RecipeImpossible: A calibration prompt may be longer than the model's context.
    """
    wanted = calibration_of(recipe)
    if wanted is None:
        return
    if not prompts:
        raise DataRefused(
            f"{recipe.label}: the calibration set is empty; allowed: at least one prompt",
            hint="set data.calibrate in model.yaml, or choose fp8 or int4, which need no data",
        )
    context = config.get("max_position_embeddings")
    if context is not None and wanted.length > context:
        raise RecipeImpossible(
            f"{recipe.label}: calibration.length is {wanted.length} tokens, the model's context "
            f"{context}; allowed: at most {context}",
            hint=f"set calibration.length to {context} or less",
        )


def tokens_of(folder: Path, prompts: Sequence[str], wanted: Calibration) -> list[list[int]]:
    """Return at most `samples` rows of at most `length` token ids.

    Args:
        folder: Of the checkpoint, for its tokenizer.json.
        prompts: Texts as the model reads them; `rendered` makes them.
        wanted: How many, how long.

    Raises:
        DataRefused: A prompt has no token.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    rows = [tokenizer.encode(p).ids[: wanted.length] for p in prompts[: wanted.samples]]
    empty = [number for number, row in enumerate(rows, start=1) if not row]
    if empty:
        raise DataRefused(
            f"calibration prompt {empty[0]} has no token; allowed: texts that are not empty",
            hint="remove it from the calibration set",
        )
    return rows


def in_turns(folder: Path) -> bool:
    """Return whether a checkpoint has a chat template; a base model has none."""
    return bool(read(folder).template)


def rendered(folder: Path, conversations: Sequence[Sequence[Mapping[str, str]]]) -> list[str]:
    """Return conversations as the model sees them: with the checkpoint's chat template.

    Without one, what was said and answered, a line each: what such a model is prompted with.
    """
    if not in_turns(folder):
        return ["\n".join(turn["content"] for turn in turns) for turns in conversations]
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return [
        str(tokenizer.apply_chat_template([dict(turn) for turn in turns], tokenize=False))
        for turns in conversations
    ]
