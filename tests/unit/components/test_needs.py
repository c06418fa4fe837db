from __future__ import annotations

from typing import Any

import pytest

from components.steps.needs import needs
from penstock.core.spec import ModelSpec

GIB = 1 << 30
TRAINED = {"data": {"train": "rows.jsonl"}}


def _spec(**more: Any) -> ModelSpec:
    return ModelSpec.model_validate({"name": "m", "source": "hf://a/b", **more})


@pytest.mark.parametrize(
    ("more", "memory"),
    [
        ({}, "52Gi"),
        (TRAINED, "68Gi"),
        ({**TRAINED, "training": {"method": "full"}}, "164Gi"),
        ({"training": {"method": "full"}}, "52Gi"),  # nothing is trained
    ],
)
def test_memory_follows_size_and_method(more: dict[str, Any], memory: str) -> None:
    assert needs(_spec(**more), 16 * GIB).memory == memory


def test_a_small_checkpoint_needs_what_python_needs() -> None:
    found = needs(_spec(), 1_000_000)
    assert (found.memory, found.devices) == ("5Gi", "0")


def test_only_a_training_beside_devices_gets_one() -> None:
    hardware = {"hardware": {"accelerator": "nvidia-l4"}}
    found = needs(_spec(**hardware), GIB)
    assert (found.devices, found.device) == ("1", "nvidia.com/gpu")
    jobs = {"strategy": "torchrun", "nodes": 2, "devices_per_node": 1, "volume": "pvc://c=/f"}
    assert needs(_spec(**hardware, training={"distributed": jobs}), GIB).devices == "0"


def test_amd_s_devices_have_their_own_name_and_taint() -> None:
    found = needs(_spec(hardware={"accelerator": "amd-mi300x-192gb"}), GIB)
    assert found.device == found.toleration["key"] == "amd.com/gpu"
