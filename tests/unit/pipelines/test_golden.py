from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.compile import PIPELINES, compile_text

GOLDEN = Path("tests/golden/pipelines")


def _documents(text: str) -> list[Any]:
    documents = list(yaml.safe_load_all(text))
    documents[0].pop("sdkVersion")
    return documents


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_ir_matches_golden(name: str) -> None:
    text = compile_text(PIPELINES[name])
    assert compile_text(PIPELINES[name]) == text
    assert _documents(text) == _documents((GOLDEN / f"{name}.yaml").read_text()), (
        "the compiled pipeline changed: `make golden`, then read the diff"
    )
