"""Reads the JSON of a request; what the engine cannot do is refused, never ignored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from serving.engine.refusals import RequestRefused


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the tokens of one request are chosen."""

    temperature: float = 1.0
    """0 is greedy."""

    top_p: float = 1.0
    top_k: int = 0
    """0 keeps all; not part of the OpenAI API, but most engines have it."""

    seed: int | None = None
    """With a seed, equal requests draw equal tokens, whatever else is in the batch; without one,
    the batcher draws a seed."""

    top_logprobs: int | None = None
    """Alternatives to report per token; None reports no log-probabilities at all."""


class StreamOptions(BaseModel):
    """What a stream carries besides the answer."""

    include_usage: bool = False


class TextPart(BaseModel):
    """One part of a message; this engine reads text only."""

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One turn; fields a chat template may know are passed on."""

    model_config = ConfigDict(extra="allow")

    role: str
    content: str | list[TextPart]

    def for_template(self) -> dict[str, Any]:
        """Returns the turn with its content as one string."""
        fields = self.model_dump(exclude={"content"})
        parts = self.content
        text = parts if isinstance(parts, str) else "".join(part.text for part in parts)
        return {**fields, "content": text}


def _neutral(is_neutral: Callable[[Any], bool], otherwise: str) -> AfterValidator:
    """Accepts what changes nothing: clients send neutral values of options they do not use."""

    def check(value: Any) -> Any:
        if not is_neutral(value):
            raise ValueError(otherwise)
        return value

    return AfterValidator(check)


ABSENT = _neutral(lambda value: not value, "not supported by this engine: leave it out")
ONE_ANSWER = _neutral(
    lambda value: value in (None, 1), "this engine gives one answer per request: it must be 1"
)
FREE_TEXT = _neutral(
    lambda value: value is None or value.get("type") == "text",
    'this engine answers with free text only: {"type": "text"}',
)
Stop = Annotated[str, Field(min_length=1)]


class Request(BaseModel):
    """What both endpoints understand; a field left at its neutral value is accepted."""

    model: str = Field(min_length=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    seed: int | None = None
    max_tokens: int | None = Field(None, ge=1)
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool = False
    """Generates exactly `max_tokens`: for load tests, as in vLLM."""

    n: Annotated[int | None, ONE_ANSWER] = None
    presence_penalty: Annotated[float | None, ABSENT] = None
    frequency_penalty: Annotated[float | None, ABSENT] = None
    logit_bias: Annotated[dict[str, float] | None, ABSENT] = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def usage_in_stream(self) -> bool:
        """Whether the stream ends with a chunk of token counts."""
        return self.stream_options is not None and self.stream_options.include_usage

    def limit(self) -> int | None:
        """Returns how many tokens were asked for; None: as many as fit."""
        return self.max_tokens

    def alternatives(self) -> int | None:
        """Returns how many alternatives to report per token; None: no log-probabilities."""
        return None

    def sampling(self) -> Sampling:
        """Returns how tokens are chosen, with OpenAI's defaults."""
        return Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=self.top_k or 0,
            seed=self.seed,
            top_logprobs=self.alternatives(),
        )


class ChatRequest(Request):
    """The body of `POST /v1/chat/completions`."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: Annotated[list[Any] | None, ABSENT] = None
    response_format: Annotated[dict[str, Any] | None, FREE_TEXT] = None

    def limit(self) -> int | None:
        """Returns how many tokens were asked for, by the new or the old name."""
        return self.max_completion_tokens or self.max_tokens

    def alternatives(self) -> int | None:
        """Returns how many alternatives to report per token; None: no log-probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionRequest(Request):
    """The body of `POST /v1/completions`."""

    prompt: (
        str
        | Annotated[list[int], Field(min_length=1)]
        | Annotated[list[str], Field(min_length=1, max_length=1)]
    )
    logprobs: int | None = Field(None, ge=0, le=5)
    echo: Annotated[bool | None, ABSENT] = None
    best_of: Annotated[int | None, ONE_ANSWER] = None
    suffix: Annotated[str | None, ABSENT] = None

    def limit(self) -> int | None:
        """Returns how many tokens were asked for; OpenAI's default for completions is 16."""
        return 16 if self.max_tokens is None else self.max_tokens

    def prompt_as(self) -> tuple[str, list[int] | None]:
        """Returns the prompt as text, or as token ids where those were sent."""
        if isinstance(self.prompt, str):
            return self.prompt, None
        token_ids = [token for token in self.prompt if isinstance(token, int)]
        return ("", token_ids) if token_ids else (str(self.prompt[0]), None)

    def alternatives(self) -> int | None:
        """Returns how many alternatives to report per token; None: no log-probabilities."""
        return self.logprobs


AnyRequest = TypeVar("AnyRequest", bound=Request)


def parse(kind: type[AnyRequest], body: object) -> AnyRequest:
    """Returns the request.

    Raises:
        RequestRefused: The first field at fault, by name.
    """
    if not isinstance(body, Mapping):
        raise RequestRefused("the body must be a JSON object")
    try:
        request = kind.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        param = str(first["loc"][0]) if first["loc"] else None
        message = first["msg"].removeprefix("Value error, ")
        raise RequestRefused(
            f"Invalid '{param}': {message}", param=param, code="invalid_value"
        ) from error
    _refuse_idle_options(request)
    return request


def _refuse_idle_options(request: Request) -> None:
    """Refuses options that only work together with another one, as OpenAI does."""
    if request.stream_options is not None and not request.stream:
        raise RequestRefused(
            "'stream_options' is only allowed when 'stream' is true", param="stream_options"
        )
    if isinstance(request, ChatRequest) and request.top_logprobs and not request.logprobs:
        raise RequestRefused(
            "'top_logprobs' is only allowed when 'logprobs' is true", param="top_logprobs"
        )
