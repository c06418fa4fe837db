"""Pin every revision the spec names."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.STEPS, install_kfp_package=False)
def resolve(spec: str, deadline_s: float = 0.0) -> str:
    """Return the spec's sources and data sets, pinned, as one JSON document.

    Args:
        spec: The document `model.yaml`, as JSON.
        deadline_s: How long the run may take, in seconds from now; 0: no limit.
    """
    import os

    from components.steps import deadline, verbs
    from components.steps.context import step

    with step("resolve", os.environ) as context:
        deadline.begin(context.settings, deadline_s, verbs.spec_of(spec).tasks)
        return verbs.resolve(context, spec)
