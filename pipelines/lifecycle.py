"""From the Hub to a served model: one run of the whole lifecycle."""

from kfp import dsl

from components.check_data import check_data
from components.conclude import conclude
from components.deploy import deploy
from components.evaluate import evaluate
from components.pull import pull
from components.quantize import quantize
from components.register import register
from components.resolve import resolve
from components.rollout import rollout
from components.scan import scan


@dsl.pipeline(name="penstock-lifecycle")
def lifecycle(spec: str) -> None:
    """Pull, check, quantize, evaluate, register and serve the model a spec describes.

    Args:
        spec: The document `model.yaml`, as JSON.
    """
    with dsl.ExitHandler(conclude(spec=spec), name="steps"):
        resolved = resolve(spec=spec)
        resolved.set_caching_options(False)  # a branch may have moved since
        pulled = pull(spec=spec, resolved=resolved.output)
        checkpoint = pulled.outputs["checkpoint"]
        scanned = scan(spec=spec, checkpoint=checkpoint)
        checked = check_data(resolved=resolved.output, checkpoint=checkpoint)
        checked.after(scanned)  # it reads the tokenizer
        quantized = quantize(spec=spec, resolved=resolved.output, checkpoint=checkpoint)
        quantized.after(checked)  # the data it is judged on
        chosen = quantized.outputs["chosen"]
        evaluated = evaluate(spec=spec, resolved=resolved.output, checkpoint=chosen)
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
