"""From a checkpoint in the store to a served model: the tasks that pipelines share."""

from typing import Any

from pipelines.tasks import deploy, evaluate, quantize, register, rollout, sized


def prove_and_serve(
    spec: Any, resolved: Any, pulled: Any, scanned: Any, checked: Any, checkpoint: Any
) -> None:
    """Add the tasks from a checkpoint in the store to a served model: what pipelines share.

    Not a nested pipeline: its tasks would be shown as one box, and the record of a step does not
    care which pipeline it is in.

    Args:
        spec: The pipeline's parameter.
        resolved: Task that pinned the sources.
        pulled: Task that brought the checkpoint, or the one it was trained from.
        scanned: Task that looked at the checkpoint as it came.
        checked: Task that checked the data.
        checkpoint: Artifact of what is to be served.
    """
    quantized = quantize(spec=spec, resolved=resolved.output, checkpoint=checkpoint)
    quantized.after(checked)  # the data it is judged on
    sized(quantized, pulled)
    chosen = quantized.outputs["chosen"]
    evaluated = evaluate(spec=spec, resolved=resolved.output, checkpoint=chosen)
    sized(evaluated, pulled)
    registered = register(
        spec=spec,
        resolved=resolved.output,
        checkpoint=chosen,
        scans=scanned.outputs["scans"],
        report=checked.outputs["report"],
        precision=quantized.outputs["precision"],
        evaluation=evaluated.outputs["evaluation"],
    )
    deployed = deploy(
        spec=spec, resolved=resolved.output, version=registered.output, checkpoint=chosen
    )
    deployed.set_caching_options(False)  # level-triggered: looks at what is served now
    decided = rollout(spec=spec, version=registered.output)
    decided.after(deployed)
    decided.set_caching_options(False)
