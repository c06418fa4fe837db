"""Check the data sets before anything is measured on them."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.STEPS, install_kfp_package=False)
def check_data(
    resolved: str, checkpoint: dsl.Input[dsl.Model], report: dsl.Output[dsl.Artifact]
) -> None:
    """Run the great-expectations suites; failing rows are named.

    Args:
        resolved: What `resolve` returned.
        checkpoint: Manifest from `pull`: its context length bounds the rows.
        report: Every expectation with its outcome.
    """
    import os

    from components.steps import verbs
    from components.steps.context import step

    with step("check_data", os.environ) as context:
        verbs.check_data(context, resolved, checkpoint.path, report.path)
