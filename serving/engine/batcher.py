"""Runs requests through transformers' continuous batching and hands their tokens to the event loop.

transformers generates in a thread of its own. Once per step, all new tokens cross to the event
loop in one call; there they are spread over the requests. At most `streams` requests are in the
batch; the next wait here, in order, and what exceeds `waiting` is refused, so that a client learns
of an overload at once rather than by a timeout.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from serving.engine.loading import Loaded
from serving.engine.metrics import Metrics
from serving.engine.refusals import QueueFull, RequestRefused, Unavailable
from serving.engine.sampler import Sampler, TokenLogprob
from serving.engine.sampling import Sampling

BLOCK_TOKENS = 32
SMALLEST_CACHE_BLOCKS = 128
STOP_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How much work the engine takes on at once."""

    streams: int = 16
    """Requests that generate together."""

    waiting: int = 64
    """Requests that may wait for a place."""


class GenerationFailed(RequestRefused):
    """The generation loop gave up on a request."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"generation failed: {reason}", code="generation_failed", status=500)


@dataclass(frozen=True, slots=True)
class Tokens:
    """What came since the last look."""

    ids: list[int]
    finished: bool


class Generation:
    """One request on its way: its new tokens, and when things happened (seconds of one clock)."""

    def __init__(self, request_id: str, prompt_ids: list[int], sampling: Sampling) -> None:
        self.request_id = request_id
        self.prompt_ids = prompt_ids
        self.sampling = sampling
        self.max_new_tokens = 0
        self.eos_token_ids: Sequence[int] = ()
        self.logprobs: list[TokenLogprob] = []
        self.arrived = time.perf_counter()
        self.first_token: float | None = None
        self.last_token = self.arrived
        self.generated = 0
        self.over = False
        self._fresh: list[int] = []
        self._error: str | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def step(self) -> Tokens:
        """Returns what came since the last call; several tokens when the reader is slow.

        Raises:
            GenerationFailed: There is no more to come.
        """
        # bare futures: this runs once per token, and an Event or a queue costs several times more
        if not self._fresh and not self.over:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._error is not None:
            raise GenerationFailed(self._error)
        ids, self._fresh = self._fresh, []
        return Tokens(ids, self.over)

    def deliver(self, ids: list[int], *, finished: bool) -> None:
        """Adds new tokens; called on the event loop."""
        self.generated += len(ids)
        self._fresh += ids
        self.over = self.over or finished
        self._wake()

    def fail(self, reason: str) -> None:
        """Ends the request without an answer; called on the event loop."""
        self._error = reason
        self.over = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Router:
    """Takes the place of the manager's `output_router`: one wake-up of the event loop per step."""

    def __init__(self, batcher: Batcher, loop: asyncio.AbstractEventLoop) -> None:
        self._batcher = batcher
        self._loop = loop

    def deliver(self, output: Any) -> None:
        self.deliver_batch([output])

    def deliver_batch(self, outputs: list[Any]) -> None:
        self._loop.call_soon_threadsafe(self._batcher.receive, outputs)

    def fail_and_deliver(self, state: Any, error: Exception) -> None:
        from transformers.generation.continuous_batching.requests import RequestStatus

        state.status = RequestStatus.FAILED
        state.error = str(error)
        self.deliver(state.to_generation_output())


