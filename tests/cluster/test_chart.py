"""The chart and Kustomize's files render the same; installed, upgraded, uninstalled beside users.

The first tests need binaries and no cluster that runs.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from penstock import __version__
from serving.cluster import Object
from tests.cluster.conftest import Running
from tests.cluster.installing import (
    CHART,
    DEPLOY,
    PART_OF,
    cluster_wide,
    helm,
    installed,
    kubectl,
    kustomized,
    overlay,
    templated,
)
from tests.cluster.served import answers
from tests.cluster.stage import PATIENT, Stage
from tests.cluster.waiting import until
from tests.unit.deploy.schemas import mistakes

pytestmark = [pytest.mark.cluster, pytest.mark.wider, pytest.mark.enable_socket]

BEFORE = "0.0.9"
"""Version of the chart that is upgraded from."""

_REACHES = ["istio-system", "observability"]


def _default(_: Path) -> tuple[list[Object], list[Object]]:
    return kustomized(DEPLOY / "overlays/models"), templated("models")


def _team(_: Path) -> tuple[list[Object], list[Object]]:
    folder = DEPLOY / "overlays/team"
    return kustomized(folder), templated("penstock", "-f", str(folder / "values.yaml"))


def _other(folder: Path) -> tuple[list[Object], list[Object]]:
    """Another namespace, registry, mechanism, Prometheus and network; a queue, no PodMonitor."""
    settings = {
        "PENSTOCK_MODE": "llmisvc",
        "PENSTOCK_PROMETHEUS": "http://prometheus.observability",
    }
    names = ("penstock-controller-python", "penstock-engine-python")
    port = {"protocol": "TCP", "port": 9000}
    changed: dict[str, list[tuple[str, Any]]] = {
        "engines": [
            (
                "/spec/ingress/0/from/0/namespaceSelector/matchExpressions/0/values",
                ["istio-system"],
            ),
            ("/spec/egress/1/ports", [port]),
        ],
        "controller": [
            ("/spec/egress/2/to/1/namespaceSelector/matchExpressions/0/values", _REACHES)
        ],
    }
    patches = [
        {
            "target": {"kind": "NetworkPolicy", "name": f"penstock-{name}"},
            "patch": json.dumps(
                [{"op": "replace", "path": path, "value": value} for path, value in found]
            ),
        }
        for name, found in changed.items()
    ]
    made = overlay(
        folder / "edge",
        "edge",
        ["base", "network", "queue"],
        images=[
            {"name": name, "newName": f"registry.test/ai/{name}", "newTag": "9"} for name in names
        ],
        configMapGenerator=[
            {"name": "penstock-settings", "literals": [f"{k}={v}" for k, v in settings.items()]}
        ],
        generatorOptions={"disableNameSuffixHash": True},
        patches=patches,
    )
    values = {
        "images": {"registry": "registry.test/ai/", "tag": "9"},
        "settings": settings,
        "admission": {"enabled": False},
        "network": {"callers": ["istio-system"], "reaches": _REACHES, "storage": [port]},
        "queue": {"enabled": True},
    }
    file = folder / "values.yaml"
    file.write_text(json.dumps(values))
    return kustomized(made), templated("edge", "-f", str(file))


def _alone(folder: Path) -> tuple[list[Object], list[Object]]:
    """The least: nothing but what a namespace needs."""
    made = overlay(folder / "least", "least", ["base"])
    off = (f"--set={part}.enabled=false" for part in ("admission", "network"))
    return kustomized(made), templated("least", *off)


SETS: dict[str, Callable[[Path], tuple[list[Object], list[Object]]]] = {
    "default": _default,
    "team": _team,
    "other": _other,
    "alone": _alone,
}


def _by_name(objects: list[Object]) -> dict[tuple[str, str], Object]:
    found = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    assert len(found) == len(objects)
    return found


@pytest.mark.parametrize("name", SETS)
def test_helm_and_kustomize_render_the_same(name: str, tmp_path: Path) -> None:
    ours, charts = map(_by_name, SETS[name](tmp_path))
    assert ours.keys() == charts.keys()
    assert len(ours) > 15
    for key, obj in ours.items():
        assert obj == charts[key], key


@pytest.mark.parametrize("name", SETS)
def test_what_is_rendered_is_as_its_schema_demands(name: str, tmp_path: Path) -> None:
    for obj in SETS[name](tmp_path)[1]:
        assert mistakes(obj) == [], obj["metadata"]["name"]


def test_helm_finds_nothing_wrong() -> None:
    assert "0 chart(s) failed" in helm("lint", str(CHART), "--strict")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--set=tenant.quotas.pods=1"], "quotas"),
        (["--set=networks.enabled=false"], "networks"),
        (["--set=settings.HF_TOKEN=hf_x"], "HF_TOKEN"),
        (["--set=tenant.podSecurity=lax"], "podSecurity"),
        (["--set=namespace=Team_A"], "namespace"),
    ],
    ids=lambda each: each[0].removeprefix("--set=") if isinstance(each, list) else "",
)
def test_values_that_mean_nothing_are_refused(words: list[str], says: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as problem:
        templated("models", *words)
    assert says in problem.value.stderr


def _before(folder: Path) -> Path:
    """Return a chart as an earlier release may have had it.

    There is none yet. This has another version, what a release adds, removes and changes, and a
    runtime with another annotation of its pods: the change that reaches engines which serve.
    """
    chart = folder / "before"
    shutil.copytree(CHART, chart)

    def change(name: str, old: str, new: str) -> None:
        path = chart / name
        assert old in path.read_text(), (name, old)
        path.write_text(path.read_text().replace(old, new, 1))

    change("Chart.yaml", f"\nversion: {__version__}", f"\nversion: {BEFORE}")
    change("templates/controller.yaml", "limits: {memory: 512Mi}", "limits: {memory: 500Mi}")
    change("templates/runtimes.yaml", "name: penstock-sglang\n", "name: penstock-before\n")
    path = "prometheus.kserve.io/path: /"
    change("templates/runtimes.yaml", f"{path}metrics\n", f"{path}before\n")
    left = (chart / "templates/settings.yaml").read_text()
    left = left.replace("name: penstock-settings", "name: penstock-before")
    left = left.replace("with .Values.settings", 'with dict "a" "b"')
    (chart / "templates/before.yaml").write_text(left)
    return chart


def _metrics_of(stage: Stage) -> list[str]:
    """Return what the engines' pods have of their runtime."""
    pods = kubectl("-n", stage.namespace, "get", "pods", "-l", "penstock.dev/name", "-ojson")
    of = "prometheus.kserve.io/path"
    return [each["metadata"]["annotations"][of] for each in json.loads(pods)["items"]]


