"""Write down what was made, from what, and how good it is."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.STEPS, install_kfp_package=False)
def register(
    spec: str,
    resolved: str,
    checkpoint: dsl.Input[dsl.Model],
    scans: dsl.Input[dsl.Artifact],
    report: dsl.Input[dsl.Artifact],
    precision: dsl.Input[dsl.Artifact],
    evaluation: dsl.Input[dsl.Artifact],
) -> str:
    """Register a model version with its passport in MLflow; return the version.

    Args:
        spec: The document `model.yaml`, as JSON.
        resolved: What `resolve` returned.
        checkpoint: Manifest from `quantize`.
        scans: From `scan`.
        report: From `check_data`.
        precision: From `quantize`.
        evaluation: From `evaluate`.
    """
    import os

    from components.steps import verbs
    from components.steps.context import step

    with step("register", os.environ) as context:
        evidence = verbs.Evidence(scans.path, report.path, evaluation.path, precision.path)
        return verbs.register(context, spec, resolved, checkpoint.path, evidence)
