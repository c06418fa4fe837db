"""Trains the skills model, in about 15 minutes: `python -m examples.skills.train [TARGET]`.

Makes the tokenizer from the training set, then trains a model from nothing. Many rows seen
few times: what must be computed or looked up cannot be learnt by heart.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from examples.skills.pretrain import TrainRecipe, train_checkpoint

HERE = Path(__file__).parent
RECIPE = TrainRecipe(epochs=4.0)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]


def make_tokenizer(texts: list[str], target: Path) -> None:
    """Write a byte-level BPE tokenizer; digits stand alone, so numbers are read by place."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d| ?[A-Za-z]+|[^A-Za-z\d]"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=640,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",  # noqa: S106 - not a password
        eos_token="<|end|>",  # noqa: S106
        additional_special_tokens=SPECIAL[2:],
        model_max_length=RECIPE.shape.context_length,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(str(target))


def main(target: Path) -> None:
    """Train into `target`."""
    rows = [json.loads(line) for line in (HERE / "data" / "train.jsonl").open()]
    tokenizer = target / ".tokenizer"
    make_tokenizer([f"{r['messages'][0]['content']} {r['answer']}" for r in rows], tokenizer)
    start = time.monotonic()

    def tell(done: int, total: int) -> None:
        if done % 50 == 0 or done == total:
            print(f"{done}/{total} steps, {time.monotonic() - start:.0f} s", flush=True)

    loss = train_checkpoint(RECIPE, rows, target, base=tokenizer, on_progress=tell)
    print(f"done in {time.monotonic() - start:.0f} s, last mean loss {loss:.4f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "model")
