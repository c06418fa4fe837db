"""Objects for the golden files: `python -m tests.unit.serving.kserve.objects` writes them anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from penstock.core.identity import Digest, ModelRef
from penstock.core.manifest import FileEntry, Manifest
from penstock.core.spec import ModelSpec
from serving.cluster import Object
from serving.gpus import claims
from serving.gpus.offers import Offer
from serving.kserve import budgets, standard
from serving.kserve.facts import Facts, Gateway, Storage
from serving.kserve.http_route import http_route
from serving.kserve.inference_service import inference_service
from serving.kserve.llm_inference_service import http_route as group_route
from serving.kserve.llm_inference_service import llm_inference_service
from serving.kserve.runtimes import cpu_runtime
from serving.kserve.virtual_service import virtual_service
from serving.manifests import Release

GOLDEN = Path(__file__).resolve().parents[3] / "golden" / "kserve"

MANIFEST = Manifest(
    ModelRef.parse("hf://org/chat@" + "c" * 40),
    (
        FileEntry("config.json", 2, Digest.of(b"{}")),
        FileEntry("model.safetensors", 7, Digest.of(b"weights")),
    ),
)
ROOT = MANIFEST.root

FACTS = Facts(version="1.2.3")
"""The defaults, but for the version, which would change every file at every release."""

OWN = Facts(
    namespace="team",
    gateway=Gateway("edge", "infra", "models.test"),
    storage=Storage("http://hub.test", "http://s3.test", "eu-1", "storage-keys"),
    registry="registry.test/penstock/",
    version="1.2.3",
    runtime_class="penstock-host-python",
    offers=(
        Offer("nvidia.com/gpu", "NVIDIA-L4", 23034, count=4),
        Offer("nvidia.com/gpu", "NVIDIA-A100-SXM4-80GB-MIG-3g.40gb", 40448, count=16),
        Offer("nvidia.com/gpu.shared", "NVIDIA-A10", 23028, "time-slicing", 10),
        Offer("nvidia.com/mig-1g.10gb", "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb", 9728, count=7),
        Offer("amd.com/gpu", "AMD_Instinct_MI300X_OAM", 196608, count=8),
    ),
    drain_s=10,
)


STORED = {"creationTimestamp": "2026-11-28T00:00:00Z"}
DRA = {"accelerator": "nvidia-h100-80gb", "count": 4, "claim": "dra"}


def spec(**fields: Any) -> ModelSpec:
    """Return a spec of the model `chat`."""
    return ModelSpec.model_validate({"name": "chat", "source": "hf://org/chat", **fields})


def release(version: int = 1, uri: str = "") -> Release:
    """Return a release of the checkpoint above, in S3 unless told."""
    return Release(version, uri or f"s3://models/chat/{ROOT.hex}", ROOT)


def gpu(count: int, **fields: Any) -> ModelSpec:
    """Return a spec for L4s."""
    return spec(hardware={"accelerator": "nvidia-l4", "count": count}, **fields)


def nodes(nodes: int, count: int, **fields: Any) -> ModelSpec:
    """Return a spec for L4s over several nodes."""
    hardware = {"accelerator": "nvidia-l4", "count": count, "nodes": nodes}
    return spec(hardware=hardware, **fields)


def on(hardware: dict[str, Any], **fields: Any) -> Object:
    """Return the InferenceService of a model on other devices."""
    return inference_service(spec(hardware=hardware, **fields), release(), OWN, MANIFEST)


def objects() -> dict[str, Object]:
    """Return every golden object by the name of its file."""
    on_claim = release(2, f"pvc://weights/chat/{ROOT.hex}")
    from_hub = release(3, "hf://org/chat@" + "c" * 40)
    slow = {"ready_timeout_s": 1800}
    stable = standard.inference_service(spec(replicas=2), release(), FACTS)
    candidate = standard.inference_service(
        spec(runtime_args=["--fault=live-delay=1"]), on_claim, FACTS
    )
    canary = standard.with_candidate(stable, standard.snapshot(candidate))
    return {
        "cpu-runtime": cpu_runtime(FACTS),
        "cpu-runtime-own-facts": cpu_runtime(OWN),
        "cpu-s3": inference_service(spec(), release(), FACTS),
        "cpu-pvc-own-facts": inference_service(
            spec(replicas=2, runtime_args=["--fault=live-errors=0.2"]), on_claim, OWN
        ),
        "vllm-hub": inference_service(gpu(2, rollout=slow), from_hub, OWN, MANIFEST),
        "huggingface-s3": inference_service(gpu(1, runtime="huggingface"), release(), OWN),
        **{
            f"{name}-s3": inference_service(
                gpu(2, runtime=name, serving={"context": 8192}), release(), OWN, MANIFEST
            )
            for name in ("sglang", "tensorrt-llm", "triton", "tgi")
        },
        "mig-mixed": on({"accelerator": "nvidia-h100-80gb", "mig": "1g.10gb"}, replicas=2),
        "mig-single": on({"accelerator": "nvidia-a100-80gb", "mig": "3g.40gb"}),
        "time-slicing": on({"accelerator": "nvidia-a10", "sharing": "time-slicing"}),
        "amd": on({"accelerator": "amd-mi300x-192gb", "count": 8}),
        "dra": on(DRA),
        "route-one": http_route("chat", {"chat-v1": 100}, FACTS),
        "route-two": http_route("chat", {"chat-v2": 0, "chat-v1": 100}, OWN),
        "istio-one": virtual_service("chat", {"chat-v1": 100}, FACTS),
        "istio-two": virtual_service("chat", {"chat-v2": 0, "chat-v1": 100}, OWN),
        "route-group": group_route("chat", {"chat-v1": 75, "chat-v2": 25}, FACTS),
        "standard-candidate": canary,
        "standard-promoted": standard.promoted(standard.with_weight(canary, 100)),
        "llm-s3": llm_inference_service(spec(), release(), 90, FACTS),
        "llm-vllm": llm_inference_service(gpu(2), release(), 10, OWN, MANIFEST),
        "llm-vllm-nodes": llm_inference_service(nodes(2, 4), release(), 10, OWN, MANIFEST),
        "llm-sglang-nodes": llm_inference_service(
            nodes(2, 4, runtime="sglang"), release(), 10, OWN, MANIFEST
        ),
        "llm-pvc-own-facts": llm_inference_service(spec(replicas=2), on_claim, 0, OWN),
    }


def beside() -> dict[str, Object]:
    """Return the golden objects that are no CRD's, by the name of their file."""
    version = {**on({}, replicas=2)}
    version["metadata"] = {**version["metadata"], "uid": "0d5e", **STORED}
    (budget,) = budgets.of(version, 2)
    made = {"budget": budget, "claim": claims.template(spec(hardware=DRA).hardware)}
    mig = spec(hardware={"accelerator": "nvidia-a100-40gb", "mig": "1g.5gb", "claim": "dra"})
    return {**made, "claim-mig": claims.template(mig.hardware)}


def text(obj: Object) -> str:
    """Return an object as its file has it."""
    return yaml.dump(obj, Dumper=_Plain, sort_keys=False, width=100)


class _Plain(yaml.SafeDumper):
    """Without anchors: what stands twice is written twice."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for old in GOLDEN.glob("*.yaml"):
        old.unlink()
    for name, obj in {**objects(), **beside()}.items():
        (GOLDEN / f"{name}.yaml").write_text(text(obj))
