"""Runtimes as Kubernetes' objects."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from serving.kserve.facts import Facts
from serving.kserve.serving_runtimes import cluster_serving_runtime, preset, serving_runtime
from serving.runtimes.catalog import RUNTIMES
from serving.runtimes.runtime import Runtime
from tests.unit.serving.kserve.definitions import mistakes
from tests.unit.serving.runtimes.objects import DEPLOY, FACTS, GOLDEN, PRESETS, files, written

FILES = files()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_an_object_is_as_it_was_read(path: Path) -> None:
    assert path.exists(), "python -m tests.unit.serving.runtimes.objects, then read it"
    assert path.read_text() == written(FILES[path])


def test_no_file_is_left_over_and_every_runtime_is_installed() -> None:
    assert {path for path in FILES if path.parent == GOLDEN} == set(GOLDEN.glob("*.yaml"))
    installed = yaml.safe_load((DEPLOY / "kustomization.yaml").read_text())["resources"]
    assert set(installed) == {f"{each.name}.yaml" for each in RUNTIMES.values()}


@pytest.mark.parametrize("key", RUNTIMES)
def test_a_runtime_is_as_its_definition_demands(key: str) -> None:
    runtime = RUNTIMES[key]
    assert mistakes(serving_runtime(runtime, Facts())) == []
    assert mistakes(cluster_serving_runtime(runtime, Facts())) == []


@pytest.mark.parametrize("runtime", PRESETS, ids=lambda runtime: runtime.key)
def test_a_preset_is_as_its_definition_demands(runtime: Runtime) -> None:
    assert mistakes(preset(runtime, Facts())) == []


def test_images_are_exact() -> None:
    for runtime in RUNTIMES.values():
        tag = runtime.image.rpartition(":")[2]
        assert runtime.own or (any(sign.isdigit() for sign in tag) and tag != "latest")
        image = serving_runtime(runtime, FACTS)["spec"]["containers"][0]["image"]
        assert image == (f"{runtime.image}:1.2.3" if runtime.own else runtime.image)


def test_devices_share_memory_and_a_cpu_needs_none() -> None:
    for runtime in RUNTIMES.values():
        body = serving_runtime(runtime, FACTS)["spec"]
        mounts = {each["mountPath"] for each in body["containers"][0]["volumeMounts"]}
        assert ("/dev/shm" in mounts) == ("gpu" in runtime.matrix)  # noqa: S108
        assert bool(body.get("volumes")) == ("gpu" in runtime.matrix)


def test_probes_and_metrics_are_where_the_engine_has_them() -> None:
    for runtime in RUNTIMES.values():
        body = serving_runtime(runtime, FACTS)["spec"]
        (container,) = body["containers"]
        assert container["readinessProbe"]["httpGet"]["path"] == runtime.ready
        assert container["livenessProbe"]["httpGet"]["path"] == runtime.alive
        assert body["annotations"]["prometheus.kserve.io/path"] == runtime.metrics
        starting = container["startupProbe"]
        assert starting["failureThreshold"] * starting["periodSeconds"] >= 2800 + runtime.start_s


def test_a_preset_listens_where_the_controller_looks() -> None:
    for runtime in PRESETS:
        (container,) = preset(runtime, FACTS)["spec"]["template"]["containers"]
        assert container["name"] == "main"
        assert container["ports"][0]["containerPort"] == 8000
        assert "--port=8000" in container["args"]
        assert not [word for word in container["args"] if "8080" in word]
        assert container["args"][-2] == "--served-model-name={{ .Spec.Model.Name }}"
