"""Train the checkpoint on the spec's training data."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.TRAIN, install_kfp_package=False)
def train(
    spec: str,
    resolved: str,
    checkpoint: dsl.Input[dsl.Model],
    trained: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
) -> None:
    """Fine-tune as `training` says; what was trained before from the same is found, not repeated.

    Args:
        spec: The document `model.yaml`, as JSON.
        resolved: What `resolve` returned.
        checkpoint: Manifest from `pull`: the base.
        trained: Manifest of the trained checkpoint.
        metrics: The headline numbers, for the UI.
        report: The run's curves and what it was made from, for the UI.
    """
    import os

    from components.steps import training
    from components.steps.context import step

    with step("train", os.environ, report.path, spec) as context:
        paths = training.Paths(checkpoint.path, trained.path)
        for name, value in training.train(context, spec, resolved, paths).items():
            metrics.log_metric(name, value)
