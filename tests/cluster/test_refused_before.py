"""What a cluster or an account cannot do is said before anything changes, with the fix.

No Gateway API and an old KServe are told from an API server of its own that lacks them: taking
them from the cluster would take them from every other test. Missing rules are Penstock's own Roles
(`deploy/`) less one rule, on the cluster, beside users.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock.core.errors import ConfigurationError
from penstock.core.settings import Settings
from penstock.core.spec import KServe, ModelSpec
from serving import controller as acting
from serving.kube import connect
from serving.kube.kinds import RESOURCES
from serving.targets.checks import rights_for
from serving.targets.kserve import ClusterTarget, storage_of
from serving.targets.probe import look
from tests.cluster.conftest import Running
from tests.cluster.control_plane import GATEWAY_API, KSERVE, binaries, control_plane
from tests.cluster.places import REPOSITORY
from tests.cluster.served import Served, account, kubectl, penstock, role_of, served
from tests.cluster.stage import NAME
from tests.cluster.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.enable_socket]

SPEC = ModelSpec.model_validate({"name": "m", "source": "hf://a/b"})
OLD = "kserve/kserve-controller:v0.15.2"


@contextmanager
def _bare(folder: Path, crds: Sequence[tuple[str, str]], image: str = "") -> Iterator[Path]:
    """Run an API server that knows some kinds, and KServe's Deployment; yield its kubeconfig."""
    found = binaries()
    if found is None:
        pytest.skip("no etcd and kube-apiserver: make cluster-up, or put them on the PATH")
    with control_plane(found, folder, crds) as plane, plane.cluster("kserve") as kserve:
        for name in ("kserve", "models"):
            kserve.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        if image:
            kserve.create(_manager(image))
        yield plane.kubeconfig()


def _manager(image: str) -> dict[str, Any]:
    labels = {"app": "kserve"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "kserve-controller-manager"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "manager", "image": image}]},
            },
        },
    }


def _target(kubeconfig: str, where: KServe, settings: Settings) -> ClusterTarget:
    """Return a cluster as an account sees it."""
    cluster = connect(namespace=where.namespace, kubeconfig=kubeconfig)
    return ClusterTarget(cluster, where, storage_of(settings), look(cluster, where))


@pytest.mark.parametrize(
    ("crds", "image", "says", "hint"),
    [
        (
            [KSERVE],
            "",
            "HTTPRoute: the cluster does not serve it: Gateway API is not installed",
            "docs/how-to/install-on-a-cluster.md",
        ),
        (
            [GATEWAY_API],
            "",
            "InferenceService: the cluster does not serve it: KServe is not installed",
            "docs/how-to/install-on-a-cluster.md",
        ),
        (
            [KSERVE, GATEWAY_API],
            OLD,
            "kserve: 0.15.2 is too old; allowed: 0.17 and later",
            "upgrade KServe to 0.17 or later",
        ),
    ],
    ids=["no Gateway API", "no KServe", "old KServe"],
)
def test_a_cluster_that_cannot_is_refused_with_the_fix(
    tmp_path: Path, crds: list[tuple[str, str]], image: str, says: str, hint: str
) -> None:
    with _bare(tmp_path, crds, image) as kubeconfig:
        target = _target(str(kubeconfig), KServe(), Settings(home=tmp_path))
        with pytest.raises(ConfigurationError) as problem:
            target.require(SPEC)
        assert (says, True) == (str(problem.value), hint in problem.value.hint)
        code, said = penstock("doctor", "--namespace", "models", KUBECONFIG=str(kubeconfig))
        name, _, found = says.partition(": ")
        assert code == ConfigurationError.exit_code
        assert any(line.split(maxsplit=2) == ["✗", name, found] for line in said.splitlines())
        assert f"next: {hint}" in said


