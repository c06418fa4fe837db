"""A split of traffic as Seldon Core 2 writes it, for who moves there, or compares.

Only the split: versions are Models there, with the names of ours, and made by whoever
runs Seldon. Source: `operator/config/crd/bases/mlops.seldon.io_experiments.yaml` of
SeldonIO/seldon-core, commit 1405228, and the page "Experiments" of its documentation.
"""

from __future__ import annotations

from collections.abc import Mapping

from penstock.core.errors import ConfigurationError
from serving.cluster import Object
from serving.manifests import NAME


def experiment(name: str, namespace: str, weights: Mapping[str, int], stable: str) -> Object:
    """Return the Experiment that splits traffic as a rollout does now.

    Args:
        name: What clients call the model; the Experiment's name.
        namespace: Where the Models are.
        weights: Version's object to share, relative to their sum.
        stable: The version whose endpoint clients use: what they ask it for is split.

    Raises:
        ConfigurationError: There is nothing to split.
    """
    if not any(weights.values()) or stable not in weights:
        raise ConfigurationError(
            f"{name}: an Experiment needs shares, and {stable or 'a stable version'} among them; "
            f"found {dict(sorted(weights.items())) or 'none'}",
            hint=f"penstock rollout status {name} shows them",
        )
    candidates = [{"name": each, "weight": weights[each]} for each in sorted(weights)]
    return {
        "apiVersion": "mlops.seldon.io/v1alpha1",
        "kind": "Experiment",
        "metadata": {"name": name, "namespace": namespace, "labels": {NAME: name}},
        "spec": {"default": stable, "resourceType": "model", "candidates": candidates},
    }
