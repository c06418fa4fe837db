"""Back to what was served before, as a run with a record."""

from kfp import dsl

from pipelines.tasks import conclude, go_back


@dsl.pipeline(name="penstock-rollback")
def rollback(spec: str, reason: str = "a person asked") -> None:
    """Roll back the candidate of the rollout that goes on; without one, undo the last promotion.

    Args:
        spec: The document `model.yaml`, as JSON: its name and target.
        reason: Why, for the record.
    """
    with dsl.ExitHandler(conclude(spec=spec), name="steps"):
        back = go_back(spec=spec, reason=reason)
        back.set_caching_options(False)  # level-triggered: looks at what is served now