@pytest.fixture(scope="module")
def there(cluster: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A version with users; nobody looks after rollouts."""
    with served(tmp_path_factory.mktemp("served")) as found:
        yield found


def _rules(of: str) -> list[dict[str, Any]]:
    """Return the rules of a Role as it is shipped."""
    role, *_ = yaml.safe_load_all((REPOSITORY / "deploy" / of / "role.yaml").read_text())
    found: list[dict[str, Any]] = role["rules"]
    return found


def test_a_runner_without_a_rule_is_told_which_before_it_begins(there: Served) -> None:
    stage, rules = there.stage, _rules("runner")
    full = rights_for("route")
    with account(stage, "runner", rules) as kubeconfig:
        target = _target(kubeconfig, stage.target.where, stage.settings)
        target.require(stage.spec())
        for number, rule in enumerate(rules):
            missing = _granted(full, rule)
            if not missing:
                continue  # the other mechanism's
            less = role_of("runner", [*rules[:number], *rules[number + 1 :]])
            kubectl(stage, "apply", "-f", "-", given=[less])
            until("the Role", partial(_is_refused_for, target, stage.spec(), missing))
            with pytest.raises(ConfigurationError) as problem:
                target.require(stage.spec())
            assert f"kubectl -n {stage.namespace} apply -k deploy/runner" in problem.value.hint
            assert "--role=penstock-runner" in problem.value.hint
        code, said = penstock("doctor", *stage.options, KUBECONFIG=kubeconfig)
        assert code == ConfigurationError.exit_code
        assert (
            f"✗ rights           missing in namespace {stage.namespace}: list Pod, list Event"
            in said
        )
    there.untouched()


def _granted(rights: Sequence[tuple[str, Any]], rule: dict[str, Any]) -> str:
    """Return the refusal that follows from a rule that is not there; empty if nobody needs it."""
    kinds = {
        kind
        for kind, resource in RESOURCES.items()
        if resource.group in rule["apiGroups"] and resource.plural in rule["resources"]
    }
    return ", ".join(
        f"{verb} {kind}" for verb, kind in rights if kind in kinds and verb in rule["verbs"]
    )


def _is_refused_for(target: ClusterTarget, spec: ModelSpec, missing: str) -> bool:
    try:
        target.require(spec)
    except ConfigurationError as problem:
        return str(problem).endswith(f"missing in namespace {target.where.namespace}: {missing}")
    return False


def test_a_controller_without_a_rule_says_which_and_goes_on_when_it_has_it(there: Served) -> None:
    stage, rules = there.stage, _rules("controller")
    reads_only = [
        {**rule, "verbs": [verb for verb in rule["verbs"] if verb != "update"]}
        if rule["resources"] == ["httproutes"]
        else rule
        for rule in rules
    ]
    with account(stage, "controller", reads_only) as kubeconfig:
        process = stage.controller(KUBECONFIG=kubeconfig)
        try:
            stage.begin(there.next())
            who = f"system:serviceaccount:{stage.namespace}:controller"
            says = f"{who} may not update httproutes in namespace {stage.namespace}; next: missing"
            until("the refusal", lambda: says in stage.logs())
            assert 'resources: ["httproutes"], verbs: ["update"]}' in stage.logs()
            assert "Penstock's Roles: deploy/runner, deploy/controller" in stage.logs()
            assert stage.record.phase == "deploying"
            assert stage.target.observed(NAME) == {"m-v1": 100}
            assert there.users.failures == []
            kubectl(stage, "apply", "-f", "-", given=[role_of("controller", rules)])
            stage.until(lambda record: record.phase != "deploying")
            target = stage.target
            acting.command(target.cluster, target.log, NAME, "rollback", target.traffic)
            assert stage.until(lambda record: record.over).phase == "rolled_back"
            assert stage.gone(f"{NAME}-v{there.version}")
        finally:
            process.terminate()
            process.wait(60)
    there.untouched()


def test_a_controller_that_may_not_see_pods_still_rolls_back(there: Served) -> None:
    stage = there.stage
    blind = [rule for rule in _rules("controller") if "pods" not in rule["resources"]]
    with account(stage, "blind", blind) as kubeconfig:
        process = stage.controller(KUBECONFIG=kubeconfig)
        try:
            with there.otherwise(cpu="100"):
                reason = there.rolled_back()
        finally:
            process.terminate()
            process.wait(60)
    assert "the candidate is not ready after " in reason
    assert f"may not list pods in namespace {stage.namespace}; missing rule: " in reason
