"""Two teams on one cluster: each serves, and neither sees nor changes what is the other's.

One was made by Kustomize, the other by Helm. Judged by the API server: its RBAC, its admission.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from serving.cluster import Object
from serving.kserve.facts import Facts
from serving.kserve.http_route import http_route
from tests.cluster.conftest import Running
from tests.cluster.installing import (
    CHART,
    DEPLOY,
    PART_OF,
    definitions,
    gone,
    helm,
    installed,
    kubectl,
    team,
    try_kubectl,
)
from tests.cluster.served import answers, penstock
from tests.cluster.teams import SECRET, Team, serving
from tests.cluster.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.wider, pytest.mark.enable_socket]

OPERATORS = ("PodMonitor", "ClusterQueue", "LocalQueue", "ResourceFlavor")
THINGS = (
    "inferenceservice/m-v1", "httproute/m", "servingruntime/penstock-cpu", f"secret/{SECRET}",
    "configmap/penstock-settings", "deployment/penstock-controller", "resourcequota/penstock",
    "limitrange/penstock", "networkpolicy/penstock-engines", "rolebinding/penstock-runner",
    "role/penstock-controller", "podmonitor/penstock-engines", "localqueue/default",
)  # fmt: skip
_LABEL = json.dumps({"metadata": {"labels": {"changed": "by-another"}}})


@pytest.fixture(scope="module")
def teams(
    cluster: Running, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Team, Team]]:
    """A team that Kustomize made, and one that Helm made; both serve a model of one name."""
    root = tmp_path_factory.mktemp("teams")
    mark = uuid.uuid4().hex[:6]
    red, blue, admins = f"red-{mark}", f"blue-{mark}", f"admins-{mark}"
    folders = [team(root / name, name, cluster.registry) for name in (red, blue)]
    routes = str(DEPLOY / "admission/tenant-routes.yaml")
    with definitions(*OPERATORS):
        kubectl("apply", "-f", routes)
        try:
            kubectl("apply", "-k", str(folders[0]))
            helm(
                *("install", blue, str(CHART), "-n", admins, "--create-namespace"),
                *("-f", str(folders[1] / "values.yaml")),
                *(f"--set=images.registry={cluster.registry}", "--wait", "--timeout=240s"),
            )
            yield serving(folders[0], red), serving(folders[1], blue)
        finally:
            try_kubectl("delete", "--wait=false", "--ignore-not-found", "-k", str(folders[0]))
            if admins in helm("list", "-A"):
                helm("uninstall", blue, "-n", admins)
            try_kubectl("delete", "namespace", "--wait=false", "--ignore-not-found", blue, admins)
            try_kubectl("delete", "pv", "--wait=false", f"{red}-store", f"{blue}-store")
            kubectl("delete", "-f", routes)


@pytest.fixture(params=["kustomize", "helm"])
def pair(request: pytest.FixtureRequest, teams: tuple[Team, Team]) -> tuple[Team, Team]:
    """One team and the other, and the other way round."""
    return teams if request.param == "kustomize" else (teams[1], teams[0])


def test_a_team_has_the_rights_to_serve_in_its_namespace(pair: tuple[Team, Team]) -> None:
    mine, _ = pair
    code, said = penstock("doctor", "--namespace", mine.name, **mine.account)
    assert (code, "✗" in said) == (0, False), said
    for words in (["get", "inferenceservice/m-v1"], ["get", "httproute/m"], ["get", "pods"]):
        kubectl("-n", mine.name, *words, env=mine.account)
        kubectl("-n", mine.name, *words, *mine.person)


def test_of_another_namespace_a_team_may_nothing(pair: tuple[Team, Team]) -> None:
    mine, other = pair
    shipped, _ = yaml.safe_load_all((DEPLOY / "controller/gateway-reader.yaml").read_text())

    def keyed(rules: list[Any]) -> list[str]:
        return sorted(json.dumps(each, sort_keys=True) for each in rules)

    for words in ([], mine.person):
        assert keyed(mine.reviewed(other.name, *words)) == keyed(shipped["rules"]), words
        assert len(mine.reviewed(mine.name, *words)) > len(shipped["rules"])


@pytest.mark.parametrize("who", ["account", "person"])
def test_what_is_anothers_is_neither_seen_nor_changed(pair: tuple[Team, Team], who: str) -> None:
    mine, other = pair
    env = mine.account if who == "account" else None
    words = [] if who == "account" else mine.person
    place = ("-n", other.name)
    every = ("get", *place, *THINGS, "-o", "json")
    before = {
        each["kind"]: each["metadata"]["uid"] for each in json.loads(kubectl(*every))["items"]
    }
    assert len(before) == len(THINGS)
    for thing in THINGS:
        kind = thing.partition("/")[0]
        for call in (
            ("get", thing),
            ("get", kind),
            ("get", kind, "-A"),
            ("patch", thing, "--type=merge", "-p", _LABEL),
            ("delete", thing),
        ):
            answer = try_kubectl(*place, *call, *words, env=env)
            assert (answer.returncode, "orbidden" in answer.stderr) == (1, True), (call, answer)
    found = json.loads(kubectl(*every))["items"]
    assert {each["kind"]: each["metadata"]["uid"] for each in found} == before
    assert not [each for each in found if "changed" in each["metadata"].get("labels", {})]
    for call in (
        ("logs", "deployment/penstock-controller"),
        ("get", "pods"),
        ("get", f"namespace/{other.name}"),
        ("create", "token", "penstock-runner"),
        ("create", "configmap", "of-mine"),
    ):
        answer = try_kubectl(*place, *call, *words, env=env)
        assert (answer.returncode, "orbidden" in answer.stderr) == (1, True), (call, answer)


def test_nobody_gives_a_team_more_than_it_has(pair: tuple[Team, Team]) -> None:
    mine, _ = pair
    for call in (
        ("get", f"secret/{SECRET}"),
        ("delete", "resourcequota/penstock"),
        ("delete", "limitrange/penstock"),
        ("delete", "networkpolicy/penstock-engines"),
        (
            "label",
            f"namespace/{mine.name}",
            "pod-security.kubernetes.io/enforce=privileged",
            "--overwrite",
        ),
        ("create", "rolebinding", "more", "--clusterrole=admin", f"--group={mine.name}"),
    ):
        for words, env in (([], mine.account), (mine.person, None)):
            answer = try_kubectl("-n", mine.name, *call, *words, env=env)
            assert (answer.returncode, "orbidden" in answer.stderr) == (1, True), (call, answer)


def _route(mine: Team, **claims: Any) -> str:
    """Return what the API server says of a team's route; empty where it may be."""
    route = http_route("m2", {"m-v1": 100}, Facts(mine.name))
    route["spec"] = {key: value for key, value in {**route["spec"], **claims}.items() if value}
    words = ("create", "--dry-run=server", "-f", "-")
    return try_kubectl("-n", mine.name, *words, given=route, env=mine.account).stderr


