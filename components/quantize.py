"""Make the checkpoint smaller, if what comes of it may replace it."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.QUANTIZE, install_kfp_package=False)
def quantize(
    spec: str,
    resolved: str,
    checkpoint: dsl.Input[dsl.Model],
    chosen: dsl.Output[dsl.Model],
    precision: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
) -> None:
    """Try the spec's recipes, judge each against the checkpoint, and pass on the best.

    Args:
        spec: The document `model.yaml`, as JSON.
        resolved: What `resolve` returned.
        checkpoint: Manifest from `pull`.
        chosen: Manifest of the checkpoint to serve: a smaller one, or the same.
        precision: What was decided, and why.
        metrics: Its size, for the UI.
        page: What was tried, what it cost and what it lost, for the UI.
    """
    import json
    import os
    from pathlib import Path

    from components.steps.context import step, write_atomically
    from components.steps.quantize import quantize as work
    from components.steps.scalars import scalars

    with step("quantize", os.environ, page.path, spec) as context:
        decided = work(context, spec, resolved, checkpoint.path, chosen.path)
        write_atomically(Path(precision.path), json.dumps(decided))
        metrics.metadata.update(scalars("quantize", context.detail))
