"""Refuse what must not be served."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.STEPS, install_kfp_package=False)
def scan(spec: str, checkpoint: dsl.Input[dsl.Model], scans: dsl.Output[dsl.Artifact]) -> None:
    """Check formats, remote code, tokenizer and licence; nothing is unpickled.

    Args:
        spec: The document `model.yaml`, as JSON.
        checkpoint: Manifest from `pull`.
        scans: Every gate with its outcome.
    """
    import os

    from components.steps import verbs
    from components.steps.context import step

    with step("scan", os.environ) as context:
        verbs.scan(context, spec, checkpoint.path, scans.path)
