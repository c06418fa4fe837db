"""Kustomize's files, and the chart that is made of them. Rendered and compared: tests/cluster."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from penstock import __version__
from serving.cluster import Object
from serving.kserve.facts import Facts
from serving.kserve.inference_service import inference_service
from serving.kserve.serving_runtimes import serving_runtime
from serving.runtimes.catalog import RUNTIMES
from tests.unit.deploy.chart import CHART, DEPLOY, ONCE, OWN, PARTS, files, objects, own, templates
from tests.unit.deploy.pod_security import ROOT, violations
from tests.unit.deploy.schemas import mistakes
from tests.unit.serving.kserve import definitions
from tests.unit.serving.kserve.objects import release, spec

BY_HAND = {"_helpers.tpl", "settings.yaml", "NOTES.txt"}
MADE = templates()
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
TEAM = yaml.safe_load((DEPLOY / "overlays/team/values.yaml").read_text())


OBJECTS = {
    f"{part}/{obj['kind']}/{obj['metadata']['name']}": obj
    for part in PARTS
    for obj in objects(part)
}


@pytest.mark.parametrize("path", MADE, ids=lambda path: path.name)
def test_a_template_is_what_its_folder_makes(path: Path) -> None:
    assert path.read_text() == MADE[path], "python -m tests.unit.deploy.chart, then read it"


def test_no_folder_and_no_template_is_left_over() -> None:
    others = {"base", "chart", "common", "overlays"}
    assert {path.name for path in DEPLOY.iterdir()} == {*PARTS, *others}
    there = {path.name for path in (CHART / "templates").iterdir()}
    assert there == {path.name for path in MADE} | BY_HAND
    for part in PARTS:
        written = set((DEPLOY / part).glob("*.yaml"))
        assert written == {*files(part), DEPLOY / part / "kustomization.yaml"}


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_is_as_its_schema_demands(name: str) -> None:
    assert mistakes(OBJECTS[name]) == []


def test_a_name_with_the_namespace_at_its_end_is_of_no_other_kind() -> None:
    others = {
        obj["metadata"]["name"]
        for obj in OBJECTS.values()
        if obj["kind"] not in OWN | {"LocalQueue"}
    }
    assert not own() & others
    changed = (DEPLOY / "common/names.yaml").read_text()
    assert all(f"kind: {kind}}}" in changed for kind in OWN)


def test_no_kind_is_taken_for_a_namespaced_one() -> None:
    for obj in OBJECTS.values():
        if obj["kind"] in definitions.FILES:
            wide = definitions.definition(obj["kind"])["spec"]["scope"] == "Cluster"
            assert wide == (obj["kind"] in ONCE | OWN), obj["kind"]


def test_a_mistake_is_found_by_the_schemas() -> None:
    for name, field in {
        "controller/Deployment/penstock-controller": "replicsa",
        "queue/ClusterQueue/penstock-queue": "cohrot",
    }.items():
        wrong = {**OBJECTS[name], "spec": {**OBJECTS[name]["spec"], field: 1}}
        assert any(field in each for each in mistakes(wrong)), name


def _marked() -> Iterator[tuple[str, Any]]:
    """Yield what a line's mark names, and what stands there."""
    mark = re.compile(r"^( *).*# helm: \.Values\.([\w.]+)$")
    for part in PARTS:
        for file in files(part):
            lines = file.read_text().splitlines()
            for number, line in enumerate(lines):
                if found := mark.match(line):
                    indent = len(found[1])
                    below = [line]
                    for after in lines[number + 1 :]:
                        if len(after) - len(after.lstrip()) <= indent:
                            break
                        below.append(after)
                    (value,) = yaml.safe_load("\n".join(below).strip().removeprefix("- ")).values()
                    yield found[2], value


def test_a_marked_line_has_its_values_default() -> None:
    seen = set()
    for name, value in _marked():
        default: Any = VALUES
        for key in name.split("."):
            default = default[key]
        assert default == value, name
        seen.add(name)
    assert {"network.callers", "queue.cpu", "tenant.group", "tenant.quota"} <= seen


def test_what_templates_read_is_a_value_and_every_value_is_read() -> None:
    text = "".join(path.read_text() for path in (CHART / "templates").iterdir())
    read = set(re.findall(r"\.Values\.([\w.]+)", text))
    leaves = {
        f"{key}.{inner}" if isinstance(value, dict) and value else key
        for key, value in VALUES.items()
        for inner in (value if isinstance(value, dict) and value else [""])
    }
    assert read == leaves


