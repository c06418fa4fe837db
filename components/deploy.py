"""Serve the registered version."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.STEPS, install_kfp_package=False)
def deploy(spec: str, resolved: str, version: str, checkpoint: dsl.Input[dsl.Model]) -> str:
    """Serve the first version; make a later one a candidate. Return the URL that answers.

    Args:
        spec: The document `model.yaml`, as JSON.
        resolved: What `resolve` returned.
        version: What `register` returned.
        checkpoint: Manifest from `quantize`.
    """
    import os

    from components.steps import rollout
    from components.steps.context import step

    with step("deploy", os.environ) as context:
        return rollout.deploy(context, spec, resolved, version, checkpoint.path)
