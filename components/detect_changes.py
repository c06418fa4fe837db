"""Look whether there is anything new to train the model from."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.STEPS, install_kfp_package=False)
def detect_changes(
    spec: str,
    cooldown_s: float,
    gpu_hours_per_day: float,
    force: bool,
    because: str,
    deadline_s: float,
    image: str,
    found: dsl.Output[dsl.Markdown],
) -> bool:
    """Compare base, data, strategy, code and image with the champion's passport.

    Args:
        spec: The document `model.yaml`, as JSON.
        cooldown_s: Least time between two attempts, in seconds.
        gpu_hours_per_day: What trainings of a day may cost; 0: no limit.
        force: Train although nothing is new.
        because: What asked for this look.
        deadline_s: How long the run may take, in seconds from now; 0: no limit.
        image: That trains, as it is pinned in the compiled pipeline.
        found: What is new, for the UI.
    """
    import os

    from components.steps import deadline, detect, verbs
    from components.steps.changes import Limits
    from components.steps.context import step

    with step("detect_changes", os.environ) as context:
        deadline.begin(context.settings, deadline_s, verbs.spec_of(spec).tasks)
        limits = Limits(cooldown_s, gpu_hours_per_day, force)
        return detect.detect(context, spec, limits, image, because, found.path)
