"""The InferenceService of one version: everything explicit, nothing chosen by the cluster.

It never changes once created: another checkpoint, argument or runtime is another version.
"""

from __future__ import annotations

from penstock.core.errors import ConfigurationError
from penstock.core.manifest import Manifest
from penstock.core.spec import ModelSpec
from serving.cluster import Object
from serving.kserve import runtimes, serving_runtimes, storage
from serving.kserve.facts import Facts
from serving.manifests import NAME, ROOT, VERSION, Release, service_name

AUTOSCALER = "serving.kserve.io/autoscalerClass"

ANNOTATIONS = {
    "serving.kserve.io/deploymentMode": "Standard",  # the webhook of v0.20 knows the older word too
    AUTOSCALER: "none",  # replicas = minReplicas, and no HPA is left over
    "serving.kserve.io/disable-localmodel": "true",  # a node's cache would be mounted unverified
    # "true" would point scrapers at port 9091, which only Knative's pods have
    "serving.kserve.io/enable-prometheus-scraping": "false",
}

LABELS = {"networking.kserve.io/visibility": "cluster-local"}
"""KServe then makes no HTTPRoute of its own, and counts the ingress as ready (v0.20.0,
`RawHTTPRouteReconciler.Reconcile`): a version is reached by its name's route only, and by its
Service from inside. Service `<InferenceService>-predictor` has port 80, as `createDefaultSvc`
makes it."""


def inference_service(
    spec: ModelSpec, release: Release, facts: Facts, manifest: Manifest | None = None
) -> Object:
    """Return the InferenceService of one version.

    Labels and annotations of an InferenceService are passed on to its pods.

    Args:
        spec: What is served.
        release: The version, and where its files are.
        facts: The cluster.
        manifest: The checkpoint's files, if known: see `serving.kserve.storage`.

    Raises:
        ConfigurationError: KServe cannot serve this, with what can be done.
    """
    engine = runtimes.engine(spec)
    if spec.hardware.nodes > 1:
        raise ConfigurationError(
            f"hardware.nodes {spec.hardware.nodes}: an InferenceService's replica is one pod",
            hint="set target.kserve.mode: llmisvc, whose replicas may be LeaderWorkerSets",
        )
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": service_name(spec.name, release.version),
            "namespace": facts.namespace,
            "labels": {NAME: spec.name, VERSION: str(release.version), **LABELS},
            "annotations": {
                ROOT: str(release.root),
                **ANNOTATIONS,
                **runtimes.scraped(engine),
            },
        },
        "spec": {
            "predictor": {
                "minReplicas": spec.replicas,
                "maxReplicas": spec.replicas,
                "timeout": 0,  # seconds of a request; 0: as long as it takes
                **runtimes.pod(spec, release, facts),
                "initContainers": [storage.init_container(release, facts, manifest)],
                "model": {
                    "modelFormat": {"name": engine.of.model_format, "version": "1"},
                    "runtime": engine.runtime,
                    "storageUri": storage.storage_uri(release),
                    "args": engine.args(spec),
                    # the runtime's own: a later one must not replace what was judged (KServe
                    # v0.20, `servingRuntimeFunc`, makes pods anew when a ServingRuntime changes)
                    "image": serving_runtimes.image(engine.of, facts),
                    **engine.instead(spec),
                    **runtimes.pinned(engine, spec, facts),
                    "resources": runtimes.resources(
                        spec, facts, storage.on_disk(release, manifest)
                    ),
                    "volumeMounts": [storage.model_mount(release)],
                    "lifecycle": {"preStop": {"sleep": {"seconds": facts.drain_s}}},
                    **runtimes.LAST_WORDS,
                    **runtimes.probes(engine, spec, manifest=manifest),
                },
            }
        },
    }
