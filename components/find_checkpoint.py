"""Find a registered version's checkpoint, or pull the spec's source."""

from typing import NamedTuple

from kfp import dsl

from components import images


@dsl.component(base_image=images.STEPS, install_kfp_package=False)
def find_checkpoint(
    spec: str, resolved: str, version: str, checkpoint: dsl.Output[dsl.Model]
) -> NamedTuple("Needs", memory=str, devices=str, device=str, toleration=dict):  # type: ignore[valid-type]
    """Bring what is to be evaluated into the store; return what the pods need that load it.

    Args:
        spec: The document `model.yaml`, as JSON.
        resolved: What `resolve` returned.
        version: Number or alias of a registered version; empty: the spec's source.
        checkpoint: Manifest of the files with their digests.
    """
    import os

    from components.steps import needs, verbs
    from components.steps.context import step

    with step("pull", os.environ) as context:
        found = verbs.find(context, spec, resolved, version, checkpoint.path)
        checkpoint.metadata.update(found)
    return needs.needs(verbs.spec_of(spec), checkpoint.metadata["size_bytes"])
