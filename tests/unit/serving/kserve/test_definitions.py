"""What the definitions of KServe and Gateway API say about the objects."""

from __future__ import annotations

from copy import deepcopy

import pytest

from tests.unit.serving.kserve.definitions import mistakes
from tests.unit.serving.kserve.objects import objects

OBJECTS = objects()


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_is_as_its_definition_demands(name: str) -> None:
    assert mistakes(OBJECTS[name]) == []


def test_a_field_that_does_not_exist_is_found() -> None:
    wrong = deepcopy(OBJECTS["cpu-s3"])
    wrong["spec"]["predictor"]["model"]["argz"] = []
    assert any("argz" in each for each in mistakes(wrong))


def test_a_value_of_another_type_is_found() -> None:
    wrong = deepcopy(OBJECTS["route-one"])
    wrong["spec"]["rules"][0]["timeouts"]["request"] = 60
    assert any("request" in each for each in mistakes(wrong))
