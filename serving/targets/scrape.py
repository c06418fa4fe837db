"""Pods' metrics: straight from the pod where that is possible, through the API server elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import httpx

from penstock.core.checks import Check
from penstock.core.errors import NotReady, ServingError
from serving.cluster import Object
from serving.kube import KubernetesCluster
from serving.kube.calls import Call, Target
from serving.kube.kinds import RESOURCES
from serving.runtimes.runtime import PORT
from serving.sources.counters import Sample
from serving.sources.pods import Pod, samples_of
from serving.targets.checks import bracketed

_TIMEOUT_S = 3.0
_CONNECT_S = 1.0
_SCRAPE = "does it scrape pods that are annotated prometheus.io/scrape, with those two labels?"
_ENGINES = (
    *("penstock_users_", "vllm:", "sglang:", "trtllm_", "nv_", "tgi_"),
    *("http_requests_total", "process_start_time_seconds"),
)
"""How series begin that any engine shows; nothing else is asked of Prometheus."""


class PodScraper:
    """Finds and reads the pods of versions in one namespace.

    Args:
        cluster: Where the pods are.
        selector: Returns what selects a version's pods by their labels.
        transport: Another way to the pods than the network.
    """

    def __init__(
        self,
        cluster: KubernetesCluster,
        selector: Callable[[str], str],
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._cluster, self._selector = cluster, selector
        timeout = httpx.Timeout(_TIMEOUT_S, connect=_CONNECT_S)
        self._http = httpx.Client(timeout=timeout, trust_env=False, transport=transport)
        self._direct: bool | None = None
        """Whether pods' addresses mean something from here; not known before one answered."""

    def pods(self, service: str) -> list[Pod]:
        """Return a version's pods that are not ending."""
        query = {"labelSelector": self._selector(service)}
        found, _ = self._cluster.api.list(
            Target("Pod", self._cluster.namespace).call("list", query=query)
        )
        return [pod_of(obj, service) for obj in found if "deletionTimestamp" not in obj["metadata"]]

    def samples(self, pod: Pod) -> list[Sample]:
        """Return what a pod counted.

        Raises:
            NotReady: It does not tell.
        """
        return samples_of(self._text(pod), pod.name)

    def close(self) -> None:
        """End the connections."""
        self._http.close()

    def _text(self, pod: Pod) -> str:
        if self._direct is False:
            return self._proxied(pod)
        try:
            text = self._get(f"http://{pod.address}{pod.path}")
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as problem:
            unreached = isinstance(problem, httpx.ConnectTimeout | httpx.ConnectError)
            if unreached and self._direct is None:
                text = self._proxied(pod)
                self._direct = False  # only now: one lost packet says nothing of the network
                return text
            raise _silent(pod, f"{type(problem).__name__}: {problem}") from problem
        self._direct = True
        return text

    def _get(self, url: str) -> str:
        answer = self._http.get(url)
        answer.raise_for_status()
        return answer.text

    def _proxied(self, pod: Pod) -> str:
        namespace, port = self._cluster.namespace, pod.address.rpartition(":")[2]
        root = RESOURCES["Pod"].path(namespace, f"{pod.name}:{port}", "proxy")
        call = Call(
            "get",
            f"{root}{pod.path}",
            f"Pod proxy {namespace}/{pod.name}",
            resource=RESOURCES["Pod"],
            namespace=namespace,
            name=pod.name,
            subresource="proxy",
        )
        try:
            return self._cluster.api.text(call, self._cluster.api.patience.tries(_TIMEOUT_S))
        except ServingError as problem:
            raise _silent(pod, str(problem)) from problem


class PrometheusScraper(PodScraper):
    """Reads what Prometheus last scraped of a pod.

    Args:
        cluster: Where the pods are.
        selector: Returns what selects a version's pods by their labels.
        url: Prometheus's.
        transport: Another way to Prometheus than the network.
    """

    def __init__(
        self,
        cluster: KubernetesCluster,
        selector: Callable[[str], str],
        url: str,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(cluster, selector, transport)
        self._url, self._namespace = url.rstrip("/"), cluster.namespace

    def samples(self, pod: Pod) -> list[Sample]:
        """Return the newest value of every series of a pod.

        Raises:
            NotReady: Prometheus does not answer, or has not scraped the pod in five minutes.
        """
        names = f"({'|'.join(_ENGINES)}).*"
        query = f'{{namespace="{self._namespace}",pod="{pod.name}",__name__=~"{names}"}}'
        found = _asked(self._http, self._url, query)
        if not found:
            raise _silent(
                pod, f"Prometheus at {self._url} has no series with its namespace and pod", _SCRAPE
            )
        return [
            Sample(each["metric"]["__name__"], each["metric"], float(each["value"][1]))
            for each in found
        ]


def prometheus(url: str, namespace: str, transport: httpx.BaseTransport | None = None) -> Check:
    """Return whether a Prometheus answers, and how much of a namespace it scrapes.

    Args:
        url: Where it is.
        namespace: That models are served in.
        transport: Another way there than the network.
    """
    with httpx.Client(timeout=_TIMEOUT_S, trust_env=False, transport=transport) as http:
        try:
            found = _asked(http, url.rstrip("/"), f'up{{namespace="{namespace}"}}')
        except NotReady as problem:
            return Check("prometheus", False, str(problem), problem.hint)
    pods = len({each["metric"].get("pod") for each in found})
    return Check("prometheus", True, f"{url} scrapes {pods} pods of namespace {namespace}")


def _asked(http: httpx.Client, url: str, query: str) -> list[dict[str, Any]]:
    """Return the newest value of every series that a query finds."""
    try:
        answer = http.get(f"{url}/api/v1/query", params={"query": query})
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as problem:
        raise NotReady(
            f"Prometheus at {url}",
            reason=f"{type(problem).__name__}: {problem}",
            waited_s=0,
            hint="target.kserve.prometheus in model.yaml; null reads pods themselves",
        ) from problem
    return found


def pod_of(obj: Object, service: str) -> Pod:
    """Return what is needed of a pod."""
    status = obj.get("status", {})
    port = _annotated(obj, "port") or _port(obj["spec"]["containers"])
    conditions = {each["type"]: each["status"] for each in status.get("conditions", [])}
    return Pod(
        uid=obj["metadata"]["uid"],
        name=obj["metadata"]["name"],
        service=service,
        address=f"{bracketed(status.get('podIP', ''))}:{port}",
        ready=conditions.get("Ready") == "True" and bool(status.get("podIP")),
        path=_annotated(obj, "path") or "/metrics",
    )


def _annotated(obj: Object, what: str) -> str:
    """Return what a pod says of its metrics; in KServe's words if it does not in Prometheus'.

    KServe hands its own on from the runtime, so pods that Penstock did not write have them too.
    """
    annotations = obj["metadata"].get("annotations", {})
    names = (f"prometheus.io/{what}", f"prometheus.kserve.io/{what}")
    return next((str(annotations[name]) for name in names if name in annotations), "")


def _port(containers: Sequence[Object]) -> int:
    ports = [port["containerPort"] for each in containers for port in each.get("ports", [])]
    return int(ports[0]) if ports else PORT


def _silent(
    pod: Pod,
    reason: str,
    hint: str = "does the engine export them, and may this account get pods/proxy?",
) -> NotReady:
    return NotReady(f"metrics of pod {pod.name}", reason=reason, waited_s=0, hint=hint)
