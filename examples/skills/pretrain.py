"""Makes the example's model from nothing; seeded, resumable, on any device.

What serves trains checkpoints that exist: `components.training`. The loss covers the answers only,
as there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from components.training.export import write_portable_config
from components.training.rows import IGNORED, example


class Shape(BaseModel):
    """A Llama model made from nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden_size: int = 192
    intermediate_size: int = 512
    layers: int = 5
    heads: int = 6
    kv_heads: int = 2
    context_length: int = 512


class TrainRecipe(BaseModel):
    """How to train: the result follows from this, the rows and the base checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 20260701
    epochs: float = Field(8.0, gt=0)
    batch_rows: int = Field(32, ge=1)
    learning_rate: float = Field(1.5e-3, gt=0, description="Peak; cosine to zero after warm-up.")
    warmup_share: float = Field(0.05, ge=0, lt=1, description="Share of the steps.")
    weight_decay: float = Field(0.01, ge=0)
    shape: Shape = Shape()
    """Used when there is no base checkpoint."""


def train_checkpoint(
    recipe: TrainRecipe,
    rows: Sequence[dict[str, Any]],
    target: Path,
    *,
    base: Path,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> float:
    """Write a trained checkpoint (bf16 safetensors, tokenizer) and return the last mean loss.

    Args:
        recipe: Seed, schedule and shape.
        rows: `messages` and `answer` each.
        target: Folder to fill; `target/.progress` holds what an interrupted training resumes from.
        base: A checkpoint to start from, or a folder with only a tokenizer: then a new model.
        on_progress: Told (optimizer steps done, steps in all).
    """
    import torch
    from transformers import AutoTokenizer, Trainer, TrainingArguments, set_seed
    from transformers.trainer_utils import get_last_checkpoint

    set_seed(recipe.seed)
    tokenizer = AutoTokenizer.from_pretrained(str(base))
    model = _model(recipe.shape, tokenizer, base)
    scratch = target / ".progress"
    scratch.mkdir(parents=True, exist_ok=True)
    examples = [
        example(tokenizer, str(place), row["messages"], row["answer"]).to_row()
        for place, row in enumerate(rows)
    ]
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(scratch),
            use_cpu=not torch.cuda.is_available(),
            seed=recipe.seed,
            num_train_epochs=recipe.epochs,
            per_device_train_batch_size=recipe.batch_rows,
            learning_rate=recipe.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=recipe.warmup_share,
            weight_decay=recipe.weight_decay,
            adam_beta2=0.98,
            max_grad_norm=1.0,
            save_steps=500,
            save_total_limit=1,
            logging_steps=50,
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
        ),
        train_dataset=examples,
        data_collator=_collator(tokenizer.pad_token_id),
        callbacks=[_progress(on_progress)],
    )
    result = trainer.train(resume_from_checkpoint=get_last_checkpoint(str(scratch)))
    model.to(torch.bfloat16).save_pretrained(str(target), safe_serialization=True)
    tokenizer.save_pretrained(str(target))
    write_portable_config(target)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return float(losses[-1] if losses else result.training_loss)


def _model(shape: Shape, tokenizer: Any, base: Path) -> Any:
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    if (base / "config.json").exists():
        return AutoModelForCausalLM.from_pretrained(str(base), dtype="float32")
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=shape.hidden_size,
            intermediate_size=shape.intermediate_size,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            max_position_embeddings=shape.context_length,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _collator(pad: int) -> Callable[[list[dict[str, list[int]]]], dict[str, Any]]:
    import torch

    def collate(examples: list[dict[str, list[int]]]) -> dict[str, Any]:
        longest = max(len(e["input_ids"]) for e in examples)

        def padded(key: str, filler: int) -> Any:
            return torch.tensor([e[key] + [filler] * (longest - len(e[key])) for e in examples])

        ids = padded("input_ids", pad)
        lengths = torch.tensor([len(e["input_ids"]) for e in examples])
        mask = (torch.arange(longest)[None, :] < lengths[:, None]).long()
        return {"input_ids": ids, "attention_mask": mask, "labels": padded("labels", IGNORED)}

    return collate


def _progress(on_progress: Callable[[int, int], None]) -> Any:
    from transformers import TrainerCallback

    class Progress(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
            on_progress(state.global_step, state.max_steps)

    return Progress()
