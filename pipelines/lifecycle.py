"""From the Hub to a served model: one run of the whole lifecycle."""

from kfp import dsl

from pipelines.proving import prove_and_serve
from pipelines.tasks import check_data, conclude, pull, resolve, scan


@dsl.pipeline(name="penstock-lifecycle")
def lifecycle(spec: str, deadline_s: float = 0.0) -> None:
    """Pull, check, quantize, evaluate, register and serve the model a spec describes.

    Args:
        spec: The document `model.yaml`, as JSON.
        deadline_s: How long a run may take, in seconds; 0: no limit.
    """
    with dsl.ExitHandler(conclude(spec=spec), name="steps"):
        resolved = resolve(spec=spec, deadline_s=deadline_s)
        resolved.set_caching_options(False)  # a branch may have moved since
        pulled = pull(spec=spec, resolved=resolved.output)
        checkpoint = pulled.outputs["checkpoint"]
        scanned = scan(spec=spec, checkpoint=checkpoint)
        checked = check_data(resolved=resolved.output, checkpoint=checkpoint)
        checked.after(scanned)  # it reads the tokenizer
        prove_and_serve(spec, resolved, pulled, scanned, checked, checkpoint)
