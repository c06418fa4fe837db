"""The `Cluster` contract, and what only a real API server does, on a real API server."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from penstock.core.errors import Conflict
from serving.cluster import Object
from serving.kube import KubernetesCluster, connect, discovery
from serving.kube.access import Access, find
from serving.kube.api import Api
from serving.kube.calls import Call, Target
from serving.kube.errors import Forbidden, NoAccess, NotServed, Refused
from serving.kube.patience import Patience
from serving.kube.session import Session
from tests.cluster.control_plane import ControlPlane, binaries, control_plane, until
from tests.contract import test_cluster as contract
from tests.contract.test_cluster import CONFIG_MAP, LEASE, _route, _spec

pytestmark = [pytest.mark.cluster, pytest.mark.alone]

# every promise of the contract is kept here too, whatever is added to it
globals().update({name: test for name, test in vars(contract).items() if name.startswith("test_")})

_SERVICE: Object = {
    "apiVersion": "serving.kserve.io/v1beta1",
    "kind": "InferenceService",
    "metadata": {"name": "llama-v1"},
    "spec": {"predictor": {"model": {"modelFormat": {"name": "huggingface"}}}},
}


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    found = binaries()
    if found is None:
        pytest.skip("no etcd and kube-apiserver: make cluster-up, or put them on the PATH")
    with control_plane(found, tmp_path_factory.mktemp("plane")) as started:
        yield started


@pytest.fixture(scope="module")
def names() -> Iterator[int]:
    return itertools.count()


@pytest.fixture
def cluster(plane: ControlPlane, names: Iterator[int]) -> Iterator[KubernetesCluster]:
    """An empty namespace of its own."""
    with plane.cluster(f"models-{next(names)}") as made:
        metadata = {"name": made.namespace}
        made.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        yield made


def test_objects_are_as_the_server_gave_them(cluster: KubernetesCluster) -> None:
    cluster.create(LEASE)
    (listed,) = cluster.list("Lease")
    assert listed == cluster.get("Lease", "mine")
    assert listed["apiVersion"] == "coordination.k8s.io/v1"
    assert listed["spec"]["renewTime"] == LEASE["spec"]["renewTime"]


def test_a_misspelt_field_is_refused(cluster: KubernetesCluster) -> None:
    wrong = {**_route(), "spec": {**_spec("a.example"), "hostname": "b.example"}}
    with pytest.raises(Refused, match=r'unknown field "spec.hostname"'):
        cluster.create(wrong)
    read = cluster.create(_route())
    with pytest.raises(Refused, match=r'unknown field "spec.hostname"'):
        cluster.replace({**read, "spec": wrong["spec"]})
    assert cluster.get("HTTPRoute", "llama") == read


def test_a_dry_run_shows_defaults_and_refusals(cluster: KubernetesCluster) -> None:
    rules = [{"backendRefs": [{"name": "v1", "port": 80}]}]
    would = cluster.create({**_route(), "spec": {"rules": rules}}, dry_run=True)
    assert would["spec"]["rules"][0]["backendRefs"][0]["weight"] == 1
    rules[0]["backendRefs"][0]["weight"] = -1
    with pytest.raises(Refused, match=r"backendRefs\[0\].weight"):
        cluster.create({**_route(), "spec": {"rules": rules}}, dry_run=True)
    assert cluster.list("HTTPRoute") == []


def test_a_dry_run_shows_what_a_policy_refuses(cluster: KubernetesCluster) -> None:
    _forbid_hosts(cluster.api, "forbidden.example", cluster.namespace)
    wrong = _route("wrong", "forbidden.example")

    def refused() -> bool:
        try:
            cluster.create(wrong, dry_run=True)
        except Refused as problem:
            return "not this host" in str(problem)
        return False

    until(refused)  # policies come into force a moment after they were written
    assert cluster.get("HTTPRoute", "wrong") is None
    cluster.create(_route("right"))


def test_kserve_schema_holds(cluster: KubernetesCluster) -> None:
    made = cluster.create(_SERVICE)
    assert cluster.list("InferenceService") == [made]
    wrong = {**_SERVICE, "metadata": {"name": "b"}, "spec": {"predictor": {"minReplicas": "two"}}}
    with pytest.raises(Refused, match="minReplicas"):
        cluster.create(wrong)


def test_what_is_not_installed_is_named(cluster: KubernetesCluster) -> None:
    with pytest.raises(NotServed, match=r"llminferenceservices.serving.kserve.io v1alpha2") as told:
        cluster.list("LLMInferenceService")
    assert "kserve-llmisvc-crd" in told.value.hint
    with pytest.raises(NotServed):
        list(cluster.watch("Gateway", timeout_s=1))
    with pytest.raises(NotServed):
        cluster.get("Gateway", "any")


def test_a_namespace_that_is_not_there_is_named(plane: ControlPlane) -> None:
    with plane.cluster("nowhere") as elsewhere:
        with pytest.raises(Refused, match="namespace nowhere does not exist"):
            elsewhere.create(_route())
        assert elsewhere.get("HTTPRoute", "llama") is None


def test_lists_come_in_pages(cluster: KubernetesCluster) -> None:
    made = [cluster.create(_route(f"r{n}")) for n in range(5)]
    target = Target("HTTPRoute", cluster.namespace)
    found, query = [], {"limit": "2"}
    for expected in (2, 2, 1):
        page = cluster.api.read(target.call("list", query=query))
        assert len(page["items"]) == expected
        found += page["items"]
        query["continue"] = page["metadata"].get("continue", "")
    assert found == made
    assert query["continue"] == ""


def test_finalizers_keep_an_object(cluster: KubernetesCluster) -> None:
    cluster.create(_route(finalizers=["example.com/wait"]))
    cluster.delete("HTTPRoute", "llama")
    ending = cluster.get("HTTPRoute", "llama")
    assert ending is not None
    assert "deletionTimestamp" in ending["metadata"]
    cluster.replace({**ending, "metadata": {**ending["metadata"], "finalizers": []}})
    assert cluster.get("HTTPRoute", "llama") is None


def test_foreground_keeps_an_owner(cluster: KubernetesCluster) -> None:
    cluster.create(CONFIG_MAP)
    cluster.delete("ConfigMap", "settings", foreground=True)
    ending = cluster.get("ConfigMap", "settings")
    assert ending is not None
    assert ending["metadata"]["finalizers"] == ["foregroundDeletion"]


def test_discovery(cluster: KubernetesCluster) -> None:
    assert discovery.server_version(cluster.api).startswith("v1.")
    assert discovery.served(cluster.api, "InferenceService") == ("v1beta1",)
    assert discovery.served(cluster.api, "HTTPRoute") == ("v1", "v1beta1")
    assert discovery.served(cluster.api, "Pod") == ("v1",)
    assert discovery.served(cluster.api, "Gateway") == ()
    assert discovery.may(cluster.api, "delete", "HTTPRoute", cluster.namespace)
    assert discovery.nodes(cluster.api) == []


def test_logs_need_a_pod(cluster: KubernetesCluster) -> None:
    with pytest.raises(Exception, match=r"get Pod log .*/absent: there is none"):
        cluster.logs("absent")


def test_a_limited_account_is_told_which_rule_is_missing(
    plane: ControlPlane, cluster: KubernetesCluster
) -> None:
    token = _account(cluster, verbs=["get"])
    kubeconfig = plane.kubeconfig("limited", token=token)
    made = cluster.create(_route())
    with connect(namespace=cluster.namespace, kubeconfig=str(kubeconfig)) as limited:
        assert limited.get("HTTPRoute", "llama") == made
        who = f"system:serviceaccount:{cluster.namespace}:limited"
        with pytest.raises(Forbidden, match=f"{who} may not update httproutes") as told:
            limited.replace({**made, "spec": _spec("two.example")})
        assert told.value.hint == (
            'missing rule: {apiGroups: ["gateway.networking.k8s.io"], resources: ["httproutes"], '
            f'verbs: ["update"]}} in a Role in namespace {cluster.namespace}; Penstock\'s Roles: '
            "deploy/runner, deploy/controller"
        )
        with pytest.raises(Forbidden, match="may not update httproutes/status"):
            limited.replace_status(made)
        with pytest.raises(Forbidden, match="may not list httproutes"):
            list(limited.watch("HTTPRoute", timeout_s=1))
        with pytest.raises(Forbidden, match="may not list nodes"):
            discovery.nodes(limited.api)
        assert discovery.may(limited.api, "get", "HTTPRoute", cluster.namespace)
        assert not discovery.may(limited.api, "update", "HTTPRoute", cluster.namespace)
        assert token not in str(told.value) + told.value.hint


def test_a_rotated_token_is_read_again(
    plane: ControlPlane, cluster: KubernetesCluster, tmp_path: Path
) -> None:
    (file := tmp_path / "token").write_text("of-yesterday")
    path = plane.kubeconfig("rotating", tokenFile=str(file))
    made = cluster.create(_route())
    with connect(namespace=cluster.namespace, kubeconfig=str(path)) as rotating:
        with pytest.raises(Forbidden, match="does not accept the credentials"):
            rotating.get("HTTPRoute", "llama")
        file.write_text(_account(cluster, verbs=["get"]))
        assert rotating.get("HTTPRoute", "llama") == made


def test_a_pod_uses_the_token_that_lies_there(
    plane: ControlPlane,
    cluster: KubernetesCluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host, port = plane.url.removeprefix("https://").split(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", "/absent")
    (tmp_path / "ca.crt").write_bytes(plane.authority.read_bytes())
    (tmp_path / "token").write_text("of-yesterday")
    (tmp_path / "namespace").write_text(cluster.namespace)
    made, found = cluster.create(_route()), find(account=tmp_path)
    with KubernetesCluster(Api(Session(found.load), Patience()), found.namespace) as inside:
        (tmp_path / "token").write_text(_account(cluster, verbs=["get", "update"]))
        assert inside.get("HTTPRoute", "llama") == made
        inside.replace({**made, "spec": _spec("two.example")})
        with pytest.raises(Forbidden):
            inside.delete("HTTPRoute", "llama")


def test_a_foreign_certificate_is_not_trusted(plane: ControlPlane, tmp_path: Path) -> None:
    def load() -> Any:
        from kubernetes.client import Configuration

        return Configuration(host=plane.url)  # with public authorities only

    access = Access(load, "default")
    with (
        KubernetesCluster(Api(Session(access.load), Patience()), "default") as suspicious,
        pytest.raises(NoAccess, match="certificate verify failed"),
    ):
        suspicious.get("HTTPRoute", "llama")


def test_a_watch_outlives_the_api_server(plane: ControlPlane, cluster: KubernetesCluster) -> None:
    made, found = cluster.create(_route("before")), []

    def look() -> None:
        with plane.cluster(cluster.namespace) as watching:
            for obj in watching.watch("HTTPRoute", timeout_s=60):
                found.append((obj["metadata"]["name"], obj["spec"]["hostnames"]))
                if obj["metadata"]["name"] == "after":
                    return

    watcher = threading.Thread(target=look)
    watcher.start()
    until(lambda: found)
    plane.kill_api()
    writer = threading.Thread(
        target=lambda: cluster.replace({**made, "spec": _spec("two.example")})
    )
    writer.start()  # while nobody answers
    plane.start_api()
    writer.join(30)
    until(lambda: ("before", ["two.example"]) in found)
    cluster.create(_route("after"))
    watcher.join(30)
    assert [name for name, _ in found] == ["before", "before", "after"]


# urllib3 leaves a socket that breaks in its handshake to the collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_writes_happen_once_while_the_api_server_is_killed(
    plane: ControlPlane, cluster: KubernetesCluster
) -> None:
    names, stop = [f"count-{n}" for n in range(4)], threading.Event()
    done = dict.fromkeys(names, 0)

    def count(name: str) -> None:
        made = cluster.create({**CONFIG_MAP, "metadata": {"name": name}, "data": {"count": "0"}})
        while not stop.is_set():
            made = cluster.replace({**made, "data": {"count": str(done[name] + 1)}})
            done[name] += 1

    threads = [threading.Thread(target=count, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for _ in range(2):
        before = sum(done.values())
        until(partial(_beyond, done, before + 40))
        plane.kill_api()
        plane.start_api()
    before = sum(done.values())
    until(lambda: sum(done.values()) > before + 40)
    stop.set()
    for thread in threads:
        thread.join(60)
    found = {o["metadata"]["name"]: o["data"]["count"] for o in cluster.list("ConfigMap")}
    assert {name: found[name] for name in names} == {name: str(done[name]) for name in names}


def test_what_a_watch_missed_is_found_by_listing(
    plane: ControlPlane, cluster: KubernetesCluster
) -> None:
    kept, lost = cluster.create(_route("kept")), cluster.create(_route("lost"))
    seen = cluster.watch("HTTPRoute", timeout_s=60)
    assert [next(seen), next(seen)] == [kept, lost]
    plane.kill_api()
    plane.start_api()
    with plane.cluster(cluster.namespace) as other:
        other.delete("HTTPRoute", "lost")
        made = other.create(_route("made"))
        changed = other.replace({**kept, "spec": _spec("two.example")})
        other.create(LEASE)
    plane.compact()
    plane.kill_api()
    plane.start_api()  # its memory of changes begins now: the watch's version is too old
    ended, *rest = (next(seen) for _ in range(3))
    assert ended["metadata"]["name"] == "lost"
    assert "deletionTimestamp" in ended["metadata"]
    assert rest == [changed, made]
    seen.close()  # type: ignore[attr-defined]


def test_eight_threads_share_an_adapter(cluster: KubernetesCluster) -> None:
    for n in range(8):
        cluster.create(_route(f"r{n}"))

    def work(name: str) -> None:
        for step in range(10):
            read = cluster.get("HTTPRoute", name)
            assert read is not None
            cluster.replace({**read, "spec": _spec(f"h{step}.example")})

    problems: list[BaseException] = []

    def guarded(name: str) -> None:
        try:
            work(name)
        except BaseException as problem:  # noqa: BLE001 - told to the test
            problems.append(problem)

    threads = [threading.Thread(target=guarded, args=(f"r{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert {o["metadata"]["generation"] for o in cluster.list("HTTPRoute")} == {11}


def test_a_conflict_names_object_verb_and_version(cluster: KubernetesCluster) -> None:
    read = cluster.create(_route())
    cluster.replace({**read, "spec": _spec("two.example")})
    version = read["metadata"]["resourceVersion"]
    wanted = f"update HTTPRoute {cluster.namespace}/llama: it has changed since .*{version}"
    with pytest.raises(Conflict, match=wanted):
        cluster.replace(read)


def _forbid_hosts(api: Api, host: str, namespace: str) -> None:
    root = "/apis/admissionregistration.k8s.io/v1"
    rule = {
        "apiGroups": ["gateway.networking.k8s.io"],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": ["httproutes"],
    }
    check = {"expression": f"!('{host}' in object.spec.hostnames)", "message": "not this host"}
    policy = {"matchConstraints": {"resourceRules": [rule]}, "validations": [check]}
    only = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    binding = {"policyName": namespace, "validationActions": ["Deny"], "matchResources": only}
    for plural, spec in (
        ("validatingadmissionpolicies", policy),
        ("validatingadmissionpolicybindings", binding),
    ):
        body = {"metadata": {"name": namespace}, "spec": spec}
        api.read(Call("create", f"{root}/{plural}", plural, body=body))


def _account(cluster: KubernetesCluster, *, verbs: list[str]) -> str:
    """Return a token of a new ServiceAccount with rights on HTTPRoutes only."""
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{cluster.namespace}"
    rules = [{"apiGroups": ["gateway.networking.k8s.io"], "resources": ["httproutes"]}]
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "limited"}
    subject = {"kind": "ServiceAccount", "name": "limited", "namespace": cluster.namespace}
    metadata = {"name": "limited"}
    for path, body in (
        (_path(cluster, "serviceaccounts"), {"metadata": metadata}),
        (f"{rbac}/roles", {"metadata": metadata, "rules": [{**rules[0], "verbs": verbs}]}),
        (f"{rbac}/rolebindings", {"metadata": metadata, "roleRef": role, "subjects": [subject]}),
    ):
        try:
            cluster.api.read(Call("create", path, path, body=body))
        except Conflict:
            continue  # of an earlier account
    path = _path(cluster, "serviceaccounts/limited/token")
    asked = Call("create", path, "a token", body={"spec": {"expirationSeconds": 600}})
    return str(cluster.api.read(asked)["status"]["token"])


def _path(cluster: KubernetesCluster, rest: str) -> str:
    return f"/api/v1/namespaces/{cluster.namespace}/{rest}"


def _beyond(done: Mapping[str, int], least: int) -> bool:
    return sum(done.values()) > least