@pytest.mark.parametrize("values", [VALUES, TEAM, {}], ids=["default", "team", "none"])
def test_values_that_ship_are_accepted(values: dict[str, Any]) -> None:
    jsonschema.validate(values, SCHEMA)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"networks": {}}, "networks"),
        ({"tenant": {"quotas": {}}}, "quotas"),
        ({"network": {"callers": []}}, "[]"),
        ({"settings": {"HF_TOKEN": "hf_x"}}, "HF_TOKEN"),
        ({"settings": {"PENSTOCK_MODE": 1}}, "1 is not of type 'string'"),
        ({"labels": {"cost-center": 4711}}, "4711 is not of type 'string'"),
        ({"tenant": {"podSecurity": "lax"}}, "lax"),
        ({"tenant": {"quota": {"requests.cpu": "many"}}}, "many"),
        ({"namespace": "Team A"}, "Team A"),
    ],
    ids=lambda each: next(iter(each)) if isinstance(each, dict) else "",
)
def test_values_that_mean_nothing_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(jsonschema.ValidationError) as problem:
        jsonschema.validate(wrong, SCHEMA)
    assert says in str(problem.value)


def test_the_chart_has_our_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


def test_the_controller_and_the_cpu_engine_keep_to_restricted() -> None:
    controller = OBJECTS["controller/Deployment/penstock-controller"]["spec"]["template"]["spec"]
    assert list(violations(controller)) == []
    pod = inference_service(spec(), release(), Facts())["spec"]["predictor"]
    engine = serving_runtime(RUNTIMES["cpu"], Facts())["spec"]["containers"]
    assert list(violations({**pod, "containers": engine})) == []


@pytest.mark.parametrize("key", [key for key, each in RUNTIMES.items() if not each.own])
def test_an_engine_that_is_not_ours_differs_from_restricted_by_its_user_alone(key: str) -> None:
    pod = serving_runtime(RUNTIMES[key], Facts())["spec"]
    assert list(violations(pod)) == [f"kserve-container: {ROOT}"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"hostNetwork": True},
        {"volumes": [{"name": "node", "hostPath": {"path": "/"}}]},
        {"containers": [{"name": "c", "securityContext": {"privileged": True}}]},
    ],
    ids=["network", "volume", "container"],
)
def test_what_restricted_refuses_is_found(wrong: Object) -> None:
    good = OBJECTS["controller/Deployment/penstock-controller"]["spec"]["template"]["spec"]
    assert list(violations({**good, **wrong}))


def test_policies_speak_of_the_pods_that_there_are() -> None:
    engines, controller = (
        OBJECTS[f"network/NetworkPolicy/penstock-{name}"]["spec"]
        for name in ("engines", "controller")
    )
    (asked,) = engines["podSelector"]["matchExpressions"]
    pods = inference_service(spec(), release(), Facts())["metadata"]["labels"]
    assert (asked["key"] in pods, asked["operator"]) == (True, "Exists")
    template = OBJECTS["controller/Deployment/penstock-controller"]["spec"]["template"]
    wanted = controller["podSelector"]["matchLabels"]
    assert wanted.items() <= template["metadata"]["labels"].items()
    assert wanted == engines["ingress"][0]["from"][1]["podSelector"]["matchLabels"]
    assert "ingress" not in controller
    assert "Ingress" in controller["policyTypes"]


def test_a_team_is_bound_to_roles_that_are_there() -> None:
    roles = {name.split("/", 1)[1] for name in OBJECTS}
    bound = [obj for obj in OBJECTS.values() if obj["kind"].endswith("RoleBinding")]
    assert len(bound) == 5
    for each in bound:
        role = each["roleRef"]
        assert f"{role['kind']}/{role['name']}" in {*roles, "ClusterRole/view"}


def test_nobody_may_read_secrets_or_speak_for_others() -> None:
    for obj in OBJECTS.values():
        for rule in obj.get("rules", []):
            assert "*" not in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]]
            assert not {"secrets", "serviceaccounts", "roles", "rolebindings"} & {
                *rule["resources"]
            }
            assert not {"bind", "escalate", "impersonate"} & {*rule["verbs"]}
