"""Refuse what must not be served."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.STEPS, install_kfp_package=False)
def scan(
    spec: str,
    checkpoint: dsl.Input[dsl.Model],
    scans: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
) -> None:
    """Check formats, remote code, tokenizer and licence; nothing is unpickled.

    Args:
        spec: The document `model.yaml`, as JSON.
        checkpoint: Manifest from `pull`.
        scans: Every gate with its outcome.
        page: The same, for the UI.
    """
    import os

    from components.steps import verbs
    from components.steps.context import step

    with step("scan", os.environ, page.path, spec) as context:
        verbs.scan(context, spec, checkpoint.path, scans.path)