def test_a_route_cannot_claim_what_is_anothers(pair: tuple[Team, Team]) -> None:
    mine, other = pair
    says = f"a route of namespace {mine.name} may claim NAME-{mine.name}.DOMAIN"
    hosts = Facts(other.name).gateway.hostnames("m", other.name)
    exactly = [{"matches": [{"path": {"type": "Exact", "value": "/v1/chat/completions"}}]}]
    theirs = [
        {"matches": [{"path": {"type": "PathPrefix", "value": f"/publishers/{other.name}/"}}]}
    ]
    ours = [{"matches": [{"path": {"type": "PathPrefix", "value": f"/publishers/{mine.name}/"}}]}]
    for claims in (
        {"hostnames": hosts},
        {"hostnames": hosts[:1]},
        {"hostnames": [*Facts(mine.name).gateway.hostnames("m2", mine.name), hosts[1]]},
        {"hostnames": ["*.example.com"]},
        {"hostnames": None},
        {"hostnames": None, "rules": exactly},
        {"hostnames": None, "rules": theirs},
        {"hostnames": None, "rules": [*ours, *theirs]},
    ):
        assert says in _route(mine, **claims), claims
    assert _route(mine) == ""
    assert _route(mine, hostnames=None, rules=ours) == ""


def _pod(mine: Team, **container: Any) -> tuple[Object, str]:
    """Return what an administrator's pod becomes there, or what the API server says against it."""
    confined = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    body = {"name": "c", "image": "localhost/busybox:1", "securityContext": confined, **container}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "tried"},
        "spec": {"containers": [body]},
    }
    words = ("create", "--dry-run=server", "-o", "json", "-f", "-")
    answer = try_kubectl("-n", mine.name, *words, given=pod)
    return json.loads(answer.stdout or "{}"), answer.stderr


