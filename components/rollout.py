"""Let evidence decide about the version that was deployed."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.STEPS, install_kfp_package=False)
def rollout(
    spec: str,
    version: str,
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
) -> str:
    """Promote, hold or roll back; running it again goes on from what is recorded.

    Args:
        spec: The document `model.yaml`, as JSON.
        version: What `register` returned.
        metrics: How much evidence it took, for the UI.
        page: The decision, its reason and the evidence over time, for the UI.
    """
    import os

    from components.steps import rollout as steps
    from components.steps.context import step
    from components.steps.scalars import scalars

    with step("rollout", os.environ, page.path, spec) as context:
        decided = steps.rollout(context, spec, version)
        metrics.metadata.update(scalars("rollout", context.detail))
        return decided
