"""A split as Seldon Core 2 reads it."""

from __future__ import annotations

import jsonschema
import pytest

from penstock.core.errors import ConfigurationError
from serving.seldon import experiment

SPEC = {  # as `mlops.seldon.io_experiments.yaml` of SeldonIO/seldon-core demands
    "type": "object",
    "required": ["candidates"],
    "additionalProperties": False,
    "properties": {
        "candidates": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "weight"],
                "additionalProperties": False,
                "properties": {"name": {"type": "string"}, "weight": {"type": "integer"}},
            },
        },
        "default": {"type": "string"},
        "mirror": {"type": "object"},
        "resourceType": {"type": "string"},
    },
}


def test_a_split_is_an_experiment_on_the_stable_versions_endpoint() -> None:
    made = experiment("m", "team", {"m-v2": 25, "m-v1": 75}, "m-v1")
    jsonschema.validate(made["spec"], SPEC)
    assert made["spec"]["default"] == "m-v1"
    assert made["spec"]["candidates"] == [
        {"name": "m-v1", "weight": 75},
        {"name": "m-v2", "weight": 25},
    ]
    assert (made["metadata"]["name"], made["metadata"]["namespace"]) == ("m", "team")


@pytest.mark.parametrize(("weights", "stable"), [({}, ""), ({"m-v1": 0}, "m-v1"), ({"a": 1}, "b")])
def test_nothing_to_split_is_refused(weights: dict[str, int], stable: str) -> None:
    with pytest.raises(ConfigurationError, match="an Experiment needs shares"):
        experiment("m", "team", weights, stable)
