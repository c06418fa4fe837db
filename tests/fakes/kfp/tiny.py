"""A pipeline of one step, as Penstock would compile it: for back ends, not for models."""

import os  # no annotations from the future: kfp reads a component's own

from kfp import dsl

from pipelines.compile import compile_text


def tiny_package(name: str) -> str:
    """Return the compiled text of a pipeline that says a word, and takes how often.

    Args:
        name: Of the pipeline.
    """
    image = os.environ.get("PENSTOCK_TEST_KFP_IMAGE", "python:3.11-slim")  # noqa: TID251 - a back end's

    @dsl.component(base_image=image, install_kfp_package=False)  # type: ignore[untyped-decorator]
    def say(word: str, times: int) -> str:
        print(word)  # noqa: T201 - its log
        return word * times

    @dsl.pipeline(name=name)  # type: ignore[untyped-decorator]
    def tiny(word: str, times: int) -> None:
        say(word=word, times=times).set_caching_options(False)

    return compile_text(tiny)
