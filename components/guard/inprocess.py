"""Measures in this process how far a candidate's distributions are from its parent's.

Both read the same tokens: the prompt and a reference answer (teacher forcing). One model is in
memory at a time; the parent's log-probabilities wait in a file, of bounded size, for the
candidate's. Kept in float32: half precision alone would look like the distance of an 8-bit format.
"""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.guard.items import Distance
from penstock.core.errors import CheckpointBroken, ConfigurationError, LifecycleError, disk_errors
from serving.completer import Message
from serving.engine.loading import Loaded, load

SCRATCH_BYTES = 2 << 30
BATCH_BYTES = 256 << 20
"""Of log-probabilities computed at once."""

BATCH_ROWS = 32
"""Bounds what the layers hold."""

Rows = NDArray[np.float32]
Progress = Callable[[int, int], None]
_Asked = Sequence[tuple[Sequence[Message], str]]


def _ignore(_done: int, _total: int) -> None:
    """Reports progress to nobody."""


@dataclass(frozen=True, slots=True)
class _Text:
    """Token ids of a prompt and its answer; the answer ends with the end token."""

    ids: tuple[int, ...]
    answer: int
    """How many of them are the answer."""


def distances(
    parent: Path,
    candidate: Path,
    asked: Sequence[tuple[Sequence[Message], str]],
    *,
    scratch: Path | None = None,
    scratch_bytes: int = SCRATCH_BYTES,
    on_progress: Progress = _ignore,
) -> list[Distance]:
    """Return how far the candidate is from the parent on each reference answer, in order.

    Args:
        parent: The unquantized checkpoint.
        candidate: The quantized one; plain or compressed-tensors, as the CPU engine loads it.
        asked: Prompts, and what both are made to say: expected answers, or the parent's own.
        scratch: Folder for the temporary file; None: the system's.
        scratch_bytes: Its largest size; with less, both checkpoints are loaded more often.
        on_progress: Told (answers compared, answers in all).

    Raises:
        CheckpointBroken: The candidate reads text as other tokens, has another vocabulary, or
            gives numbers that are none.
        EngineRefused: One of them cannot be run here.
        DiskFull: No room for the temporary file.
    """
    found: list[Distance] = []
    while len(found) < len(asked):
        rest = asked[len(found) :]
        with disk_errors(scratch or Path(tempfile.gettempdir())), _file(scratch) as file:
            texts = _write(parent, file, rest, scratch_bytes)
            gc.collect()  # models hold cycles; two at a time would be twice the memory
            file.seek(0)
            found += _read(candidate, file, rest[: len(texts)], texts)
            gc.collect()
        on_progress(len(found), len(asked))
    return found


def _file(scratch: Path | None) -> Any:
    return tempfile.TemporaryFile(dir=scratch, prefix="penstock-guard-")


def _write(parent: Path, file: Any, asked: _Asked, limit: int) -> list[_Text]:
    """Write the parent's log-probabilities of as many answers as fit, at least one."""
    loaded = load(parent)
    texts: list[_Text] = []
    room = limit
    for conversation, answer in asked:
        text = _encode(loaded, conversation, answer)
        room -= text.answer * _vocabulary(loaded) * 4
        if texts and room < 0:
            break
        texts.append(text)
    for rows in _log_probabilities(loaded, texts):
        file.write(rows.tobytes())  # ndarray.tofile would hide why a write failed
    file.flush()
    return texts


def _read(candidate: Path, file: Any, asked: _Asked, texts: Sequence[_Text]) -> list[Distance]:
    """Return the distances of the candidate's log-probabilities from those in the file."""
    loaded = load(candidate)
    for (conversation, answer), text in zip(asked, texts, strict=True):
        _check_tokens(loaded, conversation, answer, text)
    size = sum(text.answer for text in texts) * _vocabulary(loaded) * 4
    if os.fstat(file.fileno()).st_size != size:
        raise CheckpointBroken(
            f"{candidate}: its vocabulary has {_vocabulary(loaded)} tokens, not as many as its"
            " parent's",
            hint="quantize again, without resizing the embeddings",
        )
    found = []
    for text, rows in zip(texts, _log_probabilities(loaded, texts), strict=True):
        vocabulary = rows.shape[1]
        told = np.fromfile(file, np.float32, text.answer * vocabulary).reshape(-1, vocabulary)
        found.append(distance(told, rows, text.ids[-text.answer :]))
    return found


