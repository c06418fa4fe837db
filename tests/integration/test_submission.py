"""Who asks, over what, and what is refused: tokens, cookies, TLS, namespaces; and publishing."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.core.errors import LifecycleError
from pipelines.submission.client import SubmissionClient, connect
from pipelines.submission.errors import Denied, Missing, NoBackEnd, OtherVersion, Rejected
from pipelines.submission.package import package_of
from pipelines.submission.publishing import newest, publish, published
from pipelines.submission.settings import KfpSettings
from pipelines.submission.values import NewRecurringRun, NewRun, Trigger
from tests.fakes.kfp import Double, Fault, kfp_server
from tests.fakes.kfp.faked_time import FakedTime

pytestmark = pytest.mark.integration
PACKAGE = package_of((Path(__file__).parents[1] / "golden/pipelines/lifecycle.yaml").read_text())
SECRET = "eyJhbGciOi.secret.token"


def test_a_token_is_read_again_for_each_request(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    with kfp_server() as double:
        with connect(KfpSettings(url=double.url, token_file=token)) as client:
            client.health()
            token.write_text("second\n")
            client.health()
        assert double.access.seen == ["Bearer first", "Bearer second"]


def test_a_token_that_rotates_under_a_request_is_sent_again(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first")
    with kfp_server() as double:
        double.access.token = "second"
        double.faults.append(
            Fault("status", status=401, meanwhile=lambda: token.write_text("second"))
        )
        with connect(KfpSettings(url=double.url, token_file=token)) as client:
            client.health()
        assert len(double.requests) == 2


def test_no_error_repeats_a_secret(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(SECRET)
    with kfp_server() as double:
        double.access.token = "another"  # the server repeats what it got
        settings = KfpSettings(url=double.url, token_file=token, cookies="session=hiddencookie")
        with connect(settings) as client, pytest.raises(Denied) as refused:
            client.experiments.named("x")
        told = f"{refused.value} {refused.value.hint} {settings!r}"
        assert "401" in told
        assert SECRET not in told
        assert "hiddencookie" not in told


def test_a_cookie_opens_what_a_login_page_closes() -> None:
    with kfp_server() as double:
        double.access.cookie = "session=good"
        with connect(KfpSettings(url=double.url)) as client, pytest.raises(Denied, match="login"):
            client.health()
        with connect(KfpSettings(url=double.url, cookies="session=good")) as client:
            assert client.health().multi_user is False


def test_a_certificate_is_trusted_by_name_of_its_file(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with kfp_server(tls) as double:
        with connect(KfpSettings(url=double.url)) as client:
            with pytest.raises(NoBackEnd, match="is not trusted") as refused:
                client.health()
            assert "PENSTOCK_KFP_CA_FILE" in refused.value.hint
        with connect(KfpSettings(url=double.url, ca_file=certificate)) as client:
            client.health()


def _several_users(double: Double, *namespaces: str) -> None:
    def change() -> None:
        double.store.multi_user = True
        double.access.allowed = set(namespaces)

    double.do(change)


def test_another_s_namespace_is_forbidden_and_named() -> None:
    with kfp_server() as double:
        _several_users(double, "team-a")
        settings = KfpSettings(url=double.url, namespace="team-b")
        with connect(settings, FakedTime().patience()) as client:
            calls: list[Callable[[], object]] = [
                lambda: client.experiments.ensure("x"),
                client.runs.list,
                lambda: client.pipelines.create("p"),
                client.schedules.list,
            ]
            for call in calls:
                with pytest.raises(Denied, match="namespace team-b") as refused:
                    call()
                assert "-n team-b" in refused.value.hint


def test_a_namespace_that_is_not_there_is_named_and_nothing_runs() -> None:
    with kfp_server() as double:
        _several_users(double, "ghost")
        settings = KfpSettings(url=double.url, namespace="ghost")
        with connect(settings, FakedTime().patience()) as client:
            stored = publish(client, PACKAGE)
            group = client.experiments.ensure("x")
            pipeline_id, version_id = stored.pipeline.pipeline_id, stored.version.version_id
            new = NewRun("r", group.experiment_id, pipeline_id, version_id, {"spec": "{}"})
            with pytest.raises(Rejected, match="there is no namespace ghost"):
                client.runs.create(new)
        assert double.store.runs == []


LOST = [Fault("drop", "POST", executed=True), Fault("drop", "POST"), Fault("status", status=503)]


@pytest.mark.parametrize("fault", LOST, ids=["after", "before", "503"])
@pytest.mark.parametrize("path", ["upload_version", "/pipelines", ""])
def test_publishing_twice_uploads_once_whatever_is_lost(fault: Fault, path: str) -> None:
    with kfp_server() as double:
        double.faults.append(Fault(fault.kind, "POST", path, executed=fault.executed))
        with connect(KfpSettings(url=double.url), FakedTime().patience()) as client:
            first = publish(client, PACKAGE)
            uploads = [r for r in double.requests if "upload_version" in r]
            second = publish(client, PACKAGE)
        assert second.version.version_id == first.version.version_id
        assert (second.uploaded, len(double.store.versions)) == (False, 1)
        assert [r for r in double.requests if "upload_version" in r] == uploads


def _problem(call: Callable[[], object]) -> LifecycleError:
    with pytest.raises(LifecycleError) as refused:
        call()
    return refused.value


def test_what_another_penstock_published_is_refused() -> None:
    with kfp_server() as double, connect(KfpSettings(url=double.url)) as client:
        assert isinstance(_problem(lambda: published(client, PACKAGE)), Missing)
        assert isinstance(_problem(lambda: newest(client, PACKAGE.name)), Missing)
        stored = publish(client, PACKAGE)
        assert newest(client, PACKAGE.name).version == stored.version
        double.advance(1)  # what is published later is newer by a second at least
        name = "9.9.9-0123456789ab"
        client.pipelines.add_version(stored.pipeline.pipeline_id, name, PACKAGE.text)
        for call in (
            lambda: published(client, PACKAGE, version=name),
            lambda: newest(client, PACKAGE.name),
        ):
            problem = _problem(call)
            assert isinstance(problem, OtherVersion)
            assert "9.9.9" in str(problem)
            assert "pip install penstock==9.9.9" in problem.hint


def _recurring(client: SubmissionClient) -> NewRecurringRun:
    stored = publish(client, PACKAGE)
    group = client.experiments.ensure("x")
    trigger = Trigger(cron="0 0 3 * * *")
    return NewRecurringRun(
        "nightly", group.experiment_id, stored.pipeline.pipeline_id, trigger, {"spec": "{}"}
    )


@pytest.mark.parametrize("executed", [True, False])
def test_a_recurring_run_is_created_once_whatever_is_lost(executed: bool) -> None:
    with (
        kfp_server() as double,
        connect(KfpSettings(url=double.url), FakedTime().patience()) as client,
    ):
        new = _recurring(client)
        double.faults.append(Fault("drop", "POST", "recurringruns", executed=executed))
        made = client.schedules.create(new)
        assert [row.body["recurring_run_id"] for row in double.store.schedules] == [
            made.recurring_run_id
        ]


def test_a_failed_run_is_retried_once_whatever_is_lost() -> None:
    with (
        kfp_server() as double,
        connect(KfpSettings(url=double.url), FakedTime().patience()) as client,
    ):
        recurring = _recurring(client)
        version = client.pipelines.versions(recurring.pipeline_id)[0]
        double.store.script = lambda row: ["RUNNING"] * 9 if row.attempt else ["FAILED"]
        made = client.runs.create(
            NewRun(
                "r",
                recurring.experiment_id,
                recurring.pipeline_id,
                version.version_id,
                {"spec": "{}"},
            )
        )
        assert client.runs.get(made.run_id).state == "FAILED"
        double.faults.append(Fault("drop", "POST", ":retry", executed=True))
        assert client.runs.retry(made.run_id).state in ("PENDING", "RUNNING")
        assert double.store.runs[0].attempt == 1
