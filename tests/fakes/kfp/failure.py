"""Errors as the server writes them: one shape of its gateway, one of its upload handlers."""

from __future__ import annotations

from typing import Any

_GRPC = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 500: 13, 503: 14}


class Failure(Exception):
    """An answer that is an error.

    Args:
        status: Of HTTP.
        said: What the client is told.
        inside: What stands in `message` beside it, longer.
        upload: Whether an upload handler answers, which knows no codes.
    """

    def __init__(self, status: int, said: str, inside: str = "", *, upload: bool = False) -> None:
        super().__init__(said)
        self.status, self.said, self.inside, self.upload = status, said, inside, upload

    @property
    def body(self) -> dict[str, Any]:
        if self.upload:
            return {"error_message": self.said, "error_details": self.inside or self.said}
        code = _GRPC.get(self.status, 2)
        detail = {
            "@type": "type.googleapis.com/google.rpc.Status",
            "code": code,
            "message": self.said,
        }
        return {"code": code, "message": self.inside or self.said, "details": [detail]}


def invalid(said: str) -> Failure:
    return Failure(400, said, f"Invalid input error: {said}")


def absent(kind: str, name: str) -> Failure:
    said = f"{kind} {name} not found"
    return Failure(404, said, f"ResourceNotFoundError: {said}")


def taken(said: str) -> Failure:
    return Failure(409, said, f"Already exist error: {said}")


def internal(inside: str) -> Failure:
    return Failure(500, "Internal Server Error", f"InternalServerError: {inside}")