def test_a_quota_a_range_and_a_standard_hold(pair: tuple[Team, Team]) -> None:
    mine, _ = pair
    plain, said = _pod(mine)
    assert plain, said
    assert plain["spec"]["containers"][0]["resources"] == {
        "limits": {"memory": "1Gi"},
        "requests": {"cpu": "100m", "memory": "256Mi"},
    }
    greedy = {"requests": {"cpu": "17", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}
    assert "exceeded quota: penstock" in _pod(mine, resources=greedy)[1]
    device = {"limits": {"nvidia.com/gpu": "1", "memory": "1Gi"}}
    assert "exceeded quota: penstock" in _pod(mine, resources=device)[1]
    for context in ({"runAsUser": 0}, {}):
        assert 'violates PodSecurity "restricted' in _pod(mine, securityContext=context)[1]


def test_costs_are_known_of_every_object_and_pod(pair: tuple[Team, Team]) -> None:
    mine, _ = pair
    kinds = "all,configmap,sa,role,rolebinding,networkpolicy,servingruntime,podmonitor,localqueue"
    ours = json.loads(kubectl("-n", mine.name, "get", kinds, "-l", PART_OF, "-o", "json"))["items"]
    pods = json.loads(kubectl("-n", mine.name, "get", "pods", "-o", "json"))["items"]
    assert len(ours) > 15
    assert len(pods) == 2
    for each in [*ours, *pods]:
        labels = each["metadata"]["labels"]
        told = (labels.get("penstock.dev/team"), labels.get("penstock.dev/cost-center"))
        assert told == (mine.name, "4711"), (each["kind"], each["metadata"]["name"])


def test_settings_are_the_teams_own(pair: tuple[Team, Team]) -> None:
    mine, _ = pair
    found = kubectl("-n", mine.name, "get", "configmap/penstock-settings", "-o", "json")
    assert json.loads(found)["data"] == {
        "MLFLOW_TRACKING_URI": "http://mlflow.mlflow:5000",
        "MLFLOW_EXPERIMENT_NAME": mine.name,
        "PENSTOCK_PROMETHEUS": "http://prometheus.monitoring:9090",
        "PENSTOCK_STORAGE_SECRET": SECRET,
    }


def test_one_team_goes_and_the_other_serves_on(teams: tuple[Team, Team]) -> None:
    first, second = teams
    with second.stage.users(10.0) as users:
        kubectl("delete", "--wait=false", "-k", str(first.folder))
        gone(first.name, seconds=240)
        release_of = next(
            each
            for each in json.loads(helm("list", "-A", "-o", "json"))
            if each["name"] == second.name
        )
        helm("uninstall", second.name, "-n", release_of["namespace"], "--wait", "--timeout=240s")
        until("its objects to go", lambda: _left(second) == {f"Namespace/{second.name}"}, 120)
        asked = users.asked
        until("more users", lambda: users.asked > asked + 100)
    assert users.failures == []
    assert answers(second.stage), "the namespace and what serves there outlive the release"


def _left(of: Team) -> set[str]:
    return {each for each in installed() if of.name in each}
