"""The way into a cluster, and what is said when there is none."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from serving.kube import access
from serving.kube.access import find
from serving.kube.errors import NoAccess


def _config(folder: Path, user: dict[str, Any], **context: str) -> str:
    inside = {"cluster": "c", "user": "u", **context}
    path = folder / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
                "users": [{"name": "u", "user": user}],
                "contexts": [
                    {"name": "prod", "context": inside},
                    {"name": "dev", "context": {**inside, "namespace": "sandbox"}},
                ],
                "current-context": "prod",
            }
        )
    )
    return str(path)


def _plugin(folder: Path, script: str) -> dict[str, Any]:
    path = folder / "login"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    version = "client.authentication.k8s.io/v1"
    return {"exec": {"apiVersion": version, "command": str(path), "interactiveMode": "Never"}}


def test_the_current_context_or_another(tmp_path: Path) -> None:
    path = _config(tmp_path, {"token": "t"}, namespace="models")
    assert find(kubeconfig=path).namespace == "models"
    assert find("dev", kubeconfig=path).namespace == "sandbox"
    loaded = find("dev", kubeconfig=path).load()
    assert loaded.host == "http://127.0.0.1:1"
    assert loaded.get_api_key_with_prefix("authorization") == "Bearer t"


def test_a_context_without_a_namespace_means_default(tmp_path: Path) -> None:
    assert find(kubeconfig=_config(tmp_path, {"token": "t"})).namespace == "default"


def test_an_unknown_context_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(NoAccess, match="no context 'stage'") as told:
        find("stage", kubeconfig=_config(tmp_path, {"token": "t"}))
    assert told.value.hint == "it has: dev, prod"


def test_no_kubeconfig(tmp_path: Path) -> None:
    missing = str(tmp_path / "none")
    with pytest.raises(NoAccess, match=f"no kubeconfig at {missing}") as told:
        find(kubeconfig=missing)
    assert "KUBECONFIG" in told.value.hint


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "contexts: 3", '{"contexts": []}'])
def test_a_broken_kubeconfig(tmp_path: Path, text: str) -> None:
    (path := tmp_path / "kubeconfig").write_text(text)
    with pytest.raises(NoAccess, match="not a usable kubeconfig"):
        find(kubeconfig=str(path))


def test_a_missing_certificate_is_named(tmp_path: Path) -> None:
    user = {"client-certificate": str(tmp_path / "absent.crt"), "client-key": "absent.key"}
    path = Path(_config(tmp_path, user))
    path.write_text(path.read_text().replace("http://", "https://"))
    with pytest.raises(NoAccess, match=r"context prod of .*absent.crt"):
        find(kubeconfig=str(path)).load()


def test_an_exec_plugin_is_run(tmp_path: Path) -> None:
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": "fresh"},
    }
    path = _config(tmp_path, _plugin(tmp_path, f"echo '{json.dumps(credential)}'"))
    loaded = find(kubeconfig=path).load()
    assert loaded.get_api_key_with_prefix("authorization") == "Bearer fresh"


def test_an_exec_plugin_that_fails_is_no_anonymous_login(tmp_path: Path) -> None:
    path = _config(tmp_path, _plugin(tmp_path, "echo expired >&2; exit 1"))
    with pytest.raises(NoAccess, match=r"exec plugin .*login gave no credentials"):
        find(kubeconfig=path).load()


def test_a_proxy_is_the_kubeconfigs_or_the_environments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    path = Path(_config(tmp_path, {"token": "t"}))
    here = path.read_text()
    assert find(kubeconfig=str(path)).load().proxy is None
    path.write_text(here.replace("http://127.0.0.1:1", "https://api.example:6443"))
    assert find(kubeconfig=str(path)).load().proxy is None
    monkeypatch.setenv("https_proxy", "http://gate:3128")
    assert find(kubeconfig=str(path)).load().proxy == "http://gate:3128"
    monkeypatch.setenv("no_proxy", ".example")
    assert find(kubeconfig=str(path)).load().proxy is None
    path.write_text(here.replace('"server"', '"proxy-url": "socks5://jump:1080", "server"'))
    assert find(kubeconfig=str(path)).load().proxy == "socks5://jump:1080"


def test_a_pod_uses_its_service_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    _no_kubeconfig(monkeypatch)
    for name, text in (("token", "first\n"), ("ca.crt", "certificate"), ("namespace", "models")):
        (tmp_path / name).write_text(text)
    found = find(account=tmp_path)
    assert found.namespace == "models"
    loaded = found.load()
    assert loaded.host == "https://10.96.0.1:443"
    assert loaded.get_api_key_with_prefix("authorization") == "Bearer first"
    (tmp_path / "token").write_text("second\n")
    assert loaded.get_api_key_with_prefix("authorization") == "Bearer second"
    (tmp_path / "token").unlink()
    with pytest.raises(NoAccess, match="ServiceAccount of this pod"):
        loaded.get_api_key_with_prefix("authorization")


def test_outside_of_a_pod_there_is_no_service_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _no_kubeconfig(monkeypatch)
    with pytest.raises(NoAccess, match="this is no pod"):
        find(account=tmp_path)
    assert access.ACCOUNT.name == "serviceaccount"


def _no_kubeconfig(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", "/absent")
