"""Check the data sets before anything is measured on them."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.STEPS, install_kfp_package=False)
def check_data(
    resolved: str,
    checkpoint: dsl.Input[dsl.Model],
    report: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
) -> None:
    """Run the great-expectations suites; failing rows are named.

    Args:
        resolved: What `resolve` returned.
        checkpoint: Manifest from `pull`: its context length bounds the rows.
        report: Every expectation with its outcome.
        metrics: How much was checked, for the UI.
        page: What was checked, and the rows that fail, for the UI.
    """
    import os

    from components.steps import verbs
    from components.steps.context import step
    from components.steps.scalars import scalars

    with step("check_data", os.environ, page.path) as context:
        verbs.check_data(context, resolved, checkpoint.path, report.path)
        metrics.metadata.update(scalars("check_data", context.detail))