def distance(parent: Rows, candidate: Rows, answer: Sequence[int]) -> Distance:
    """Return the distance of two sets of (tokens, vocabulary) log-probabilities.

    Args:
        parent: Natural logarithms, one row per token of the answer.
        candidate: The same, of the other version.
        answer: The tokens of the answer.
    """
    # float64: the terms of a small divergence nearly cancel
    p, q = parent.astype(np.float64), candidate.astype(np.float64)
    kl = np.einsum("tv,tv->t", np.exp(p), p - q)
    each, tokens = np.arange(len(answer)), np.array(answer)
    return Distance(
        kl=tuple(np.maximum(kl, 0.0).tolist()),
        same_top=int((p.argmax(axis=1) == q.argmax(axis=1)).sum()),
        log_ratio=float((p[each, tokens] - q[each, tokens]).sum()),
    )


def _encode(loaded: Loaded, conversation: Sequence[Message], answer: str) -> _Text:
    prompt = loaded.encode_chat(conversation)
    target = [*loaded.encode_plain(answer), *loaded.eos_token_ids[:1]]
    if not target or len(prompt) + len(target) > loaded.context_length:
        raise ConfigurationError(
            f"{loaded.folder}: a prompt with its answer needs {len(prompt) + len(target)} tokens;"
            f" allowed: 1 to {loaded.context_length}, the answer not empty",
            hint="leave the item out",
        )
    return _Text((*prompt, *target), len(target))


def _check_tokens(
    loaded: Loaded, conversation: Sequence[Message], answer: str, expected: _Text
) -> None:
    try:
        same = _encode(loaded, conversation, answer) == expected
    except LifecycleError as error:
        raise CheckpointBroken(
            f"{loaded.folder}: cannot read what its parent reads: {error}",
            hint="copy tokenizer files and chat template from the parent",
        ) from error
    if not same:
        raise CheckpointBroken(
            f"{loaded.folder}: reads {conversation[-1]['content'][:60]!r} as other tokens than its"
            " parent",
            hint="copy tokenizer files and chat template from the parent",
        )


def _vocabulary(loaded: Loaded) -> int:
    return int(loaded.model.config.get_text_config().vocab_size)


def _log_probabilities(loaded: Loaded, texts: Sequence[_Text]) -> Iterator[Rows]:
    """Yield (answer tokens, vocabulary) per text, in order."""
    for batch in _batches(texts, _vocabulary(loaded)):
        yield from _forward(loaded, batch)


def _batches(texts: Sequence[_Text], vocabulary: int) -> Iterator[list[_Text]]:
    """Yield texts in batches of bounded memory, one text at least."""
    batch: list[_Text] = []
    for text in texts:
        together = [*batch, text]
        size = len(together) * _kept(together) * vocabulary * 4
        if batch and (len(together) > BATCH_ROWS or size > BATCH_BYTES):
            yield batch
            together = [text]
        batch = together
    if batch:
        yield batch


def _kept(batch: Sequence[_Text]) -> int:
    """Return how many last positions hold all answers, and the token before each."""
    return max(len(t.ids) for t in batch) - min(len(t.ids) - t.answer - 1 for t in batch)


def _forward(loaded: Loaded, batch: Sequence[_Text]) -> list[Rows]:
    import torch

    width, kept = max(len(text.ids) for text in batch), _kept(batch)
    # padding comes last, so that every position is what it is without padding
    ids = torch.tensor([[*t.ids, *[loaded.pad_token_id] * (width - len(t.ids))] for t in batch])
    mask = torch.tensor([[1] * len(t.ids) + [0] * (width - len(t.ids)) for t in batch])
    with torch.inference_mode():
        logits = loaded.model(
            ids, attention_mask=mask, use_cache=False, logits_to_keep=kept
        ).logits.float()
        found = []
        for row, text in enumerate(batch):
            last = len(text.ids) - 1 - (width - kept)
            rows = logits[row, last - text.answer : last].log_softmax(dim=-1)
            if not bool(torch.isfinite(rows).all()):
                raise CheckpointBroken(
                    f"{loaded.folder}: its answer probabilities are not numbers",
                    hint="a scale is missing or overflows: quantize again, or keep the parent",
                )
            found.append(rows.numpy())
    return found
