"""Why a request is refused, in the words and the JSON body that OpenAI clients expect."""

from __future__ import annotations

from typing import Any

from penstock.core.errors import ServingError


class RequestRefused(ServingError):
    """One request cannot be answered; the server goes on.

    Args:
        message: What is wrong, for the caller.
        param: The request field at fault.
        code: OpenAI's machine-readable code, where one exists.
        status: The HTTP status; clients choose the exception class by it.
        retry_after_s: When to try again.
    """

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int = 400,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.param = param
        self.code = code
        self.status = status
        self.retry_after_s = retry_after_s

    @property
    def body(self) -> dict[str, Any]:
        """The error body of the OpenAI API."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        if self.status == 429:
            kind = "rate_limit_error"
        return {
            "error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        }


class QueueFull(RequestRefused):
    """As many requests wait as may wait."""

    def __init__(self, waiting: int) -> None:
        super().__init__(
            f"{waiting} requests are waiting already; try again later",
            code="queue_full",
            status=429,
            retry_after_s=1,
        )


class Unavailable(RequestRefused):
    """The engine is warming up, draining or dead."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, code="unavailable", status=503, retry_after_s=1)


def context_exceeded(prompt: int, asked: int, limit: int, *, param: str) -> RequestRefused:
    """Returns the refusal of a request that does not fit the model's context."""
    return RequestRefused(
        f"This model's maximum context length is {limit} tokens; the prompt has {prompt} tokens"
        f" and {asked} were asked for.",
        param=param,
        code="context_length_exceeded",
    )