@pytest.mark.alone
def test_install_upgrade_and_uninstall_leave_traffic_and_nothing_stray(
    cluster: Running, namespace: str, tmp_path: Path
) -> None:
    before, wide = installed(), cluster_wide()
    stage = Stage(namespace, tmp_path, policy=PATIENT, cpu="400m")
    stage.prepare(runtime=False)
    words = ("-n", namespace, "--wait", "--timeout=240s")
    values = f"--set=images.registry={cluster.registry}"
    run: Callable[..., Any] = partial(kubectl, "-n", namespace)

    helm("install", "penstock", str(_before(tmp_path)), values, *words)
    assert f"penstock-{BEFORE}" in helm("list", "-n", namespace)
    kinds = ("ConfigMap", "ServingRuntime")
    assert {f"{namespace}/{kind}/penstock-before" for kind in kinds} <= installed()
    stage.deploy(1)
    until("an answer through the gateway", lambda: answers(stage), 240)
    assert _metrics_of(stage) == ["/before"]

    with stage.users(10.0) as users:
        helm("upgrade", "penstock", str(CHART), values, *words)
        now = {each for each in installed() - before if each.startswith(f"{namespace}/")}
        assert not {each for each in now if "before" in each}
        assert f"{namespace}/ServingRuntime/penstock-sglang" in now
        deployment = json.loads(run("get", "deployment", "penstock-controller", "-ojson"))
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        assert container["resources"]["limits"] == {"memory": "512Mi"}
        # KServe starts the engines of a changed runtime anew, the next pod before the last one ends
        until("an engine of the new runtime", lambda: _metrics_of(stage) == ["/metrics"], 300)
        assert users.failures == []

        stage.begin(2)
        record = stage.until(lambda found: found.over, seconds=600)
        said = run("logs", "deployment/penstock-controller")
        assert record.phase == "promoted", (record.reason, said)
        assert stage.gone("m-v1")

        helm("uninstall", "penstock", *words)
        asked = users.asked
        until("more users", lambda: users.asked > asked + 100)
        assert users.failures == []

    assert installed() <= before  # another test's namespace may have gone meanwhile
    assert cluster_wide() == wide
    assert run("get", "secrets", "-l", "owner=helm", "-o", "name") == ""
    assert run("get", "all,sa,role,rolebinding,networkpolicy", "-o", "name", "-l", PART_OF) == ""
    assert stage.target.observed("m") == {"m-v2": 100}
    assert answers(stage)
