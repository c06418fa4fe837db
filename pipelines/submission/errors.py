"""What Kubeflow Pipelines can say no with, as errors a caller can act on.

* PipelinesError        8
  x Missing             8  404: there is no such object
  x Taken               8  409: the name is in use
  x Denied              8  401, 403, a login page: the account is not known, or may not do this
  x Rejected            8  400, or an error of the server's own that a retry does not mend
  x Unavailable         8  no answer, or "not now"; it was tried again
  x Unfinished          8  the run goes on, the time to wait for it does not
* RunEnded                 the run is over and did not succeed: 1 failed, 130 canceled
* ConfigurationError    2
  x NoBackEnd           2  no address, or one that cannot be used: URL, CA file, token file
  x OtherVersion        2  a pipeline that another version of Penstock published
  x UnknownParameter    2  the pipeline has no such parameter, or wants another

No message holds a token or a cookie.
"""

from __future__ import annotations

from penstock.core.errors import ConfigurationError, LifecycleError, PipelinesError
from penstock.core.patience import Unanswered


class Missing(PipelinesError):
    """There is no such object."""


class Taken(PipelinesError):
    """Another object has this name."""


class Denied(PipelinesError):
    """The account is not known, or may not do this."""


class Rejected(PipelinesError):
    """The server does not accept the request."""

    def __init__(self, message: str, *, hint: str = "", status: int = 400) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class Unavailable(Unanswered, PipelinesError):
    """The server did not answer, or cannot answer now."""


class Unfinished(PipelinesError):
    """Nobody waits any longer; the run goes on."""


class RunEnded(LifecycleError):
    """A run is over, and did not succeed."""

    def __init__(self, message: str, *, hint: str = "", code: int = 1) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = code


class NoBackEnd(ConfigurationError):
    """There is no usable way to an API server."""


class OtherVersion(ConfigurationError):
    """What is published is another Penstock's."""


class UnknownParameter(ConfigurationError):
    """Parameters and pipeline do not fit."""
