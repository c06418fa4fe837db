"""Requests to the API server: bounded, repeated where that is safe, with fresh credentials.

The requests are those of kfp_server_api, which is imported here and only when something is asked:
it costs half a second. Its answers are read as JSON, because a proxy's page is no model of its.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock import __version__
from penstock.core.errors import LifecycleError
from pipelines.submission.errors import NoBackEnd, Unavailable
from pipelines.submission.losses import lost, untrusted
from pipelines.submission.patience import Patience, Tries
from pipelines.submission.refusals import Answer, Ask, again, refusal
from pipelines.submission.settings import KfpSettings

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

_LARGEST = 64 << 20
_CHUNK = 1 << 16


class Transport:
    """One API server, as one account."""

    def __init__(self, settings: KfpSettings, patience: Patience) -> None:
        self.settings, self.patience = settings, patience
        self._api: Any = None

    @property
    def namespace(self) -> str:
        """The namespace that is asked about."""
        return self.settings.namespace

    def close(self) -> None:
        """Close the connections."""
        if self._api is not None:
            self._api.rest_client.pool_manager.clear()
            self._api.close()
            self._api = None

    def call(
        self, ask: Ask, service: str, method: str, *, tries: Tries | None = None, **arguments: Any
    ) -> dict[str, Any]:
        """Return the JSON object that the server answers; what may be repeated is.

        Args:
            ask: What is asked.
            service: A class of kfp_server_api.
            method: A method of it.
            tries: The operation this belongs to; one of its own without.
            arguments: Of the method.
        """
        tries = tries or self.patience.tries()
        failed = 0
        while True:
            try:
                return self.attempt(ask, service, method, tries=tries, **arguments)
            except LifecycleError as problem:
                if not again(ask.effect, problem, failed):
                    raise
                failed += 1
                tries.again(as_unavailable(problem))

    def attempt(
        self, ask: Ask, service: str, method: str, *, tries: Tries, **arguments: Any
    ) -> dict[str, Any]:
        """Return what the server answers to one request; see `call`."""
        named = self._named(ask)
        token = self._token()
        answer = self._send(named, service, method, tries, token, arguments)
        if answer.status == 401 and self._token() != token:  # it was rotated meanwhile
            answer = self._send(named, service, method, tries, self._token(), arguments)
        problem = refusal(named, answer)
        if problem is not None:
            raise self._without_secrets(problem)
        return answer.json or {}

    def text(self, ask: Ask, path: str) -> str:
        """Return the text at a path of the API that kfp_server_api has no method for."""
        tries = self.patience.tries()
        while True:
            try:
                return self._text(self._named(ask), path, tries)
            except Unavailable as problem:
                tries.again(problem)

    def _text(self, ask: Ask, path: str, tries: Tries) -> str:
        headers = {"Accept": "text/plain"}
        answer = self._answer(
            ask,
            tries,
            lambda api, timeouts: api.call_api(
                path,
                "GET",
                {},
                [],
                headers,
                auth_settings=[],
                _preload_content=False,
                _request_timeout=timeouts,
            ),
            self._token(),
        )
        problem = None if 200 <= answer.status < 300 else refusal(ask, answer)
        if problem is not None:
            raise self._without_secrets(problem)
        return answer.text

    def _send(
        self,
        ask: Ask,
        service: str,
        method: str,
        tries: Tries,
        token: str,
        arguments: dict[str, Any],
    ) -> Answer:
        import kfp_server_api

        return self._answer(
            ask,
            tries,
            lambda api, timeouts: getattr(getattr(kfp_server_api, service)(api), method)(
                **arguments, _preload_content=False, _request_timeout=timeouts
            ),
            token,
        )

    def _answer(self, ask: Ask, tries: Tries, send: Any, token: str) -> Answer:
        """Return the answer, whatever its status; `Unavailable` if there is none."""
        from kfp_server_api.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        api = self._client()
        if token:
            api.set_default_header("Authorization", f"Bearer {token}")
        try:
            return self._read(send(api, tries.timeouts))
        except ApiException as problem:
            if problem.status:
                body = problem.body if isinstance(problem.body, str) else ""
                return Answer(problem.status, dict(problem.headers or {}), body)
            raise untrusted(ask, str(problem.reason), self.settings.url) from None
        except AttributeError as problem:  # its client stumbles over its own error of TLS
            inner = problem.__context__
            if not isinstance(inner, ApiException) or inner.status:
                raise
            raise untrusted(ask, str(inner.reason), self.settings.url) from None
        except (HTTPError, OSError, UnicodeDecodeError) as problem:
            raise lost(ask, problem, self.settings.url) from None

    def _read(self, response: BaseHTTPResponse) -> Answer:
        """Read the body within `read_s`, however slowly it comes."""
        from urllib3.exceptions import ReadTimeoutError

        end = self.patience.clock() + self.patience.read_s
        body = bytearray()
        while chunk := response.read1(_CHUNK):
            body += chunk
            if self.patience.clock() > end or len(body) > _LARGEST:
                response.close()
                raise ReadTimeoutError(None, None, "the answer is too slow")  # type: ignore[arg-type]
        response.release_conn()
        return Answer(response.status, dict(response.headers), body.decode(errors="replace"))

    def _client(self) -> Any:
        if self._api is None:
            import kfp_server_api

            configuration = kfp_server_api.Configuration(host=self.settings.url)
            configuration.retries = False  # ours are counted, and wait
            if self.settings.ca_file is not None:
                configuration.ssl_ca_cert = str(self.settings.ca_file)
            try:
                self._api = kfp_server_api.ApiClient(
                    configuration, cookie=self.settings.cookies or None
                )
            except OSError as problem:
                raise NoBackEnd(f"PENSTOCK_KFP_CA_FILE: {problem.strerror}") from problem
            self._api.user_agent = f"penstock/{__version__}"
        return self._api

    def _token(self) -> str:
        path = self.settings.token_file
        if path is None:
            return ""
        try:
            token = path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as problem:
            reason = getattr(problem, "strerror", None) or "not ASCII"
            raise NoBackEnd(
                f"token file {path}: {reason}", hint="PENSTOCK_KFP_TOKEN_FILE names it"
            ) from None
        if not token or not token.isprintable() or " " in token:
            raise NoBackEnd(f"token file {path}: allowed: one token, and nothing else")
        return token

    def _named(self, ask: Ask) -> Ask:
        return Ask(ask.verb, ask.what, ask.effect, self.settings.namespace, self.settings.url)

    def _without_secrets(self, problem: LifecycleError) -> LifecycleError:
        """Take credentials out of what a server repeats."""
        text = str(problem)
        for secret in filter(None, (self._token(), self.settings.cookies, *self._cookie_values())):
            text = text.replace(secret, "***")
        problem.args = (text,)
        return problem

    def _cookie_values(self) -> list[str]:
        pairs = (pair.partition("=")[2].strip() for pair in self.settings.cookies.split(";"))
        return [value for value in pairs if len(value) > 3]


def as_unavailable(problem: LifecycleError) -> Unavailable:
    """Return a problem that a second attempt may mend, as `Tries.again` wants it."""
    if isinstance(problem, Unavailable):
        return problem
    return Unavailable(str(problem), hint=problem.hint)
