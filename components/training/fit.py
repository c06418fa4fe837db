"""Trains, inside the worker: TRL's trainer, PEFT's adapters, and what is told meanwhile."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from components.training import checkpoints, rows
from components.worker import Request, Say
from penstock.core.errors import TrainingFailed
from penstock.core.training import Training
from registry.datasets import read_rows

_POINTS = 400
"""Most points of the loss curve."""

_EVALUATIONS = 10
"""Times that the held-out rows are looked at."""

_KEPT = 2
"""Checkpoints: while the new one is written, the one before must stay."""


def train(request: Request, say: Say) -> dict[str, Any]:
    """Train from the last whole checkpoint, or from the start, and write the weights.

    Args:
        request: `training`, `base`, `data`, `progress` (folder of checkpoints), `resume` (the one
            to go on from, or null), `scratch` (folder for the weights), `context` (tokens that the
            model can read) and, on many devices, `deepspeed` (its configuration, or null).
        say: Sends `progress` and `point` lines.
    """
    strategy = Training.model_validate(request["training"])
    say({"progress": [0, 1, "loading"]})
    tokenizer = _tokenizer(Path(request["base"]))
    learnt, held = _examples(request, strategy, tokenizer)
    resumed = Path(request["resume"]) if request.get("resume") else None
    watch = Watch(say)
    trainer = _trainer(strategy, request, tokenizer, (learnt, held), watch)
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    seconds = time.perf_counter() - start
    if held and not any("eval_loss" in each for each in trainer.state.log_history[-2:]):
        trainer.evaluate()
    say({"progress": [trainer.state.max_steps, trainer.state.max_steps, "writing"]})
    trained = _trained(trainer.model)
    _write(trainer, request)
    history = [dict(entry) for entry in trainer.state.log_history]
    return {
        "steps": trainer.state.global_step,
        "resumed_at": checkpoints.step_of(resumed),
        "rows": len(learnt),
        "held_out": len(held),
        "answer_tokens": sum(len(each.answered) for each in learnt),
        "trained_parameters": trained,
        "curve": curve(history),
        "train_s": seconds,
        "tokens_per_s": watch.tokens / max(seconds, 1e-9),
        "device": str(trainer.args.device),
        "processes": trainer.args.world_size,
        "libraries": _versions(),
    }


def curve(history: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """Return what the trainer logged, a point per step: loss, rate, loss on held-out rows."""
    names = {
        "loss": "loss",
        "learning_rate": "learning_rate",
        "grad_norm": "gradient_norm",
        "eval_loss": "eval_loss",
        "mean_token_accuracy": "token_accuracy",
        "eval_mean_token_accuracy": "eval_token_accuracy",
    }
    points: dict[int, dict[str, float]] = {}
    for entry in history:
        told = {ours: float(entry[name]) for name, ours in names.items() if name in entry}
        if told:
            points.setdefault(int(entry["step"]), {"step": float(entry["step"])}).update(told)
    return [points[step] for step in sorted(points)]


def _tokenizer(base: Path) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(base))
    rows.require_template(tokenizer.chat_template, str(base))
    return tokenizer


def _examples(
    request: Request, strategy: Training, tokenizer: Any
) -> tuple[list[rows.Example], list[rows.Example]]:
    content = read_rows(Path(request["data"]))
    every = [rows.example(tokenizer, row.id, row.conversation, row.answer) for row in content]
    rows.require_short(every, min(strategy.max_length or request["context"], request["context"]))
    learnt, held = rows.split([each.identity for each in every], strategy.held_out_share)
    return [every[k] for k in learnt], [every[k] for k in held]


def _trainer(
    strategy: Training,
    request: Request,
    tokenizer: Any,
    examples: tuple[Sequence[rows.Example], Sequence[rows.Example]],
    watch: Any,
) -> Any:
    import torch
    from datasets import Dataset, disable_caching
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    disable_caching()
    gpu = torch.cuda.is_available()
    if not gpu:  # costs nothing there, and an interrupted training ends bit for bit the same
        torch.use_deterministic_algorithms(mode=True, warn_only=True)
    wide = not gpu or strategy.method == "full"
    model = AutoModelForCausalLM.from_pretrained(
        request["base"], dtype=torch.float32 if wide else torch.bfloat16
    )
    learnt, held = examples
    arguments = SFTConfig(
        output_dir=request["progress"],
        use_cpu=not gpu,
        bf16=gpu,
        seed=strategy.seed,
        max_steps=strategy.steps or -1,
        num_train_epochs=strategy.passes or 1.0,
        per_device_train_batch_size=strategy.batch_rows,
        per_device_eval_batch_size=strategy.batch_rows,
        gradient_accumulation_steps=strategy.gradient_accumulation,
        gradient_checkpointing=strategy.gradient_checkpointing,
        learning_rate=strategy.rate,
        lr_scheduler_type="cosine",
        warmup_steps=strategy.warmup_share,
        weight_decay=strategy.weight_decay,
        max_grad_norm=strategy.max_gradient_norm,
        save_strategy="steps",
        save_steps=strategy.checkpoint_every_steps,
        save_total_limit=_KEPT,
        eval_strategy="steps" if held else "no",
        eval_steps=1 / _EVALUATIONS,
        logging_steps=1 / _POINTS,
        logging_nan_inf_filter=False,  # it would put the mean of the others in their place
        max_length=None,  # rows that are too long were refused, none is cut
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,
        deepspeed=request.get("deepspeed"),
    )
    return SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list([each.to_row() for each in learnt]),
        eval_dataset=Dataset.from_list([each.to_row() for each in held]) if held else None,
        processing_class=tokenizer,
        peft_config=_adapter(strategy),
        callbacks=[watch.callback()],
    )


def _adapter(strategy: Training) -> Any:
    adapter = strategy.adapter
    if adapter is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM",
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=adapter.target_modules or "all-linear",
    )


class Watch:
    """Tells how far it is, marks checkpoints, and ends a training whose loss is no number."""

    def __init__(self, say: Say, clock: Callable[[], float] = time.perf_counter) -> None:
        self._say, self._clock = say, clock
        self._looked: tuple[float, float] | None = None
        self.tokens = 0.0
        """Tokens that this process trained on, questions included."""

    def callback(self) -> Any:
        """Return it as the trainer calls it."""
        from transformers import TrainerCallback

        watch = self

        class Callback(TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
                if state.is_world_process_zero:
                    watch._say({"progress": [state.global_step, state.max_steps, "training"]})

            def on_log(
                self, _args: Any, state: Any, _control: Any, logs: Any = None, **_kwargs: Any
            ) -> None:
                watch.logged(state.global_step, dict(logs or {}), state.is_world_process_zero)

            def on_save(self, args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
                # resumed after its last step, the trainer would take one more
                if state.is_world_process_zero and state.global_step < state.max_steps:
                    checkpoints.mark(Path(args.output_dir) / f"checkpoint-{state.global_step}")

        return Callback()

    def logged(self, step: int, logs: dict[str, Any], told: bool) -> None:
        """Take what the trainer logs; raise for a loss that is no number."""
        speed = self._speed(float(logs["num_tokens"])) if "num_tokens" in logs else {}
        for name in ("loss", "eval_loss", "grad_norm"):
            value = logs.get(name)
            if value is not None and not math.isfinite(value):
                raise TrainingFailed(
                    f"training: {name} is {value} at step {step}; nothing of it is kept",
                    hint="lower training.learning_rate, raise warmup_share, or look for rows that "
                    "are unlike the others",
                )
        if told:
            for point in curve([{"step": step, **logs}]):
                self._say({"point": {**point, **speed}})

    def _speed(self, tokens: float) -> dict[str, float]:
        """Return tokens per second since the last look; nothing at the first one."""
        now, before = self._clock(), self._looked
        self.tokens, self._looked = tokens, (now, tokens)
        if before is None or now <= before[0]:
            return {}
        return {"tokens_per_s": (tokens - before[1]) / (now - before[0])}


def _trained(model: Any) -> int:
    """Return how many parameters were trained, and raise if one of them is no number."""
    import torch

    count = 0
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            count += getattr(parameter, "ds_numel", parameter.numel())  # divided by DeepSpeed
            if not bool(torch.isfinite(parameter).all()):
                raise TrainingFailed(
                    f"training: {name} holds numbers that are not finite; nothing of it is kept",
                    hint="lower training.learning_rate",
                )
    return count


def _write(trainer: Any, request: Request) -> None:
    """Write the merged weights, in the base's type."""
    from transformers import AutoConfig

    whole = _gathered(trainer, request) if trainer.args.world_size > 1 else trainer.model
    if whole is None:
        return
    model = trainer.accelerator.unwrap_model(whole)
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload(safe_merge=True)
    dtype = AutoConfig.from_pretrained(request["base"]).dtype
    if dtype is not None:
        model = model.to(dtype)
    model.save_pretrained(request["scratch"])


def _gathered(trainer: Any, request: Request) -> Any:
    """Return the model with all of its weights, in the first process; None in the others."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.integrations import unset_hf_deepspeed_config

    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)  # all processes take part
    if not trainer.is_world_process_zero():
        return None
    unset_hf_deepspeed_config()  # else the fresh model would be divided, and wait for the others
    model = AutoModelForCausalLM.from_pretrained(request["base"], dtype=torch.float32)
    adapter = _adapter(Training.model_validate(request["training"]))
    if adapter is not None:
        from peft import get_peft_model

        model = get_peft_model(model, adapter)
    model.load_state_dict(state)
    return model


def _versions() -> dict[str, str]:
    import importlib.metadata

    return {
        name: importlib.metadata.version(name) for name in ("torch", "transformers", "trl", "peft")
    }
