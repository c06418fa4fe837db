"""Let evidence decide about the version that was deployed."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.STEPS, install_kfp_package=False)
def rollout(spec: str, version: str) -> str:
    """Promote, hold or roll back; running it again goes on from what is recorded.

    Args:
        spec: The document `model.yaml`, as JSON.
        version: What `register` returned.
    """
    import os

    from components.steps import rollout as steps
    from components.steps.context import step

    with step("rollout", os.environ) as context:
        return steps.rollout(context, spec, version)
