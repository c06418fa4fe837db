"""A random Llama checkpoint with a real tokenizer: no test needs committed weights."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from serving.engine.batcher import Limits
from serving.engine.loading import Loaded
from serving.engine.routes import ENGINE, Engine
from serving.engine.server import application

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL_TOKENS = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
CORPUS = [
    "the quick brown fox jumps over the lazy dog",
    "what is twelve plus thirty? twelve plus thirty is forty-two.",
    "grüße aus köln, 東京 and 🙂",
    '{"name": "pump", "size": 17}',
]


@dataclass(frozen=True, slots=True)
class Shape:
    """The dimensions of a Llama model; GQA with two query heads per key head."""

    hidden: int = 32
    intermediate: int = 64
    layers: int = 2
    heads: int = 4
    vocabulary: int = 300
    context: int = 256


TINY = Shape()


def make_tiny_model(folder: Path, *, seed: int = 0, shape: Shape = TINY) -> Path:
    """Writes a checkpoint into `folder` and returns the folder; equal seeds give equal weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    _tokenizer(shape.vocabulary).save_pretrained(folder)
    config = LlamaConfig(
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads // 2,
        vocab_size=shape.vocabulary,
        max_position_embeddings=shape.context,
        # wide weights: the best token leads clearly, so answers do not hang on rounding
        initializer_range=0.3,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def _tokenizer(vocabulary: int):  # type: ignore[no-untyped-def]  # transformers is untyped here
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # numbers fill a larger vocabulary than the sentences can
    numbers = [" ".join(str(i * 37 % 9973) for i in range(vocabulary))]
    tokenizer.train_from_iterator(CORPUS + numbers, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


@contextmanager
def serve(
    loaded: Loaded, *, model_name: str = "tiny", limits: Limits | None = None
) -> Iterator[tuple[str, Engine]]:
    """Serves a loaded checkpoint from a thread; yields the URL and the engine behind it."""
    loop = asyncio.new_event_loop()
    app = application(loaded, model_name=model_name, limits=limits)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)

    async def start() -> str:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        await app[ENGINE].warm_up()
        host, port = runner.addresses[0][:2]
        return f"http://{host}:{port}"

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        url = asyncio.run_coroutine_threadsafe(start(), loop).result(timeout=60)
        yield url, app[ENGINE]
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(timeout=60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
