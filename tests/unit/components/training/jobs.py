"""The objects of trainings on many devices: `python -m tests.unit.components.training.jobs`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from components.training.train_job import Job, deepspeed, name_of, objects
from penstock.core.training import Distributed
from serving.cluster import Object

GOLDEN = Path("tests/golden/trainjob")

_VOLUME = "pvc://penstock-home=/data/penstock"
TORCHRUN = Distributed(strategy="torchrun", volume=_VOLUME, nodes=2, devices_per_node=4)
PROCESSES = Distributed(
    strategy="torchrun", volume=_VOLUME, nodes=3, resource=None, cpu="500m", memory="2Gi"
)
ZERO2 = Distributed(strategy="deepspeed-zero2", volume=_VOLUME, devices_per_node=8)
ZERO3 = Distributed(
    strategy="deepspeed-zero3",
    volume=_VOLUME,
    nodes=4,
    devices_per_node=8,
    memory="512Gi",
    runtime="team-torch",
)
CASES = {"torchrun": TORCHRUN, "processes": PROCESSES, "zero2": ZERO2, "zero3": ZERO3}


def job(where: Distributed) -> Job:
    """Return a training on the devices of a strategy."""
    digest = "0123456789abcdef" * 4
    return Job(
        name=name_of("chat", digest),
        namespace="models",
        image="registry.example/penstock-train-python:1.2.3",
        folder=f"/data/penstock/trainings/{digest}",
        where=where,
    )


def written() -> dict[str, str]:
    """Return file name → text of every golden file."""
    found = {}
    for name, where in CASES.items():
        found[f"{name}.yaml"] = yaml.dump_all(
            objects(job(where)), Dumper=_Plain, sort_keys=False, width=100
        )
        configuration: dict[str, Any] | None = deepspeed(where)
        if configuration is not None:
            found[f"{name}.json"] = json.dumps(configuration, indent=1) + "\n"
    return found


class _Plain(yaml.SafeDumper):
    """Writes what stands twice twice."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def train_job(where: Distributed) -> Object:
    """Return the TrainJob alone."""
    return objects(job(where))[-1]


def main() -> None:
    """Write the golden files."""
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for old in GOLDEN.iterdir():
        old.unlink()
    for name, text in written().items():
        (GOLDEN / name).write_text(text)


if __name__ == "__main__":
    main()
