"""The way into a cluster: a context of a kubeconfig, or the ServiceAccount of a pod.

The kubernetes client reads both, runs exec plugins and reads KUBECONFIG and
KUBERNETES_SERVICE_HOST, as everything that speaks to Kubernetes does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from serving.kube.errors import NoAccess

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its ServiceAccount."""


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach one cluster."""

    load: Callable[[], Any]
    """Returns the kubernetes client's `Configuration`; called again when credentials expire."""

    namespace: str
    """The namespace that the context or the pod names; `default` if it names none."""


def find(context: str = "", *, kubeconfig: str = "", account: Path = ACCOUNT) -> Access:
    """Return the way into a cluster; `NoAccess` says what is missing.

    Args:
        context: A context of the kubeconfig; empty for the current one.
        kubeconfig: The file; empty for KUBECONFIG, then `~/.kube/config`, and where there is
            neither, the ServiceAccount of the pod this runs in.
        account: Where the ServiceAccount is mounted.
    """
    from kubernetes.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION

    files = kubeconfig or KUBE_CONFIG_DEFAULT_LOCATION
    exists = any(Path(file).expanduser().is_file() for file in files.split(":") if file)
    if exists:
        return _of_kubeconfig(files, context)
    if not context and not kubeconfig and (account / "token").is_file():
        return _in_cluster(account)
    raise NoAccess(
        f"no kubeconfig at {files}, and this is no pod with a ServiceAccount",
        hint="set KUBECONFIG, or log in with your cluster's own command line",
    )


def _of_kubeconfig(files: str, context: str) -> Access:
    chosen = _context(files, context)
    name, inside = chosen["name"], chosen.get("context") or {}

    def load() -> Any:
        from kubernetes.client import Configuration
        from kubernetes.config import ConfigException, load_kube_config

        loaded = Configuration()
        try:
            load_kube_config(files, name, loaded, persist_config=False)
        except (ConfigException, OSError, ValueError) as problem:
            raise NoAccess(f"context {name} of {files} cannot be used: {problem}") from problem
        return _through_proxy(loaded, _proxy_url(files, name))

    return Access(_with_credentials(load, files, name), inside.get("namespace") or "default")


def _context(files: str, context: str) -> dict[str, Any]:
    import yaml
    from kubernetes.config import ConfigException, list_kube_config_contexts

    try:
        contexts, current = list_kube_config_contexts(files)
    except (ConfigException, OSError, yaml.YAMLError, TypeError, KeyError) as problem:
        raise NoAccess(
            f"{files} is not a usable kubeconfig ({type(problem).__name__})",
            hint="kubectl config view says what it reads; `current-context` must name a context",
        ) from problem
    if not context:
        return dict(current)
    for found in contexts:
        if found["name"] == context:
            return dict(found)
    known = ", ".join(sorted(found["name"] for found in contexts))
    raise NoAccess(f"no context {context!r} in {files}", hint=f"it has: {known}")


def _with_credentials(load: Callable[[], Any], files: str, name: str) -> Callable[[], Any]:
    """Refuse to go on as nobody: the client only logs that an exec plugin failed."""
    plugin = _exec_plugin(files, name)

    def checked() -> Any:
        loaded = load()
        if plugin and not loaded.api_key and not loaded.cert_file:
            raise NoAccess(
                f"context {name}: the exec plugin {plugin} gave no credentials",
                hint=f"run {plugin} by hand to see what it says; log in again",
            )
        return loaded

    return checked


def _exec_plugin(files: str, name: str) -> str:
    from kubernetes.config.kube_config import KubeConfigMerger

    merged = KubeConfigMerger(files).config
    user = merged["contexts"].get_with_name(name)["context"].safe_get("user")
    found = user and merged["users"].get_with_name(user, safe=True)
    plugin = found["user"].safe_get("exec") if found and found.safe_get("user") else None
    return str(plugin["command"]) if plugin else ""


def _proxy_url(files: str, name: str) -> str:
    from kubernetes.config.kube_config import KubeConfigMerger

    merged = KubeConfigMerger(files).config
    cluster = merged["contexts"].get_with_name(name)["context"].safe_get("cluster")
    found = cluster and merged["clusters"].get_with_name(cluster, safe=True)
    return str((found and found["cluster"].safe_get("proxy-url")) or "")


def _through_proxy(loaded: Any, proxy: str = "") -> Any:
    """Have the client use the kubeconfig's proxy, or the environment's, as kubectl does.

    kubernetes 30 looks at neither.
    """
    url = urlsplit(loaded.host)
    host = url.hostname or ""
    if not proxy and host not in _LOOPBACK and not proxy_bypass(host):
        proxy = getproxies().get(url.scheme, "")
    if proxy:
        loaded.proxy = proxy
    return loaded


def _in_cluster(account: Path) -> Access:
    def load() -> Any:
        from kubernetes.client import Configuration
        from kubernetes.config import ConfigException
        from kubernetes.config.incluster_config import InClusterConfigLoader

        loaded = Configuration()
        token, authority = account / "token", account / "ca.crt"
        try:
            InClusterConfigLoader(str(token), str(authority), try_refresh_token=False).load_and_set(
                loaded
            )
        except (ConfigException, OSError) as problem:
            raise NoAccess(f"the ServiceAccount of this pod: {problem}") from problem

        def current(configuration: Any) -> None:
            # the kubelet writes a new token before the old one ends; a small file, read each time
            try:
                configuration.api_key["authorization"] = f"Bearer {token.read_text().strip()}"
            except OSError as problem:
                raise NoAccess(f"the ServiceAccount of this pod: {problem}") from problem

        loaded.refresh_api_key_hook = current
        return _through_proxy(loaded)

    namespace = account / "namespace"
    return Access(load, namespace.read_text().strip() if namespace.is_file() else "default")
