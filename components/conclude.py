"""Write the run's record and report, whatever came of it."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.STEPS, install_kfp_package=False)
def conclude(spec: str, status: dsl.PipelineTaskFinalStatus, report: dsl.Output[dsl.HTML]) -> None:
    """Write record and report; see that no candidate is left to itself. Whatever happened before.

    Args:
        spec: The document `model.yaml`, as JSON.
        status: How the steps before ended, from KFP.
        report: One self-contained page.
    """
    import os

    from components.steps import conclusion, deadline, unattended
    from penstock.core.settings import Settings

    deadline.end(Settings.from_env(os.environ))
    conclusion.conclude(os.environ, spec, status.state, report.path)
    if unattended.settle(os.environ, spec):
        conclusion.conclude(os.environ, spec, status.state, report.path)
