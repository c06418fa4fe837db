"""Train again when something is new, and serve the result if it proves itself."""

from kfp import dsl

from components import images
from pipelines.proving import prove_and_serve
from pipelines.tasks import check_data, conclude, detect_changes, pull, resolve, scan, sized, train


@dsl.pipeline(name="penstock-retrain")
def retrain(
    spec: str,
    cooldown_s: float = 0.0,
    gpu_hours_per_day: float = 0.0,
    force: bool = False,
    because: str = "asked for",
    deadline_s: float = 0.0,
) -> None:
    """Look for what is new; if anything is, train, evaluate, register, and let evidence decide.

    Args:
        spec: The document `model.yaml`, as JSON.
        cooldown_s: Least time between two trainings, in seconds.
        gpu_hours_per_day: What the trainings of a day may cost; 0: no limit.
        force: Train although nothing is new.
        because: What asked for this run: a schedule, a trigger, a person.
        deadline_s: How long a run may take, in seconds; 0: no limit.
    """
    with dsl.ExitHandler(conclude(spec=spec), name="steps"):
        detected = detect_changes(
            spec=spec,
            cooldown_s=cooldown_s,
            gpu_hours_per_day=gpu_hours_per_day,
            force=force,
            because=because,
            deadline_s=deadline_s,
            image=images.TRAIN,
        )
        detected.set_caching_options(False)  # what is new today was not yesterday
        with dsl.If(detected.outputs["Output"] == True, name="something is new"):  # noqa: E712 - kfp builds the condition from ==
            resolved = resolve(spec=spec)
            resolved.set_caching_options(False)  # a branch may have moved since
            pulled = pull(spec=spec, resolved=resolved.output)
            base = pulled.outputs["checkpoint"]
            scanned = scan(spec=spec, checkpoint=base)
            checked = check_data(resolved=resolved.output, checkpoint=base)
            checked.after(scanned)  # it reads the tokenizer
            trained = train(spec=spec, resolved=resolved.output, checkpoint=base)
            trained.after(checked)  # hours on data that a check would have refused
            sized(trained, pulled, trains=True)
            prove_and_serve(spec, resolved, pulled, scanned, checked, trained.outputs["trained"])