class Batcher:
    """The generation thread, its queue, and the requests in both.

    Everything but `alive` is called on the event loop.
    """

    def __init__(self, loaded: Loaded, limits: Limits, metrics: Metrics) -> None:
        self._loaded = loaded
        self._limits = limits
        self._metrics = metrics
        self._sampler = Sampler()
        self._waiting: deque[Generation] = deque()
        self._running: dict[str, Generation] = {}
        self._submitted = 0
        self._name = secrets.token_hex(4)
        self._manager: Any = None
        metrics.gauge("num_requests_waiting", "Requests waiting", lambda: len(self._waiting))
        metrics.gauge("num_requests_running", "Requests in the batch", lambda: len(self._running))
        metrics.gauge("kv_cache_usage_perc", "Used part of the KV cache, 0 to 1", self._cache_usage)

    @property
    def alive(self) -> bool:
        """Whether the generation thread runs and takes requests."""
        manager = self._manager
        return (
            manager is not None
            and manager.is_running()
            and manager.background_thread_status.can_accept_new_requests() is None
        )

    @property
    def in_flight(self) -> int:
        """Requests waiting or running."""
        return len(self._waiting) + len(self._running)

    def start(self) -> None:
        """Starts the generation thread."""
        from transformers import ContinuousBatchingConfig, GenerationConfig

        context_blocks = -(-self._loaded.context_length // BLOCK_TOKENS)
        manager = self._loaded.model.init_continuous_batching(
            # the sampler chooses; the loop itself only takes the arg max
            generation_config=GenerationConfig(
                do_sample=False, eos_token_id=list(self._loaded.eos_token_ids) or -1
            ),
            continuous_batching_config=ContinuousBatchingConfig(
                block_size=BLOCK_TOKENS,
                # the longest request must fit, or the loop dies of it
                num_blocks=max(SMALLEST_CACHE_BLOCKS, 2 * context_blocks),
                max_batch_tokens=512,
                use_cuda_graph=False,
                max_queue_size=0,  # bounded here, where a refusal costs no thread
            ),
        )
        manager.logit_processor = self._sampler
        manager.output_router = _Router(self, asyncio.get_running_loop())
        manager.start()
        self._manager = manager

    async def stop(self) -> None:
        """Ends the generation thread; requests in flight fail."""
        if self._manager is not None:
            await asyncio.to_thread(
                self._manager.stop, block=True, timeout=STOP_TIMEOUT_S, hard_stop=True
            )

    def submit(
        self,
        prompt_ids: list[int],
        sampling: Sampling,
        *,
        max_new_tokens: int,
        ignore_eos: bool = False,
    ) -> Generation:
        """Queues a request.

        Raises:
            QueueFull: Too many wait already.
            Unavailable: The generation thread is not running.
        """
        if not self.alive:
            raise Unavailable("the generation thread is not running")
        if (
            len(self._running) >= self._limits.streams
            and len(self._waiting) >= self._limits.waiting
        ):
            raise QueueFull(len(self._waiting))
        self._submitted += 1
        if sampling.seed is None and sampling.temperature > 0:
            sampling = replace(sampling, seed=secrets.randbits(62))
        generation = Generation(f"{self._name}-{self._submitted}", prompt_ids, sampling)
        generation.max_new_tokens = max_new_tokens
        generation.eos_token_ids = () if ignore_eos else self._loaded.eos_token_ids
        self._waiting.append(generation)
        self._admit()
        return generation

    def finish(self, generation: Generation, reason: str) -> None:
        """Closes the books on a request; if the model still works on it, that is cancelled."""
        if generation.request_id in self._running:
            self._manager.cancel_request(generation.request_id)
            self._release(generation)
        elif not generation.over:
            self._waiting.remove(generation)
        self._observe(generation, reason)
        self._admit()

    def receive(self, outputs: Sequence[Any]) -> None:
        """Spreads one step's tokens over the requests; called on the loop by the router."""
        now = time.perf_counter()
        produced = 0
        for output in outputs:
            generation = self._running.get(output.request_id)
            if generation is None:  # cancelled while the step ran
                continue
            finished = output.is_finished()
            if output.error is not None:
                self._release(generation)
                generation.fail(output.error)
                continue
            fresh = output.generated_tokens[generation.generated :]
            if fresh:
                self._time(generation, now)
                produced += len(fresh)
            if finished:
                self._release(generation)
            generation.deliver(fresh, finished=finished)
        self._metrics.generation_tokens.inc(produced)
        if not self.alive:
            self._fail_waiting()
        self._admit()

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self._limits.streams and self.alive:
            generation = self._waiting.popleft()
            self._metrics.queue.observe(time.perf_counter() - generation.arrived)
            self._metrics.prompt_tokens.inc(len(generation.prompt_ids))
            self._running[generation.request_id] = generation
            if generation.sampling.top_logprobs is not None:
                generation.logprobs = self._sampler.record(generation.request_id)
            self._manager.add_request(
                generation.prompt_ids,
                request_id=generation.request_id,
                max_new_tokens=generation.max_new_tokens,
                streaming=True,
                eos_token_id=list(generation.eos_token_ids) or -1,
                sampling=generation.sampling,
            )

    def _release(self, generation: Generation) -> None:
        self._running.pop(generation.request_id, None)
        self._sampler.forget(generation.request_id)

    def _fail_waiting(self) -> None:
        while self._waiting:
            self._waiting.popleft().fail("the generation thread ended")

    def _time(self, generation: Generation, now: float) -> None:
        if generation.first_token is None:
            generation.first_token = now
            self._metrics.ttft.observe(now - generation.arrived)
        else:
            self._metrics.itl.observe(now - generation.last_token)
        generation.last_token = now

    def _observe(self, generation: Generation, reason: str) -> None:
        metrics = self._metrics
        metrics.finished[reason].inc()
        if reason in ("stop", "length") and generation.first_token is not None:
            metrics.e2e.observe(generation.last_token - generation.arrived)
            if generation.generated > 1:
                decoding_s = generation.last_token - generation.first_token
                metrics.tpot.observe(decoding_s / (generation.generated - 1))

    def _cache_usage(self) -> float:
        processor = self._manager.batch_processor if self._manager is not None else None
        if processor is None:
            return 0.0
        return 1.0 - float(processor.cache.get_num_free_blocks()) / float(
            processor.cache.num_blocks
        )
