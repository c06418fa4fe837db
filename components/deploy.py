"""Serve the registered version."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.STEPS, install_kfp_package=False)
def deploy(spec: str, version: str, checkpoint: dsl.Input[dsl.Model]) -> str:
    """Replace the served version when the new one is ready; return the URL that answers.

    Args:
        spec: The document `model.yaml`, as JSON.
        version: What `register` returned.
        checkpoint: Manifest from `pull`.
    """
    import os

    from components.steps import verbs
    from components.steps.context import step

    with step("deploy", os.environ) as context:
        return verbs.deploy(context, spec, version, checkpoint.path)
