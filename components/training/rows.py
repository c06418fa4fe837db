"""From rows to token ids: questions as the model is asked, and answers, which alone are learnt."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.core.errors import ConfigurationError, DataRefused

IGNORED = -100
"""The label that PyTorch's cross entropy skips."""

_NAMED = 3


@dataclass(frozen=True, slots=True)
class Example:
    """One row as the model reads it."""

    identity: str
    asked: tuple[int, ...]
    answered: tuple[int, ...]
    """With the token that ends the turn: the model must learn to stop."""

    def __len__(self) -> int:
        """Return its tokens."""
        return len(self.asked) + len(self.answered)

    def to_row(self) -> dict[str, list[int]]:
        """Return what the trainer reads; the loss covers the answer only."""
        return {
            "input_ids": [*self.asked, *self.answered],
            "labels": [IGNORED] * len(self.asked) + list(self.answered),
        }


def split(identities: Sequence[str], share: float) -> tuple[list[int], list[int]]:
    """Return which rows are trained on and which are held out, by their places.

    A row's part follows from its id alone, so it stays when other rows come or go. At least one
    row is trained on.

    Args:
        identities: Of the rows, in order.
        share: Of rows held out, about.
    """
    bound = int(share * 2**64)
    held = [k for k, name in enumerate(identities) if _place(name) < bound]
    if len(held) == len(identities):
        held = held[1:]
    apart = set(held)
    return [k for k in range(len(identities)) if k not in apart], held


def _place(identity: str) -> int:
    return int.from_bytes(hashlib.sha256(f"held out: {identity}".encode()).digest()[:8], "big")


def example(
    tokenizer: Any, identity: str, conversation: Sequence[Mapping[str, str]], answer: str
) -> Example:
    """Return a row as token ids, with the checkpoint's chat template.

    Question and answer are encoded apart, as a server encodes the question alone.

    Raises:
        DataRefused: The template refuses the row, or renders its question otherwise once the
            answer follows, so that what is learnt is not what is asked later.
    """
    turns = [dict(turn) for turn in conversation]
    told = {"role": "assistant", "content": answer}
    try:
        question = str(
            tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        )
        whole = str(tokenizer.apply_chat_template([*turns, told], tokenize=False))
    # templates raise what they like: jinja's errors, TypeError for a role they do not know
    except Exception as problem:
        raise DataRefused(
            f"data.train: row {identity}: the chat template refuses it: {problem}",
            hint="correct the roles of its messages, or their order",
        ) from problem
    if not whole.startswith(question):
        raise DataRefused(
            f"data.train: row {identity}: the chat template writes the question otherwise when an "
            "answer follows; allowed: a template that only adds to it",
            hint="give the checkpoint a template without such a rule",
        )
    answered = _encode(tokenizer, whole[len(question) :])
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in answered:
        answered.append(tokenizer.eos_token_id)
    return Example(identity, tuple(_encode(tokenizer, question)), tuple(answered))


def require_template(template: str | None, where: str) -> None:
    """Raise for a checkpoint that cannot be asked in turns."""
    if not template:
        raise ConfigurationError(
            f"{where}: the checkpoint has no chat template; allowed: one with which questions and "
            "answers are told apart, in training as in serving",
            hint="start from the instruction-tuned checkpoint, or add chat_template.jinja to it",
        )


def require_short(examples: Sequence[Example], longest: int) -> None:
    """Raise `DataRefused` naming rows with more tokens than may be trained on; none is cut."""
    too_long = [each for each in examples if len(each) > longest]
    if too_long:
        named = ", ".join(f"{e.identity} ({len(e)} tokens)" for e in too_long[:_NAMED])
        raise DataRefused(
            f"data.train: {len(too_long)} rows are longer than {longest} tokens, such as {named}",
            hint="shorten them, or raise training.max_length up to the model's context",
        )


def _encode(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))
