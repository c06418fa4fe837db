"""What it means that there is no answer: whether the request may have been executed. No I/O."""

from __future__ import annotations

from penstock.core.errors import LifecycleError
from pipelines.submission.errors import NoBackEnd, Unavailable
from pipelines.submission.refusals import Ask

_ADDRESS = (
    "PENSTOCK_KFP_URL: is this the address, and does a port-forward still run? "
    "kubectl -n kubeflow port-forward svc/ml-pipeline 8888"
)


def lost(ask: Ask, problem: Exception, url: str) -> Unavailable:
    """Return the error of a request that got no answer.

    Args:
        ask: What was asked.
        problem: What urllib3 or the operating system says.
        url: Of the server.
    """
    from urllib3 import exceptions

    if isinstance(problem, UnicodeDecodeError):
        return Unavailable(f"{ask}: the answer is no text", hint=_ADDRESS)
    if isinstance(problem, exceptions.NewConnectionError | exceptions.ConnectTimeoutError):
        told = f"{ask}: no connection to {url}: {_reason(problem)}"
        return Unavailable(told, hint=_ADDRESS, executed=False)
    if isinstance(problem, exceptions.ReadTimeoutError):
        return Unavailable(
            f"{ask}: {url} took the request, and did not answer in time",
            hint="is the server overloaded? its log says more",
        )
    return Unavailable(
        f"{ask}: the connection to {url} broke off: {_reason(problem)}",
        hint="it was tried again until the time was up; try later",
    )


def untrusted(ask: Ask, reason: str, url: str) -> LifecycleError:
    """Return the error of a TLS connection that does not stand.

    Args:
        ask: What was asked.
        reason: What the TLS library says.
        url: Of the server.
    """
    told = reason.replace("\n", ": ")[:200]
    if "CERTIFICATE_VERIFY_FAILED" in reason or "doesn't match" in reason:
        return NoBackEnd(
            f"{ask}: the certificate of {url} is not trusted: {told}",
            hint="PENSTOCK_KFP_CA_FILE: the certificate of who signed it",
        )
    if "WRONG_VERSION_NUMBER" in reason or "record layer" in reason:
        return NoBackEnd(f"{ask}: {url} does not speak TLS", hint="is it http, not https?")
    return Unavailable(f"{ask}: TLS with {url} broke off: {told}", hint=_ADDRESS)


def _reason(problem: Exception) -> str:
    """Return the last words of a chain of exceptions, without objects' addresses."""
    text = str(problem.args[-1] if problem.args else problem)
    return text.rpartition(": ")[2][:120] or type(problem).__name__
