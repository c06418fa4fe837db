"""Write the run's record and report, whatever came of it."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.STEPS, install_kfp_package=False)
def conclude(spec: str, status: dsl.PipelineTaskFinalStatus, report: dsl.Output[dsl.HTML]) -> None:
    """Render the report from the step records; runs on success and on failure.

    Args:
        spec: The document `model.yaml`, as JSON.
        status: How the steps before ended, from KFP.
        report: One self-contained page.
    """
    import os

    from components.steps import conclusion

    conclusion.conclude(os.environ, spec, status.state, report.path)
