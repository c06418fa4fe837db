"""Measure how good the checkpoint is, and decide whether that is good enough."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.STEPS, install_kfp_package=False)
def evaluate(
    spec: str,
    resolved: str,
    checkpoint: dsl.Input[dsl.Model],
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
) -> None:
    """Run the suite, compare with the champion, and stop the run when the gate says no.

    Args:
        spec: The document `model.yaml`, as JSON.
        resolved: What `resolve` returned.
        checkpoint: Manifest from `quantize`.
        evaluation: Result and per-item records.
        metrics: The headline numbers, for the UI.
        page: Every skill beside the champion's, for the UI.
    """
    import os

    from components.steps import verbs
    from components.steps.context import step
    from components.steps.scalars import scalars

    with step("evaluate", os.environ, page.path, spec) as context:
        verbs.evaluate(context, spec, resolved, checkpoint.path, evaluation.path)
        metrics.metadata.update(scalars("evaluate", context.detail))
