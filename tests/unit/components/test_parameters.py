"""What a pipeline's task can be given."""

from __future__ import annotations

import json

import pytest

from components.steps.parameters import MOST_BYTES, as_parameter
from penstock.core.errors import ConfigurationError


def test_what_does_not_fit_into_an_argument_is_refused() -> None:
    fits = json.dumps("x" * (MOST_BYTES - 6))  # four quotes, two of them escaped
    assert as_parameter(fits) == fits
    with pytest.raises(ConfigurationError, match="a document of 100,002 bytes") as refused:
        as_parameter(json.dumps("x" * (MOST_BYTES - 4)))
    assert "files that model.yaml names" in refused.value.hint
    with pytest.raises(ConfigurationError):
        as_parameter(json.dumps("ä" * (MOST_BYTES // 6)))
