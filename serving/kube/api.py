"""Calls that are tried again where that is safe, until the patience ends.

Reads may always be repeated. A write is repeated when it certainly was not executed; when nobody
can tell, the object is read back first. That is why every write here names what it expects to find
(a resource version, a uid, or no object at all): sent twice, it happens once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from penstock.core.errors import Conflict
from serving.cluster import Object
from serving.kube.calls import Answer, Call
from serving.kube.errors import Expired, Unreachable
from serving.kube.patience import Patience, Tries
from serving.kube.refusals import content, refusal
from serving.kube.session import Session, Stream

_PAGE = 500
Objects = list[Object]
Listed = tuple[Objects, str]
"""Objects, and the version at which they were all there were."""

Landed = Callable[[Tries], Object | None]
"""Reads back: the object if the write is in it, None if nothing has been written yet.

Raises `Conflict` if somebody else wrote.
"""


class Api:
    """An API server that is asked patiently.

    Args:
        session: The connections.
        patience: Bounds on every operation.
    """

    def __init__(self, session: Session, patience: Patience) -> None:
        self._session, self.patience = session, patience

    def close(self) -> None:
        """Close the connections that are kept open."""
        self._session.close()

    def text(self, call: Call, tries: Tries | None = None) -> str:
        """Return the body of a read that is no JSON."""
        return self._read(call, tries or self.patience.tries()).body.decode(errors="replace")

    def read(self, call: Call, tries: Tries | None = None) -> Object:
        """Return what a read finds; raises what `refusal` says."""
        return content(call, self._read(call, tries or self.patience.tries()))

    def write(self, call: Call, landed: Landed) -> Object:
        """Return the stored object; it is stored at most once.

        Args:
            call: Names what it expects to find.
            landed: Asked after every attempt that may have been executed.
        """
        tries, doubt = self.patience.tries(), False
        while True:
            try:
                stored = content(call, self._once(call, tries))
            except Unreachable as problem:
                doubt = doubt or problem.executed
                if doubt and (found := _asked(landed, tries, problem)) is not None:
                    return found
                tries.again(problem)
            except Conflict:
                # perhaps with our own earlier attempt
                if not doubt or (found := landed(tries)) is None:
                    raise
                return found
            else:
                return stored

    def list(self, call: Call, tries: Tries | None = None) -> Listed:
        """Return all objects, page by page, and the version at which that was true."""
        tries = tries or self.patience.tries()
        try:
            return self._pages(call, _PAGE, tries)
        except Expired:  # it took longer than the server remembers: all at once
            return self._pages(call, 0, tries)

    @contextmanager
    def stream(self, call: Call, *, timeout_s: float) -> Iterator[Stream]:
        """Open an answer that comes in pieces; not tried again."""
        with self._session.stream(call, timeout_s=timeout_s) as opened:
            problem = refusal(call, opened.answer)
            if problem is not None:
                raise problem
            yield opened

    def _pages(self, call: Call, size: int, tries: Tries) -> Listed:
        found: Objects = []
        page = {"limit": str(size)} if size else {}
        while True:
            answer = self.read(_asking(call, page), tries)
            found += answer.get("items") or []
            rest = answer["metadata"].get("continue")
            if not rest:
                return found, answer["metadata"]["resourceVersion"]
            page["continue"] = rest

    def _read(self, call: Call, tries: Tries) -> Answer:
        while True:
            try:
                return self._once(call, tries)
            except Unreachable as problem:
                tries.again(problem)

    def _once(self, call: Call, tries: Tries) -> Answer:
        answer = self._session.send(call, timeout_s=tries.request_s)
        problem = refusal(call, answer)
        if problem is not None:
            raise problem
        return answer


def _asked(landed: Landed, tries: Tries, problem: Unreachable) -> Object | None:
    try:
        return landed(tries)
    except Unreachable as still:
        raise Unreachable(
            f"{problem}; whether it was executed is unknown: {still}",
            hint="read it before you write again",
        ) from still


def _asking(call: Call, page: dict[str, str]) -> Call:
    return replace(call, query={**call.query, **page})
