"""Errors a caller can act on. Each says what is wrong, and `hint` says what to do next.

* LifecycleError             1  base of all; the CLI prints it without a traceback
  x ConfigurationError       2  the request is wrong: fix it, do not retry
    - SpecError              2  model.yaml, one `Mistake` per problem
    - PortOccupied           2  another process listens there
    - NoAccess               2  no usable way into a cluster (serving.kube.errors)
    - NoBackEnd, OtherVersion, UnknownParameter
                             2  nothing that Kubeflow Pipelines could run (pipelines.submission)
    - RecipeImpossible       2  this precision cannot be made of, or run with, what is there
  x HubError                 3  the Hub refused or cannot be reached
    - RepositoryNotFound     3
    - RevisionNotFound       3
    - AccessDenied           3  gated or private, and the token does not open it
    - HubUnreachable         3  retry
  x GateFailed               4  a check said no: policy, data or evaluation
    - PolicyRefused          4  pickle, remote code, licence
    - DataRefused            4  a data set is empty, duplicated, leaking, malformed
    - EvaluationFailed       4  quality below what the spec demands
    - CheckpointBroken       4  a checkpoint that some engine would load without a word, and wrongly
    - PrecisionRefused       4  a quantized checkpoint loses more than it may
    - TrainingFailed         4  a training that came to nothing: its loss is not a number
    - RolledBack             4  the evidence was against the new version, or a person
    - Unproven               4  it was rolled back because the evidence did not come
  x StoreError               5  the files on this machine
    - DigestMismatch         5  bytes are not the bytes that were recorded
    - LogCut                 5  the log of a rollout's events no longer holds its beginning
    - DiskFull               5
  x RegistryError            6  MLflow refused or lost something
    - RegistryUnreachable    6  retry
  x ServingError             7  the serving target refused or did not converge
    - Conflict               7  somebody else wrote first: read again, then decide again
    - NotReady               7  did not become ready in time
    - EngineRefused          7  this engine cannot run this checkpoint correctly
    - BuildFailed            7  an engine could not be built
    - Absent, NotServed, Forbidden, Refused, Expired, Unreachable
                             7  what a Kubernetes API says (serving.kube.errors)
  x PipelinesError         8  Kubeflow Pipelines refused, or did not answer (pipelines.submission)
    - Missing, Taken, Denied, Rejected, Unavailable, Unfinished
                           8  what its API says (pipelines.submission.errors)
  x DeadlinePassed           1  a run, or one of its tasks, took longer than it may
  x TriedEnough              1  a task was tried as often as it may be
  x StepFailed               the exit code of what failed inside the pipeline's step
  x Interrupted            130  Ctrl-C
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


class LifecycleError(Exception):
    """Base of every error raised on purpose.

    Args:
        message: What is wrong: what, where, and what is allowed.
        hint: The next step, as a sentence or a command to type.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigurationError(LifecycleError):
    """The request contradicts itself or what this machine or cluster can do."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing wrong in a document."""

    path: str
    """Where: `slo.ttft_p95_s`, or `line 3, column 7` when the text does not parse."""

    found: str
    """What stands there."""

    allowed: str
    """What may stand there."""

    nearest: str = ""
    """The nearest allowed spelling, if one is near."""

    def __str__(self) -> str:
        guess = f"; did you mean {self.nearest!r}?" if self.nearest else ""
        return f"{self.path}: found {self.found}; allowed: {self.allowed}{guess}"


class SpecError(ConfigurationError):
    """A spec breaks its schema; `mistakes` has one entry per problem, in document order."""

    def __init__(self, where: str, mistakes: tuple[Mistake, ...]) -> None:
        count = f"{len(mistakes)} mistake" + ("s" if len(mistakes) != 1 else "")
        lines = "".join(f"\n  {mistake}" for mistake in mistakes)
        super().__init__(
            f"{where}: {count}{lines}", hint="every field: docs/reference/model-yaml.md"
        )
        self.mistakes = mistakes


