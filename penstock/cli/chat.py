"""`penstock chat`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import click

from penstock.cli.edge import settings_of
from penstock.core.errors import NotReady, ServingError


@click.command()
@click.argument("model")
@click.argument("prompt", required=False)
@click.option("--url", help="OpenAI-compatible endpoint.  [default: the local gateway]")
@click.option("--max-tokens", default=128, show_default=True, type=click.IntRange(1))
@click.option("--temperature", default=0.0, show_default=True, type=click.FloatRange(0, 2))
def command(
    model: str, prompt: str | None, url: str | None, max_tokens: int, temperature: float
) -> None:
    """Ask MODEL once with PROMPT, or hold a conversation when there is none."""
    base = url or f"http://127.0.0.1:{settings_of().gateway_port}"
    options = {"model": model, "max_tokens": max_tokens, "temperature": temperature}
    history: list[dict[str, str]] = []
    for text in [prompt] if prompt else _typed():
        history.append({"role": "user", "content": text})
        answer = ""
        for piece in ask(base, {**options, "messages": history}):
            click.echo(piece, nl=False)
            answer += piece
        click.echo()
        history.append({"role": "assistant", "content": answer})


def ask(base: str, body: dict[str, object]) -> Iterator[str]:
    """Yield the answer in pieces as they come."""
    import httpx

    url = f"{base.rstrip('/').removesuffix('/v1')}/v1/chat/completions"
    try:
        with httpx.stream("POST", url, json={**body, "stream": True}, timeout=120) as response:
            if not response.is_success:
                raise _refused(url, response.status_code, response.read())
            for line in response.iter_lines():
                data = line.removeprefix("data: ")
                if line.startswith("data: ") and data != "[DONE]":
                    for choice in json.loads(data).get("choices", []):
                        yield choice["delta"].get("content") or ""
    except httpx.ConnectError as problem:
        raise NotReady(
            base, reason="nobody listens", waited_s=0, hint="penstock local up, or correct --url"
        ) from problem
    except httpx.HTTPError as problem:
        raise ServingError(f"{base}: {problem}") from problem


def _refused(url: str, status: int, body: bytes) -> ServingError:
    try:
        message = json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = body.decode(errors="replace")[:256]
    return ServingError(f"{url}: HTTP {status}: {message}", hint="penstock local status")


def _typed() -> Iterator[str]:
    if sys.stdin.isatty():
        click.echo("Ctrl-D ends the conversation.")
    while True:
        if sys.stdin.isatty():
            click.echo("> ", nl=False)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()
