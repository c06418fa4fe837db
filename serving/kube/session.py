"""Connections to one API server: sends requests, renews credentials, tells what was sent.

The kubernetes client builds the pool (certificates, proxies) and keeps the credentials; requests
go to the pool directly, since the client's own path turns every failure into one exception and
hides whether a request left this machine.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from serving.kube.calls import Answer, Call
from serving.kube.errors import NoAccess, Unreachable

_CONNECTIONS = 16  # kept open; more are opened when more threads ask at once
_CONNECT_S = 5.0


class Session:
    """May be used by several threads, not across a fork.

    The pool locks what it shares, and credentials are read and renewed under a lock. Checked with
    8 threads: reading, swapping, creating, and renewing a token all at once.

    Args:
        load: Returns the kubernetes client's `Configuration`; called again after a 401.
    """

    def __init__(self, load: Callable[[], Any]) -> None:
        self._load = load
        self._lock = threading.Lock()  # of credentials; the pool has its own
        self._configuration, self._pool = self._opened()

    @property
    def host(self) -> str:
        """The API server's address."""
        return str(self._configuration.host)

    def close(self) -> None:
        """Close what is open; the next request opens it again."""
        self._pool.clear()

    def send(self, call: Call, *, timeout_s: float) -> Answer:
        """Return the answer, whatever it is; `Unreachable` if there is none."""
        answer, used = self._send(call, timeout_s)
        if answer.status == 401 and self._renewed(used):  # refused at the door: nothing was done
            answer, _ = self._send(call, timeout_s)
        return answer

    @contextmanager
    def stream(self, call: Call, *, timeout_s: float) -> Iterator[Stream]:
        """Open an answer that comes in pieces; `Stream.answer` is whole if it is a refusal."""
        with _sent(call, self.host):
            response, used = self._request(call, timeout_s, whole=False)
        if response.status == 401 and self._renewed(used):
            response.close()
            with _sent(call, self.host):
                response, _ = self._request(call, timeout_s, whole=False)
        try:
            yield Stream(call, self.host, response)
        finally:
            response.close()  # unread pieces: the connection cannot be used again

    def _send(self, call: Call, timeout_s: float) -> tuple[Answer, Mapping[str, str]]:
        with _sent(call, self.host):
            response, used = self._request(call, timeout_s, whole=True)
        return Answer(response.status, dict(response.headers), response.data), used

    def _request(
        self, call: Call, timeout_s: float, *, whole: bool
    ) -> tuple[Any, Mapping[str, str]]:
        import urllib3

        credentials = self._credentials()
        headers = {"Accept": "application/json", "User-Agent": "penstock", **credentials}
        if call.body is not None:
            headers["Content-Type"] = "application/json"
        response = self._pool.request(
            call.method,
            self.host + call.url,
            body=None if call.body is None else json.dumps(call.body),
            headers=headers,
            timeout=urllib3.Timeout(connect=min(_CONNECT_S, timeout_s), read=timeout_s),
            retries=False,  # only the caller knows what may be sent twice
            redirect=False,
            preload_content=whole,
        )
        return response, credentials

    def _credentials(self) -> Mapping[str, str]:
        with self._lock:
            token = self._configuration.get_api_key_with_prefix("authorization")
        return {"Authorization": token} if token else {}

    def _renewed(self, used: Mapping[str, str]) -> bool:
        """Load the credentials again; return whether they are others than those just used."""
        with self._lock:
            configuration = self._configuration
            token = configuration.get_api_key_with_prefix("authorization")
            if used == ({"Authorization": token} if token else {}):  # no other thread was faster
                configuration, pool = self._opened()
                fresh = configuration.get_api_key_with_prefix("authorization")
                if fresh == token and not configuration.cert_file:
                    return False
                self._configuration, self._pool = configuration, pool
        return True

    def _opened(self) -> tuple[Any, Any]:
        from kubernetes.client.rest import RESTClientObject

        configuration = self._load()
        configuration.connection_pool_maxsize = _CONNECTIONS
        return configuration, RESTClientObject(configuration).pool_manager


class Stream:
    """An answer that comes in pieces."""

    def __init__(self, call: Call, host: str, response: Any) -> None:
        self._call, self._host, self._response = call, host, response

    @property
    def answer(self) -> Answer:
        """Status and headers; with the body only if this is a refusal."""
        refused = self._response.status >= 400
        body = b""
        if refused:
            with _sent(self._call, self._host):
                body = self._response.read()
        return Answer(self._response.status, dict(self._response.headers), body)

    def lines(self, left_s: Callable[[], float]) -> Iterator[bytes]:
        """Yield each line when it is there, until the server ends or no time is left.

        Args:
            left_s: How long to wait for the next piece; ends when this is not positive.
        """
        rest = b""
        pieces = self._response.stream(2**16)
        while (left := left_s()) > 0:
            connection = self._response.connection
            if connection is not None and connection.sock is not None:
                connection.sock.settimeout(left)
            with _sent(self._call, self._host):
                piece = next(pieces, None)
            if piece is None:
                return
            *whole, rest = (rest + piece).split(b"\n")
            yield from (line for line in whole if line)


@contextmanager
def _sent(call: Call, host: str) -> Iterator[None]:
    """Turn what a connection can suffer into `Unreachable`, knowing whether it was sent."""
    import urllib3.exceptions as http

    try:
        yield
    except http.SSLError as problem:
        if not _distrust(problem):  # a server that stopped in the middle of it
            raise _unreachable(call, host, problem, executed=True) from problem
        raise NoAccess(
            f"{host}: the secure connection was refused: {_reason(problem)}",
            hint="does certificate-authority in the kubeconfig belong to this server, and is the "
            "client certificate still valid?",
        ) from problem
    except (http.ConnectTimeoutError, http.NewConnectionError) as problem:
        raise _unreachable(call, host, problem, executed=False) from problem
    except (http.HTTPError, OSError) as problem:
        raise _unreachable(call, host, problem, executed=True) from problem


def _distrust(problem: Exception) -> bool:
    cause = _innermost(problem)
    return isinstance(cause, ssl.SSLCertVerificationError) or "alert" in str(cause).lower()


def _unreachable(call: Call, host: str, problem: Exception, *, executed: bool) -> Unreachable:
    return Unreachable(
        f"{call}: no answer from {host} ({_reason(problem)})",
        hint="is the API server running, and is this the right context? kubectl get --raw /readyz",
        executed=executed,
    )


def _reason(problem: BaseException) -> str:
    """Return the innermost cause's words: urllib3 wraps them and adds addresses in memory."""
    cause = _innermost(problem)
    return str(cause) or type(cause).__name__


def _innermost(problem: BaseException) -> BaseException:
    while (deeper := problem.__cause__ or problem.__context__) is not None:
        problem = deeper
    return problem