class PortOccupied(ConfigurationError):
    """Another process listens on the address."""

    def __init__(self, host: str, port: int, *, option: str) -> None:
        super().__init__(
            f"{host}:{port} is in use by another process",
            hint=f"choose another with {option}, or stop the other process",
        )
        self.port = port


class RecipeImpossible(ConfigurationError):
    """A quantization recipe does not fit the model, the hardware, the runtime or the memory."""


class HubError(LifecycleError):
    """The Hub refused a request."""

    exit_code = 3


class RepositoryNotFound(HubError):
    """No such repository, or it is private and no token was sent."""


class RevisionNotFound(HubError):
    """The repository exists; the branch, tag or commit does not."""


class AccessDenied(HubError):
    """A gated or private repository, and the token (or its absence) does not open it."""


class HubUnreachable(HubError):
    """The Hub did not answer; nothing was changed, and a retry resumes."""


class GateFailed(LifecycleError):
    """A check ran and its answer is no."""

    exit_code = 4


class PolicyRefused(GateFailed):
    """The checkpoint breaks the spec's policy: pickle, remote code or licence."""


class DataRefused(GateFailed):
    """A data set is empty, malformed, duplicated or leaks into another."""


class EvaluationFailed(GateFailed):
    """The measured quality is below what the spec demands."""


class CheckpointBroken(GateFailed):
    """A checkpoint that some engine would load without an error, and run wrongly."""


class PrecisionRefused(GateFailed):
    """A quantized checkpoint loses more than it may; its parent stays."""


class TrainingFailed(GateFailed):
    """A training came to nothing: its loss is not a number, or its process was killed."""


class RolledBack(GateFailed):
    """A candidate was rolled back; what was served still is."""


class Unproven(RolledBack):
    """A candidate was rolled back because no proof came: the same one may be tried again."""


class StoreError(LifecycleError):
    """The content-addressed store on this machine."""

    exit_code = 5


class DigestMismatch(StoreError):
    """Stored bytes are not the bytes that were recorded."""


class LogCut(DigestMismatch):
    """The log of a rollout's events does not lead to its record: it was cut, or changed."""


class DiskFull(StoreError):
    """No space left; what was written is kept and a retry resumes."""


class RegistryError(LifecycleError):
    """The model registry refused an operation."""

    exit_code = 6


class RegistryUnreachable(RegistryError):
    """The tracking server did not answer."""


class ServingError(LifecycleError):
    """The serving target refused an operation."""

    exit_code = 7


class Conflict(ServingError):
    """The object changed since it was read: read again, decide again."""


class NotReady(ServingError):
    """Something did not become ready in time."""

    def __init__(self, what: str, *, reason: str, waited_s: float, hint: str = "") -> None:
        super().__init__(f"{what}: not ready after {waited_s:.0f} s: {reason}", hint=hint)
        self.reason = reason


class EngineRefused(ServingError):
    """This engine would run the checkpoint wrongly, so it does not run it."""


class BuildFailed(ServingError):
    """An engine could not be built; nothing of it is in the cache."""


class PipelinesError(LifecycleError):
    """Kubeflow Pipelines refused an operation, or did not answer."""

    exit_code = 8


class StepFailed(LifecycleError):
    """A pipeline step failed; carries the exit code of its cause."""

    def __init__(self, step: str, reason: str, *, log: str, hint: str = "", code: int = 1) -> None:
        super().__init__(f"step {step} failed: {reason}\n  log: {log}", hint=hint)
        self.step = step
        self.exit_code = code


class DeadlinePassed(LifecycleError):
    """A run, or one of its tasks, took longer than it may."""


class TriedEnough(LifecycleError):
    """A task was tried as often as it may be."""


class Interrupted(LifecycleError):
    """The person pressed Ctrl-C; what is done is kept."""

    exit_code = 130


_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # the disk, the quota, the process's limit


@contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Turn the operating system's "no space left" into `DiskFull`."""
    try:
        yield
    except OSError as problem:
        if problem.errno not in _NO_SPACE:
            raise
        raise DiskFull(
            f"no space left for {problem.filename or where} ({problem.strerror})",
            hint="free space, or set PENSTOCK_HOME to another disk; what is downloaded is kept",
        ) from problem
