"""What is refused before anything is pulled."""

from __future__ import annotations

from typing import Any, cast

import pytest

from components.steps.context import Context
from components.steps.verbs import resolve
from penstock.core.errors import ConfigurationError
from tests.unit.serving.runtimes.wishes import GPUS, spec

NOBODY = cast(Context, None)
"""Nothing is asked of a run that is refused."""


NAMED = {
    "target": {"kserve": {}},
    "hardware": GPUS,
    "runtime": "vllm",
    "precision": "bf16",
}
"""Nothing is left open, so no headers are read."""


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"runtime": "vllm"}, "allowed: cpu"),
        ({"serving": {"context": 4096}}, r"cannot be told serving\.context"),
        ({"runtime_args": ["--fult=live-errors=0.2"]}, "did you mean --fault"),
        (
            {**NAMED, "runtime_args": ["--max-modl-len=9"]},
            "did you mean --max-model-len",
        ),
        (
            {**NAMED, "serving": {"tensor_parallel": 3}},
            r"hardware\.count is 4",
        ),
    ],
)
def test_what_an_engine_cannot_do_is_refused_first(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as refused:
        resolve(NOBODY, spec(**fields).to_json())
    assert refused.value.hint
