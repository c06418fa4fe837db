"""Serve what was served before."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.STEPS, install_kfp_package=False)
def go_back(spec: str, reason: str, page: dsl.Output[dsl.HTML]) -> str:
    """End the rollout that goes on, or undo the last promotion; return what is served.

    Args:
        spec: The document `model.yaml`, as JSON.
        reason: Why, for the record.
        page: What is served again, and what the candidate had shown, for the UI.
    """
    import os

    from components.steps import going_back
    from components.steps.context import step

    with step("rollout", os.environ, page.path, spec) as context:
        return going_back.go_back(context, spec, reason)
