"""KServe's own manifests, from its Go module, for managers that run as processes on the node."""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
import subprocess
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.cluster.build import GO, module_folder
from tests.cluster.components import KSERVE_PORT, LLMISVC_PORT, LWS_PORT
from tests.cluster.kept import used
from tests.cluster.places import API_PORT, NODE_IP, Place, cache

Object = dict[str, Any]
_CA = "Q0EtQlVORExF"  # stands in the cache where the cluster's own certificate belongs
_GATEWAY = "kserve/kserve-ingress-gateway"


def rendered(kubectl: Path, authority: Path, into: Path) -> None:
    """Write definitions.json, settings.json, webhooks.json and presets.json into a folder.

    Rendering takes ten seconds, so it is cached by what it is made of.
    """
    digest = hashlib.sha256(Path(__file__).read_bytes() + str(kubectl).encode())
    for module in ("kserve", "envoy-gateway"):
        digest.update((GO / module / "go.mod").read_bytes())
    folder = cache() / f"manifests-{digest.hexdigest()[:16]}"
    if not (folder / ".done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name, objects in _render(kubectl).items():
            (folder / name).write_text(_list(objects))
        (folder / ".done").touch()
    into.mkdir(parents=True, exist_ok=True)
    bundle = base64.b64encode(authority.read_bytes()).decode()
    for file in used(folder).glob("*.json"):
        (into / file.name).write_text(file.read_text().replace(_CA, bundle))


def define(place: Place) -> int:
    """Create what CRDs are missing and return how many there are; may be tried again."""
    context = ssl.create_default_context(cafile=str(place.pki / "ca.crt"))
    context.load_cert_chain(place.pki / "admin.crt", place.pki / "admin.key")
    definitions = json.loads((place.run / "manifests" / "definitions.json").read_text())["items"]
    server = f"https://{NODE_IP}:{API_PORT}/apis/apiextensions.k8s.io/v1"
    with httpx.Client(base_url=server, verify=context, timeout=120, trust_env=False) as client:
        for item in definitions:
            answer = client.post("customresourcedefinitions", json=item)
            if answer.status_code != httpx.codes.CONFLICT:
                answer.raise_for_status()
    return len(definitions)


def _render(kubectl: Path) -> dict[str, list[Object]]:
    kserve = module_folder("github.com/kserve/kserve", module="kserve")
    lws = module_folder("sigs.k8s.io/lws", module="kserve")

    def built(folder: str, of: Path = kserve) -> list[Object]:
        text = subprocess.run(
            [str(kubectl), "kustomize", str(of / "config" / folder)],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        return _load(text)

    foreign = [
        module_folder("sigs.k8s.io/gateway-api", module="kserve") / "config/crd/standard",
        module_folder("sigs.k8s.io/gateway-api-inference-extension", module="kserve")
        / "config/crd/bases",
        lws / "config/crd/bases",
        module_folder("github.com/envoyproxy/gateway", module="envoy-gateway")
        / "charts/gateway-helm/charts/crds/crds/generated",
    ]
    definitions = [
        *(item for folder in foreign for file in folder.glob("*.yaml")
          for item in _load(file.read_text())),
        *built("crd"), *built("crd/full/llmisvc"),
    ]  # fmt: skip
    webhooks = [
        *(_local(item, KSERVE_PORT) for item in built("webhook")),
        *(_local(item, LLMISVC_PORT) for item in built("webhook/llmisvc")),
        *(_local(item, LWS_PORT) for item in built("webhook", lws)),
    ]
    return {
        "definitions.json": [
            _undescribed(_local(item, LLMISVC_PORT))
            for item in definitions
            if item["kind"] == "CustomResourceDefinition"
        ],
        "settings.json": [
            *(_namespace(name) for name in ("kserve", "envoy-gateway-system")),
            _settings(_load((kserve / "config/configmap/inferenceservice.yaml").read_text())[0]),
        ],
        "webhooks.json": [item for item in webhooks if "Webhook" in item["kind"]],
        "presets.json": [
            *built("llmisvcconfig"), *built("runtimes"), *built("storagecontainers"),
        ],
    }  # fmt: skip


def _settings(config_map: Object) -> Object:
    """Return KServe's ConfigMap: plain Deployments behind the Gateway API."""
    ingress = json.loads(config_map["data"]["ingress"])
    ingress |= {
        "enableGatewayApi": True,
        "kserveIngressGateway": _GATEWAY,
        "disableIstioVirtualHost": True,
    }
    config_map["data"]["ingress"] = json.dumps(ingress)
    config_map["data"]["deploy"] = json.dumps({"defaultDeploymentMode": "Standard"})
    config_map["metadata"]["namespace"] = "kserve"
    return config_map


def _local(item: Object, port: int) -> Object:
    """Return an object whose webhooks are asked on this node instead of in the cluster."""
    item["metadata"].pop("creationTimestamp", None)
    conversion = item.get("spec", {}).get("conversion", {}).get("webhook")
    for webhook in [*item.get("webhooks", []), *([conversion] if conversion else [])]:
        client = webhook["clientConfig"]
        service = client.pop("service")
        client |= {"url": f"https://127.0.0.1:{port}{service['path']}", "caBundle": _CA}
    return item


def _undescribed(value: Any) -> Any:
    """Return a definition without its prose, which costs the API server half its memory."""
    if isinstance(value, list):
        return [_undescribed(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _undescribed(item)
        for key, item in value.items()
        if not (key == "description" and isinstance(item, str))
    }


def _namespace(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _list(objects: list[Object]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


def _load(text: str) -> list[Object]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [item for item in yaml.load_all(text, loader) if item]
