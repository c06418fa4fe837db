"""The endpoints: OpenAI's routes, health, readiness and metrics."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from serving.engine.answers import Answer, ChatFormat, CompletionFormat, Format, Piece
from serving.engine.batcher import Batcher, Limits
from serving.engine.loading import Loaded
from serving.engine.metrics import Metrics
from serving.engine.refusals import RequestRefused, Unavailable, context_exceeded
from serving.engine.sampling import ChatRequest, CompletionRequest, Request, Sampling, parse
from serving.headers import replayed
from serving.sse import StreamClock
from serving.usermetrics import ENGINE as ENGINE_PREFIX
from serving.usermetrics import Outcome, UserMetrics

LARGEST_BODY_BYTES = 4 * 1024 * 1024


class Engine:
    """One served model: what the handlers share."""

    def __init__(self, loaded: Loaded, model_name: str, limits: Limits) -> None:
        self.loaded = loaded
        self.model_name = model_name
        self.metrics = Metrics(model_name)
        self.users = UserMetrics(ENGINE_PREFIX)
        self.batcher = Batcher(loaded, limits, self.metrics)
        self.warm = False
        self.draining = False

    @property
    def ready(self) -> bool:
        """Whether a request sent now would be answered."""
        return self.warm and not self.draining and self.batcher.alive

    async def warm_up(self) -> None:
        """Answers one request, so that the first client does not pay for lazy initialization."""
        prompt = self.loaded.encode_text("a")
        generation = self.batcher.submit(prompt, Sampling(temperature=0), max_new_tokens=2)
        while not (await generation.step()).finished:
            continue
        self.warm = True

    def answer(self, request: Request) -> Answer:
        """Queues a request and returns its answer-to-be.

        Raises:
            RequestRefused: It names another model, does not fit, or there is no room.
        """
        if self.draining:
            raise Unavailable("the server is shutting down")
        if request.model != self.model_name:
            raise RequestRefused(
                f"The model {request.model!r} does not exist; this server has {self.model_name!r}.",
                param="model",
                code="model_not_found",
                status=404,
            )
        prompt_ids = self._encode(request)
        generation = self.batcher.submit(
            prompt_ids,
            request.sampling(),
            max_new_tokens=self._room(request, len(prompt_ids)),
            ignore_eos=request.ignore_eos,
        )
        return Answer(self.loaded, self.batcher, generation, request.stops)

    def format(self, request: Request, answer: Answer) -> Format:
        """Returns how the request's endpoint writes answers."""
        kind = ChatFormat if isinstance(request, ChatRequest) else CompletionFormat
        return kind(self.loaded, self.model_name, answer, request.alternatives() is not None)

    def _encode(self, request: Request) -> list[int]:
        if isinstance(request, ChatRequest):
            return self.loaded.encode_chat([turn.for_template() for turn in request.messages])
        if not isinstance(request, CompletionRequest):
            raise TypeError(f"no endpoint takes a {type(request).__name__}")
        text, token_ids = request.prompt_as()
        ids = self.loaded.encode_text(text) if token_ids is None else self._checked(token_ids)
        if not ids:
            raise RequestRefused("the prompt is empty", param="prompt", code="invalid_value")
        return ids

    def _checked(self, token_ids: list[int]) -> list[int]:
        vocabulary = self.loaded.model.config.get_text_config().vocab_size
        if not all(0 <= token < vocabulary for token in token_ids):
            raise RequestRefused(
                f"token ids must be in 0..{vocabulary - 1}", param="prompt", code="invalid_value"
            )
        return token_ids

    def _room(self, request: Request, prompt: int) -> int:
        asked, limit = request.limit(), self.loaded.context_length
        if prompt + (asked or 1) > limit:
            param = "messages" if isinstance(request, ChatRequest) else "prompt"
            raise context_exceeded(prompt, asked or 1, limit, param=param)
        return asked or limit - prompt


ENGINE = web.AppKey("engine", Engine)
CLOCK = web.RequestKey("clock", StreamClock)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def add_routes(app: web.Application) -> None:
    """Adds every endpoint of the engine."""
    app.router.add_get("/v1/models", _models)
    app.router.add_get("/v1/models/{model:.+}", _model)
    app.router.add_post("/v1/chat/completions", _chat)
    app.router.add_post("/v1/completions", _completion)
    app.router.add_get("/health", _health)
    app.router.add_get("/ready", _ready)
    app.router.add_get("/metrics", _metrics)


