"""Bring the checkpoint into the store."""

from typing import NamedTuple

from kfp import dsl

from components import images


@dsl.component(base_image=images.STEPS, install_kfp_package=False)
def pull(spec: str, resolved: str, checkpoint: dsl.Output[dsl.Model]) -> NamedTuple(  # type: ignore[valid-type]
    "Needs", memory=str, devices=str, device=str, toleration=dict
):
    """Download what serving needs; the artifact is the manifest, the weights stay in the store.

    Returns what the pods of the tasks need that load the checkpoint.

    Args:
        spec: The document `model.yaml`, as JSON.
        resolved: What `resolve` returned.
        checkpoint: Manifest of the files with their digests.
    """
    import os

    from components.steps import needs, verbs
    from components.steps.context import step

    with step("pull", os.environ) as context:
        checkpoint.metadata.update(verbs.pull(context, spec, resolved, checkpoint.path))
    return needs.needs(verbs.spec_of(spec), checkpoint.metadata["size_bytes"])
