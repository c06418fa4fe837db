"""What a Kubernetes API can say no with, as errors a caller can act on.

* ServingError
  x Conflict         somebody else wrote first (penstock.core.errors)
  x Absent           there is no such object
  x NotServed        the cluster does not know the kind: something is not installed
  x Forbidden        401, 403: the account may not do this
  x Refused          400, 422, admission: the object is wrong, or a policy says no
  x Expired          410: the version asked for is too old; list again
  x Unreachable      no answer, or "not now": retry
* ConfigurationError
  x NoAccess         no kubeconfig, an unknown context, a certificate that is not trusted
"""

from __future__ import annotations

from penstock.core.errors import ConfigurationError, ServingError
from penstock.core.patience import Unanswered


class Absent(ServingError):
    """There is no such object."""


class NotServed(ServingError):
    """The cluster does not serve this kind."""


class Forbidden(ServingError):
    """The account is not known, or may not do this."""


class Refused(ServingError):
    """The API server, a schema, a webhook or a quota does not accept the object."""


class Expired(ServingError):
    """The resource version or the list's position is too old."""


class Unreachable(Unanswered, ServingError):
    """The API server did not answer, or cannot answer now."""


class NoAccess(ConfigurationError):
    """There is no usable way into the cluster: kubeconfig, context, credentials, certificate."""
