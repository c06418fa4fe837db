"""Pin every revision the spec names."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.STEPS, install_kfp_package=False)
def resolve(spec: str) -> str:
    """Return the spec's sources and data sets, pinned, as one JSON document.

    Args:
        spec: The document `model.yaml`, as JSON.
    """
    import os

    from components.steps import verbs
    from components.steps.context import step

    with step("resolve", os.environ) as context:
        return verbs.resolve(context, spec)
