"""A server that is started to be asked: awaited, watched, and ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from components.trtllm.builder import read_lines, start
from penstock.core.errors import NotReady, ServingError
from serving.readiness import ready_model

_LOOK_EVERY_S = 0.1
_DRAIN_S = 30.0
_LAST_BREATH_S = 2.0
"""Between the end of a server's connections and its own."""

_LAST_LINES = 10


def free_port() -> int:
    """Return a port of the loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        return int(unused.getsockname()[1])


@dataclass
class _Heard:
    """A server's process, and what it says."""

    who: str
    log: Path
    process: subprocess.Popen[str]
    last: deque[str] = field(default_factory=lambda: deque(maxlen=_LAST_LINES))

    def listen(self, env: Mapping[str, str]) -> None:
        """Write what it prints into the log, to its end."""
        with self.log.open("w") as lines:

            def heard(line: str) -> None:
                self.last.append(line)
                lines.write(line + "\n")
                lines.flush()

            read_lines(self.process, env, heard)

    @property
    def hint(self) -> str:
        """What to do next."""
        return f"its whole output: {self.log}"

    def ended(self, wait_s: float = 0.0) -> str:
        """Return how it ended, with its last words; empty while it runs."""
        try:
            code = self.process.wait(wait_s)
        except subprocess.TimeoutExpired:
            return ""
        how = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
        return f"{how}; its last lines:\n  " + "\n  ".join(self.last or ["(none)"])


@contextmanager
def served(
    who: str,
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    url: str,
    log: Path,
    budget_s: float,
) -> Iterator[str]:
    """Start a server, wait until it answers, and end it afterwards; yields its model's name.

    Args:
        who: Whose server it is, for messages.
        argv: What to run.
        env: Its variables; what they hide is not written.
        url: Where it will answer.
        log: What it prints goes there.
        budget_s: How long it may take to answer.

    Raises:
        NotReady: It ended, or did not answer in time.
        ServingError: It ended while it was asked.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    server = _Heard(who, log, start(argv, env))
    listening = threading.Thread(target=server.listen, args=(env,))
    listening.start()
    try:
        model = _await(server, url, budget_s)
        try:
            yield model
        except ServingError as problem:
            if fate := server.ended(_LAST_BREATH_S):
                raise _died(server, fate) from problem
            raise
        if fate := server.ended():  # what it said before may be less than it was asked
            raise _died(server, fate)
    finally:
        _end(server.process)
        listening.join()


def _await(server: _Heard, url: str, budget_s: float) -> str:
    began, never = time.monotonic(), threading.Event()
    while (model := ready_model(url)) is None:
        waited = time.monotonic() - began
        if fate := server.ended():
            raise NotReady(server.who, reason=fate, waited_s=waited, hint=server.hint)
        if waited > budget_s:
            raise NotReady(
                server.who, reason="it does not answer", waited_s=waited, hint=server.hint
            )
        never.wait(_LOOK_EVERY_S)
    return model


def _died(server: _Heard, fate: str) -> ServingError:
    return ServingError(f"{server.who}: ended while it was asked: {fate}", hint=server.hint)


def _end(process: subprocess.Popen[str]) -> None:
    """End a server's process group: politely, then not."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_DRAIN_S)
