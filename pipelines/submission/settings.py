"""Where Kubeflow Pipelines is, and who asks. Read once, at the edge."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.submission.errors import NoBackEnd

IN_CLUSTER_URL = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
IN_CLUSTER_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
"""Where Kubeflow's PodDefault projects a token for the audience pipelines.kubeflow.org."""

_URL = re.compile(r"^https?://[^/\s@?#]+(/[^\s@?#]*)?$")


@dataclass(frozen=True, slots=True)
class KfpSettings:
    """One API server, one namespace, one account."""

    url: str
    """`PENSTOCK_KFP_URL`: of the API server, or of the UI in front of it."""

    namespace: str = ""
    """`PENSTOCK_KFP_NAMESPACE`: the profile's; a server for a single user needs none."""

    experiment: str = "penstock"
    """`PENSTOCK_KFP_EXPERIMENT`: where runs stand."""

    service_account: str = ""
    """`PENSTOCK_KFP_SERVICE_ACCOUNT`: what the pods run as; the server's default without one."""

    token_file: Path | None = None
    """`PENSTOCK_KFP_TOKEN_FILE`, or the pod's own: a bearer token, read again for each request."""

    cookies: str = field(default="", repr=False)
    """`PENSTOCK_KFP_COOKIES`: `name=value` of a session, as a browser has it. Never printed."""

    ca_file: Path | None = None
    """`PENSTOCK_KFP_CA_FILE`: certificates to trust, instead of the usual ones."""

    ui: str = ""
    """`PENSTOCK_KFP_UI`: the UI as people reach it, for links; `url` without one."""

    total_s: float = 120.0
    """`PENSTOCK_KFP_TIMEOUT_S`: longest that one operation is tried."""

    def link(self, run_id: str) -> str:
        """Return where a person sees a run."""
        return f"{self.ui or self.url}/#/runs/details/{run_id}"

    @classmethod
    def from_env(cls, env: Mapping[str, str], *, pod_token: Path = IN_CLUSTER_TOKEN) -> KfpSettings:
        """Build from environment variables; an unusable value is named.

        In a pod of the cluster, nothing needs to be set.

        Args:
            env: The environment.
            pod_token: Where a pod's own token is.
        """
        inside = bool(env.get("KUBERNETES_SERVICE_HOST"))
        url = env.get("PENSTOCK_KFP_URL") or (IN_CLUSTER_URL if inside else "")
        own = Path(env.get("KF_PIPELINES_SA_TOKEN_PATH") or pod_token)
        token_file = _file(env, "PENSTOCK_KFP_TOKEN_FILE") or (own if own.is_file() else None)
        cookies = env.get("PENSTOCK_KFP_COOKIES") or ""
        if cookies and ("=" not in cookies or not cookies.isprintable()):
            raise NoBackEnd("PENSTOCK_KFP_COOKIES: allowed: name=value; other=value")
        return cls(
            url=_address("PENSTOCK_KFP_URL", url),
            namespace=env.get("PENSTOCK_KFP_NAMESPACE") or "",
            experiment=env.get("PENSTOCK_KFP_EXPERIMENT") or "penstock",
            service_account=env.get("PENSTOCK_KFP_SERVICE_ACCOUNT") or "",
            token_file=token_file,
            cookies=cookies,
            ca_file=_file(env, "PENSTOCK_KFP_CA_FILE"),
            ui=_address("PENSTOCK_KFP_UI", env["PENSTOCK_KFP_UI"])
            if env.get("PENSTOCK_KFP_UI")
            else "",
            total_s=_seconds(env),
        )


def _address(name: str, url: str) -> str:
    if not url:
        raise NoBackEnd(
            f"{name} is not set: there is no Kubeflow Pipelines to ask",
            hint="kubectl -n kubeflow port-forward svc/ml-pipeline 8888; then "
            f"export {name}=http://127.0.0.1:8888 (docs/how-to/kubeflow.md)",
        )
    if not _URL.match(url):
        shown = "an address with a user in it" if "@" in url else repr(url)
        raise NoBackEnd(
            f"{name}: found {shown}; allowed: http(s)://HOST[:PORT][/PATH]",
            hint="an account goes into PENSTOCK_KFP_TOKEN_FILE or PENSTOCK_KFP_COOKIES",
        )
    return url.rstrip("/")


def _file(env: Mapping[str, str], name: str) -> Path | None:
    if not env.get(name):
        return None
    path = Path(env[name]).expanduser()
    if not path.is_file():
        raise NoBackEnd(f"{name}: no such file: {path}")
    return path


def _seconds(env: Mapping[str, str]) -> float:
    given = env.get("PENSTOCK_KFP_TIMEOUT_S") or "120"
    try:
        total_s = float(given)
    except ValueError:
        total_s = 0.0
    if not 0 < total_s <= 3600:
        raise NoBackEnd(f"PENSTOCK_KFP_TIMEOUT_S: found {given!r}; allowed: seconds, up to 3600")
    return total_s
