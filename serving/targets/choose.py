"""From what a spec or a command line names to the place itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from penstock.core.errors import ConfigurationError
from penstock.core.settings import Settings
from penstock.core.spec import KServeTarget

if TYPE_CHECKING:
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
        from serving.targets.local import LocalTarget

        return rendered(LocalTarget(settings), settings.render)
    from serving.targets.kserve import connect

    return rendered(connect(where.kserve, settings), settings.render)


def rendered(target: Target, folder: Path | None) -> Target:
    """Return a place whose objects are written into a folder; the place itself without one.

    Raises:
        ConfigurationError: It is this machine.
    """
    if folder is None:
        return target
    from serving.targets.kserve import ClusterTarget
    from serving.targets.rendered import RenderedTarget

    if not isinstance(target, ClusterTarget):
        raise ConfigurationError(
            "--render writes manifests for a cluster, and this machine is none",
            hint="name the cluster: target.kserve in model.yaml, or --namespace",
        )
    return RenderedTarget(target, folder)