@web.middleware
async def counted(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Counts what users' requests came to; replays are nobody's."""
    if request.method != "POST" or replayed(request.headers):
        return await handler(request)
    engine, outcome = request.app[ENGINE], Outcome()
    request[CLOCK] = clock = StreamClock(time.perf_counter())
    try:
        response = await handler(request)
        outcome.status, outcome.broken = response.status, clock.failed
        outcome.ttft_s, outcome.tpot_s = clock.ttft_s, clock.tpot_s
    finally:
        engine.users.ended(engine.model_name, "", outcome)
    return response


@web.middleware
async def refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns a refusal into OpenAI's error body."""
    try:
        return await handler(request)
    except RequestRefused as error:
        return _refusal(error)
    except web.HTTPException as error:
        return _refusal(RequestRefused(f"{request.path}: {error.reason}", status=error.status))


def _refusal(error: RequestRefused) -> web.Response:
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    return web.json_response(error.body, status=error.status, headers=headers)


async def _models(request: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": [_card(request.app[ENGINE])]})


async def _model(request: web.Request) -> web.Response:
    engine, name = request.app[ENGINE], request.match_info["model"]
    if name != engine.model_name:
        raise RequestRefused(
            f"The model {name!r} does not exist", code="model_not_found", status=404
        )
    return web.json_response(_card(engine))


def _card(engine: Engine) -> dict[str, Any]:
    return {
        "id": engine.model_name,
        "object": "model",
        "created": 0,
        "owned_by": "penstock",
        "max_model_len": engine.loaded.context_length,
    }


async def _health(request: web.Request) -> web.Response:
    if not request.app[ENGINE].batcher.alive:
        raise Unavailable("the generation thread is not running")
    return web.json_response({"status": "ok"})


async def _ready(request: web.Request) -> web.Response:
    if not request.app[ENGINE].ready:
        raise Unavailable("warming up, draining, or the generation thread is not running")
    return web.json_response({"status": "ready"})


async def _metrics(request: web.Request) -> web.Response:
    engine = request.app[ENGINE]
    text = engine.metrics.render() + engine.users.render()
    return web.Response(body=text, headers={"Content-Type": engine.metrics.content_type})


async def _chat(http: web.Request) -> web.StreamResponse:
    return await _respond(http, parse(ChatRequest, await _json(http)))


async def _completion(http: web.Request) -> web.StreamResponse:
    return await _respond(http, parse(CompletionRequest, await _json(http)))


async def _json(http: web.Request) -> object:
    try:
        body: object = json.loads(await http.read())
    except ValueError as error:
        raise RequestRefused(f"the body is not JSON: {error}") from error
    return body


async def _respond(http: web.Request, request: Request) -> web.StreamResponse:
    engine = http.app[ENGINE]
    answer = engine.answer(request)
    form = engine.format(request, answer)
    if request.stream:
        return await _stream(http, answer, form, usage=request.usage_in_stream)
    pieces = [piece async for piece in answer.pieces()]
    body = form.whole(
        "".join(piece.text for piece in pieces),
        [each for piece in pieces for each in piece.logprobs],
        pieces[-1].finish_reason or "stop",
    )
    return web.json_response({**body, "usage": answer.usage})


async def _stream(
    http: web.Request, answer: Answer, form: Format, *, usage: bool
) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
    )
    pieces = answer.pieces()
    try:
        # the headers wait for the first token: a failure before it is still an HTTP error
        first = await anext(pieces)
        await response.prepare(http)
        opening = form.opening()
        head = b"" if opening is None else _event(opening)
        events, write = _Events(form), _written(http, response)
        await write(head + events.of(first))
        async for piece in pieces:
            await write(events.of(piece))
        tail = _event(form.usage(answer.usage)) if usage else b""
        await write(tail + b"data: [DONE]\n\n")
    except RequestRefused as error:
        if not response.prepared:
            raise
        await _written(http, response)(_event(error.body))
    finally:
        await pieces.aclose()  # type: ignore[attr-defined]  # an async generator, typed by what it yields
    return response


def _written(http: web.Request, response: web.StreamResponse) -> Callable[[bytes], Awaitable[None]]:
    """Returns what writes to a stream, and tells the clock of a user's request."""
    clock = http.get(CLOCK)

    async def write(chunk: bytes) -> None:
        if clock is not None:
            clock.feed(chunk, time.perf_counter())
        await response.write(chunk)

    return write


class _Events:
    """Writes the pieces of one answer; those that only add text differ in nothing else."""

    def __init__(self, form: Format) -> None:
        self._form = form
        mark = "\u241f"
        sample = _event(form.chunk(Piece(mark)))
        self._head, self._tail = sample.split(f'"{mark}"'.encode())

    def of(self, piece: Piece) -> bytes:
        if piece.finish_reason is not None or piece.logprobs:
            return _event(self._form.chunk(piece))
        # a tenth of the time of encoding the whole chunk, once per token
        return self._head + json.dumps(piece.text).encode() + self._tail


def _event(chunk: dict[str, Any]) -> bytes:
    return (
        b"data: " + json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
    )
