"""How good a version is: evaluated again, and reported; nothing else changes."""

from kfp import dsl

from pipelines.tasks import (
    check_data,
    conclude,
    find_checkpoint,
    resolve,
    scan,
    sized,
)
from pipelines.tasks import (
    evaluate as evaluate_checkpoint,
)


@dsl.pipeline(name="penstock-evaluate")
def evaluate(spec: str, version: str = "", deadline_s: float = 0.0) -> None:
    """Evaluate a registered version, or the spec's source, and compare it with the champion.

    Args:
        spec: The document `model.yaml`, as JSON.
        version: Number or alias of a registered version; empty: the spec's source.
        deadline_s: How long a run may take, in seconds; 0: no limit.
    """
    with dsl.ExitHandler(conclude(spec=spec), name="steps"):
        resolved = resolve(spec=spec, deadline_s=deadline_s)
        resolved.set_caching_options(False)  # a branch may have moved since
        found = find_checkpoint(spec=spec, resolved=resolved.output, version=version)
        found.set_caching_options(False)  # an alias may have moved
        checkpoint = found.outputs["checkpoint"]
        scanned = scan(spec=spec, checkpoint=checkpoint)
        checked = check_data(resolved=resolved.output, checkpoint=checkpoint)
        checked.after(scanned)  # it reads the tokenizer
        judged = evaluate_checkpoint(spec=spec, resolved=resolved.output, checkpoint=checkpoint)
        judged.after(checked)
        sized(judged, found)
