"""From what a spec or a command line names to the place itself."""

from __future__ import annotations

from penstock.core.settings import Settings
from penstock.core.spec import KServeTarget
from serving.targets.local import LocalTarget
from serving.targets.target import Target


def target_of(settings: Settings, where: str | KServeTarget) -> Target:
    """Return a target; a cluster is asked what it can do.

    Args:
        settings: Where this machine's cluster is.
        where: `local`, or which cluster, as `model.yaml` has it.

    Raises:
        ConfigurationError: The cluster cannot serve models as asked for; with the fix.
    """
    if isinstance(where, str):
        return LocalTarget(settings)
    from serving.targets.kserve import connect

    return connect(where.kserve, settings)
