"""The adapter on a server and a network that fail: what was asked happens once, or is told."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.core.errors import Conflict
from serving.cluster import Object
from serving.kube import KubernetesCluster, connect, discovery
from serving.kube.errors import Forbidden, NotServed, Refused, Unreachable
from serving.kube.patience import Patience
from tests.contract.test_cluster import LEASE, _route, _spec, _status
from tests.fakes.apiserver import USER, ApiServer, Fault, api_server
from tests.fakes.apistore import Where

ROUTES = Where("gateway.networking.k8s.io", "httproutes", "models", "llama")


class Clock:
    """Time that passes only while somebody pauses."""

    def __init__(self) -> None:
        self.now, self.pauses = 0.0, list[float]()

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def patience(self, request_s: float = 5.0) -> Patience:
        return Patience(
            request_s=request_s, clock=lambda: self.now, pause=self.pause, jitter=lambda: 1.0
        )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    with api_server(tmp_path) as started:
        yield started


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cluster(server: ApiServer, clock: Clock) -> Iterator[KubernetesCluster]:
    with server.cluster(clock.patience()) as made:
        yield made


def _create(cluster: KubernetesCluster, _: Object) -> Object:
    return cluster.create(_route("new"))


def _replace(cluster: KubernetesCluster, read: Object) -> Object:
    return cluster.replace({**read, "spec": _spec("two.example")})


def _replace_status(cluster: KubernetesCluster, read: Object) -> Object:
    return cluster.replace_status({**read, "status": _status("Accepted")})


def _delete(cluster: KubernetesCluster, read: Object) -> None:
    cluster.delete("HTTPRoute", "llama", read=read)


WRITES = {"POST": _create, "PUT": _replace, "PUT status": _replace_status, "DELETE": _delete}
FAULTS = {
    "dropped before": Fault(drop=True, times=2),
    "dropped after": Fault(drop=True, executed=True),
    "dropped before, then after": Fault(drop=True),
    "busy": Fault(status=429, headers={"Retry-After": "2"}, times=3),
    "failed": Fault(status=500, message='failed calling webhook "w"'),
    "timed out, yet executed": Fault(status=504, executed=True),
    "unavailable": Fault(status=503, times=3),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("write", WRITES)
def test_a_write_happens_once_whatever_becomes_of_its_answer(
    server: ApiServer, cluster: KubernetesCluster, write: str, fault: str
) -> None:
    read = cluster.create(_route())
    before, given = server.store.version, FAULTS[fault]
    method = write.partition(" ")[0]
    server.faults = [
        Fault(
            method, "", given.times, given.status, given.headers, given.message, given.drop,
            executed=given.executed,
        )
    ]  # fmt: skip
    if "then after" in fault:
        server.faults.append(Fault(method, drop=True, executed=True))
    stored = WRITES[write](cluster, read)
    assert server.store.version == before + 1
    assert all(fault.times == 0 for fault in server.faults)
    if stored is None:
        assert cluster.list("HTTPRoute") == []
    else:
        assert cluster.get("HTTPRoute", stored["metadata"]["name"]) == stored


@pytest.mark.parametrize("write", WRITES)
def test_a_write_that_lands_late_changes_nothing_more(server: ApiServer, write: str) -> None:
    with server.cluster(Patience(request_s=0.1)) as cluster:
        read = cluster.create(_route())
        before, method = server.store.version, write.partition(" ")[0]
        server.faults = [Fault(method, slow_s=0.4)]  # executed when nobody listens any more
        WRITES[write](cluster, read)
        after = len([request for request in server.requests if request.startswith(method)])
        assert after >= 2
        while sum(fault.times for fault in server.faults):
            threading.Event().wait(0.01)
        threading.Event().wait(0.5)
        assert server.store.version == before + 1


def test_a_lost_answer_is_no_success_when_somebody_else_wrote(
    server: ApiServer, cluster: KubernetesCluster
) -> None:
    read = cluster.create(_route())
    theirs = {**read, "spec": _spec("theirs.example")}
    server.faults = [
        Fault("PUT", drop=True, meanwhile=lambda: server.store.replace(ROUTES, theirs, {}))
    ]
    with pytest.raises(Conflict, match="whether this write was part of that is unknown"):
        cluster.replace({**read, "spec": _spec("ours.example")})
    stored = cluster.get("HTTPRoute", "llama")
    assert stored is not None
    assert stored["spec"] == theirs["spec"]


def test_a_lost_answer_is_no_success_when_somebody_else_created_or_deleted(
    server: ApiServer, cluster: KubernetesCluster
) -> None:
    theirs = _route(host="theirs.example")
    server.faults = [
        Fault("POST", drop=True, meanwhile=lambda: server.store.create(ROUTES, theirs, {}))
    ]
    with pytest.raises(Conflict, match="exists already"):
        cluster.create(_route())
    read = cluster.get("HTTPRoute", "llama")
    assert read is not None
    server.faults = [Fault("PUT", drop=True, meanwhile=lambda: server.store.delete(ROUTES, {}))]
    with pytest.raises(Conflict, match="gone"):
        cluster.replace(read)


def test_a_first_attempt_that_lands_before_the_second_is_a_success(
    server: ApiServer, cluster: KubernetesCluster
) -> None:
    read = cluster.create(_route())
    ours = {**read, "spec": _spec("two.example")}
    late = Fault("PUT", meanwhile=lambda: server.store.replace(ROUTES, ours, {}))
    server.faults = [Fault("PUT", drop=True), late]
    stored = cluster.replace(ours)
    assert stored == cluster.get("HTTPRoute", "llama")
    assert stored["spec"] == ours["spec"]
    new = Where(ROUTES.group, ROUTES.plural, "models", "new")
    late = Fault("POST", meanwhile=lambda: server.store.create(new, _route("new"), {}))
    server.faults = [Fault("POST", drop=True), late]
    assert cluster.create(_route("new")) == cluster.get("HTTPRoute", "new")


def test_a_namesake_is_not_deleted(server: ApiServer, cluster: KubernetesCluster) -> None:
    cluster.create(_route())

    def another() -> None:
        server.store.delete(ROUTES, {})
        server.store.create(ROUTES, _route(host="namesake.example"), {})

    server.faults = [Fault("DELETE", meanwhile=another)]
    cluster.delete("HTTPRoute", "llama")
    found = cluster.get("HTTPRoute", "llama")
    assert found is not None
    assert found["spec"] == _spec("namesake.example")


def test_a_namesake_is_not_deleted_by_a_repeated_delete(
    server: ApiServer, cluster: KubernetesCluster
) -> None:
    cluster.create(_route())

    def again() -> None:
        server.store.create(ROUTES, _route(host="namesake.example"), {})

    server.faults = [Fault("DELETE", drop=True, executed=True, meanwhile=again)]
    cluster.delete("HTTPRoute", "llama")
    found = cluster.get("HTTPRoute", "llama")
    assert found is not None
    assert found["spec"] == _spec("namesake.example")


def test_a_read_is_repeated_until_the_patience_ends(
    server: ApiServer, cluster: KubernetesCluster, clock: Clock
) -> None:
    server.faults = [Fault("GET", status=503, times=10**6)]
    with pytest.raises(Unreachable, match=r"get HTTPRoute models/llama: .*503.*attempts: \d+"):
        cluster.get("HTTPRoute", "llama")
    assert 20 < sum(clock.pauses) <= 30
    assert clock.pauses[:4] == pytest.approx([0.1, 0.2, 0.4, 0.8])


def test_the_server_says_how_long_to_wait(
    server: ApiServer, cluster: KubernetesCluster, clock: Clock
) -> None:
    server.faults = [Fault("GET", status=429, headers={"Retry-After": "7"})]
    assert cluster.get("HTTPRoute", "llama") is None
    assert clock.pauses == [7.0]
    server.faults = [Fault("GET", status=429, headers={"Retry-After": "31"})]
    with pytest.raises(Unreachable):
        cluster.get("HTTPRoute", "llama")
    assert clock.pauses == [7.0]  # there was no time for that


def test_what_is_unknown_is_said_to_be(server: ApiServer, cluster: KubernetesCluster) -> None:
    read = cluster.create(_route())
    server.faults = [Fault("PUT", drop=True), Fault("GET", status=503, times=10**6)]
    with pytest.raises(Unreachable, match="whether it was executed is unknown") as told:
        _replace(cluster, read)
    assert "read it before you write again" in told.value.hint


def test_nobody_listens(tmp_path: Path, clock: Clock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = ApiServer(tmp_path)
    server.url = url
    server._loop.close()
    with server.cluster(clock.patience()) as cluster:
        with pytest.raises(Unreachable, match=f"no answer from {url} .*refused") as told:
            cluster.list("Lease")
        assert "kubectl get --raw /readyz" in told.value.hint
        with pytest.raises(Unreachable) as not_sent:
            cluster.create(LEASE)
        assert not not_sent.value.executed


def test_one_refused_write_is_sent_once(server: ApiServer, cluster: KubernetesCluster) -> None:
    server.store.admission = lambda _: "weights add up to 110"
    with pytest.raises(Refused, match="denied the request: weights add up to 110") as told:
        cluster.create(_route(), dry_run=True)
    assert "guard.example" in told.value.hint
    assert len(server.requests) == 1


def test_a_missing_right_is_named(server: ApiServer, cluster: KubernetesCluster) -> None:
    read = cluster.create(_route())
    server.denied = {("update", "httproutes"), ("watch", "httproutes")}
    with pytest.raises(Forbidden, match=f"{USER} may not update httproutes"):
        _replace(cluster, read)
    with pytest.raises(Forbidden, match="may not watch httproutes in namespace models"):
        list(cluster.watch("HTTPRoute", timeout_s=5))
    assert not discovery.may(cluster.api, "update", "HTTPRoute", "models")
    assert discovery.may(cluster.api, "get", "HTTPRoute", "models")


def test_what_is_served_is_found_out(server: ApiServer, cluster: KubernetesCluster) -> None:
    assert discovery.server_version(cluster.api) == "v1.34.4"
    assert discovery.served(cluster.api, "LLMInferenceService") == ("v1alpha2",)
    server.unserved = {"llminferenceservices"}
    assert discovery.served(cluster.api, "LLMInferenceService") == ()
    assert discovery.served(cluster.api, "Pod") == ("v1",)
    with pytest.raises(NotServed):
        cluster.list("LLMInferenceService")


def test_a_new_token_is_used_after_the_old_one_is_refused(
    server: ApiServer, tmp_path: Path
) -> None:
    (file := tmp_path / "token").write_text("valid")
    path = server.kubeconfig(tokenFile=str(file))
    with connect(kubeconfig=str(path)) as cluster:
        made = cluster.create(_route())
        server.token = "next"
        with pytest.raises(Forbidden, match="does not accept the credentials") as told:
            _replace(cluster, made)
        file.write_text("next")
        assert _replace(cluster, made)["spec"] == _spec("two.example")

        def rotate() -> None:
            server.token = "third"
            file.write_text("third")

        rotated = Fault("GET", "watch=", meanwhile=rotate)
        server.faults = [rotated]
        assert list(cluster.watch("HTTPRoute", timeout_s=0.2))
        assert rotated.times == 0
    assert "valid" not in str(told.value) + told.value.hint


def test_threads_renew_a_token_together(server: ApiServer, tmp_path: Path) -> None:
    (file := tmp_path / "token").write_text("valid")
    with connect(kubeconfig=str(server.kubeconfig(tokenFile=str(file)))) as cluster:
        made = cluster.create(_route())
        server.token = "next"
        file.write_text("next")
        start, found = threading.Barrier(8), list[Object | None]()

        def read() -> None:
            start.wait()
            found.append(cluster.get("HTTPRoute", "llama"))

        threads = [threading.Thread(target=read) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [made] * 8


def test_pages_are_joined(server: ApiServer, cluster: KubernetesCluster) -> None:
    made = [cluster.create(_route(f"r{n:04}")) for n in range(501)]
    server.requests.clear()
    assert cluster.list("HTTPRoute") == made
    assert len(server.requests) == 2


def test_a_page_that_is_too_old_begins_again(server: ApiServer, cluster: KubernetesCluster) -> None:
    made = [cluster.create(_route(f"r{n:04}")) for n in range(501)]
    server.faults = [Fault("GET", "continue=", status=410)]
    assert cluster.list("HTTPRoute") == made


def _gap(server: ApiServer, *, forget: bool) -> None:
    server.store.delete(Where(ROUTES.group, ROUTES.plural, "models", "lost"), {})
    server.store.create(ROUTES, _route("made"), {})
    if forget:
        server.store.compact()
    server.break_watches()


@pytest.mark.parametrize("forget", [False, True], ids=["goes on", "410"])
def test_a_watch_that_broke_off_misses_nothing(server: ApiServer, forget: bool) -> None:
    with server.cluster() as cluster:
        cluster.create(_route("kept"))
        cluster.create(_route("lost"))
        seen = cluster.watch("HTTPRoute", timeout_s=30)
        assert [next(seen)["metadata"]["name"] for _ in range(2)] == ["kept", "lost"]
        _gap(server, forget=forget)
        ended, made = next(seen), next(seen)
        assert ended["metadata"]["name"] == "lost"
        assert "deletionTimestamp" in ended["metadata"]
        assert made["metadata"]["name"] == "made"
        seen.close()  # type: ignore[attr-defined]
        lists = [r for r in server.requests if "limit=" in r]
        assert len(lists) == 1 + forget


def test_bookmarks_keep_a_quiet_watch_young(server: ApiServer) -> None:
    with server.cluster() as cluster:
        cluster.create(_route("old"))
        seen = cluster.watch("HTTPRoute", timeout_s=30)
        next(seen)
        found, watcher = _later(seen)
        for n in range(5):  # of another kind: only bookmarks tell
            cluster.create({**LEASE, "metadata": {"name": f"l{n}"}})
        _until(lambda: any("resourceVersion=" in r for r in server.requests))
        threading.Event().wait(0.2)
        server.store.compact()
        server.break_watches()
        made = cluster.create(_route("new"))
        watcher.join(20)
        assert found == [made]
        assert len([r for r in server.requests if "limit=" in r]) == 1


@pytest.mark.parametrize(
    "fault",
    [Fault("GET", "watch=", drop=True, times=2), Fault("GET", "watch=", status=503, times=2)],
    ids=["dropped", "503"],
)
def test_a_watch_is_opened_again(server: ApiServer, fault: Fault) -> None:
    with server.cluster() as cluster:
        cluster.create(_route("old"))
        server.faults = [fault]
        seen = cluster.watch("HTTPRoute", timeout_s=30)
        next(seen)
        found, watcher = _later(seen)
        made = cluster.create(_route("new"))
        watcher.join(20)
        assert found == [made]
        assert fault.times == 0


def test_a_watch_ends_in_time_when_the_server_stays_away(
    server: ApiServer, cluster: KubernetesCluster, clock: Clock
) -> None:
    cluster.create(_route("old"))
    server.faults = [Fault("GET", "watch=", status=503, times=10**6)]
    assert len(list(cluster.watch("HTTPRoute", timeout_s=3))) == 1
    assert clock.now == pytest.approx(3)
    gone, away = Fault("GET", "watch=", status=410), Fault("GET", status=503, times=10**6)
    gone.meanwhile = lambda: server.faults.append(away)  # the list after it fails too
    server.faults = [gone]
    assert len(list(cluster.watch("HTTPRoute", timeout_s=3))) == 1
    assert clock.now == pytest.approx(6)


def test_finalizers_keep_an_object(cluster: KubernetesCluster) -> None:
    cluster.create(_route(finalizers=["example.com/wait"]))
    cluster.delete("HTTPRoute", "llama")
    ending = cluster.get("HTTPRoute", "llama")
    assert ending is not None
    assert "deletionTimestamp" in ending["metadata"]
    cluster.replace({**ending, "metadata": {**ending["metadata"], "finalizers": []}})
    assert cluster.get("HTTPRoute", "llama") is None


def test_writes_are_strict_and_name_penstock(server: ApiServer, cluster: KubernetesCluster) -> None:
    read = cluster.create(_route())
    _replace(cluster, read)
    writes = [r for r in server.requests if not r.startswith("GET")]
    assert all("fieldValidation=Strict&fieldManager=penstock" in write for write in writes)
    assert len(writes) == 2


def test_logs_are_text(cluster: KubernetesCluster) -> None:
    assert cluster.logs("llama-0", lines=7) == "log of llama-0, 7 lines\n"


def _later(seen: Iterator[Object]) -> tuple[list[Object], threading.Thread]:
    found: list[Object] = []
    watcher = threading.Thread(target=lambda: found.append(next(seen)))
    watcher.start()
    return found, watcher


def _until(done: Callable[[], bool]) -> None:
    for _ in range(1000):
        if done():
            return
        threading.Event().wait(0.01)
    pytest.fail("not in time")
