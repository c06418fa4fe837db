"""Tells Prometheus which pods to ask: those annotated with `prometheus.io/scrape: "true"`."""

from __future__ import annotations

import json
import ssl
from typing import Any

import httpx

from tests.cluster.places import API_PORT, NODE_IP, Place

_PREFIX = "prometheus.io/"


class Discovery:
    """Keeps Prometheus' file of targets as the pods are."""

    def __init__(self, place: Place) -> None:
        context = ssl.create_default_context(cafile=str(place.pki / "ca.crt"))
        context.load_cert_chain(place.pki / "admin.crt", place.pki / "admin.key")
        self._client = httpx.Client(base_url=f"https://{NODE_IP}:{API_PORT}", verify=context)
        self._file = place.run / "targets.json"
        self._written = ""

    def refresh(self) -> None:
        """Write the file if the pods changed; an API server that is away changes nothing."""
        try:
            pods = self._client.get("/api/v1/pods").raise_for_status().json()["items"]
        except httpx.HTTPError:
            return
        text = json.dumps([target for pod in pods for target in _targets(pod)], indent=1)
        if text != self._written:
            half = self._file.with_suffix(".half")
            half.write_text(text)
            half.replace(self._file)
            self._written = text


def _targets(pod: dict[str, Any]) -> list[dict[str, Any]]:
    annotations = pod["metadata"].get("annotations", {})
    address = pod["status"].get("podIP")
    running = pod["status"].get("phase") == "Running"
    if annotations.get(f"{_PREFIX}scrape") != "true" or not (address and running):
        return []
    labels = {
        "namespace": pod["metadata"]["namespace"],
        "pod": pod["metadata"]["name"],
        "service": pod["metadata"].get("labels", {}).get("serving.kserve.io/inferenceservice", ""),
        "__metrics_path__": annotations.get(f"{_PREFIX}path", "/metrics"),
    }
    port = annotations.get(f"{_PREFIX}port", "8080")
    return [{"targets": [f"{address}:{port}"], "labels": labels}]
