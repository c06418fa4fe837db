"""Where the cluster's files lie, and the addresses and ports it uses inside its namespaces."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent

NODE = "node1"
NODE_IP = "10.99.0.1"
SERVICES = "10.96.0.0/16"
DNS_IP = "10.96.0.10"
PODS = "10.244.0.0/24"

API_PORT = 6443
REGISTRY = f"{NODE_IP}:5000"
S3 = f"http://{NODE_IP}:9000"
PROMETHEUS = f"http://{NODE_IP}:9090"

MARK = "PENSTOCK_CLUSTER"
"""Environment variable of every process of a cluster: how they are found again after a crash."""


def cache() -> Path:
    """Return the folder that outlives clusters: binaries, packages, images."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "penstock" / "cluster"


def chosen() -> Place:
    """Return the cluster that tests use: PENSTOCK_TEST_CLUSTER, or `default`."""
    return Place(os.environ.get("PENSTOCK_TEST_CLUSTER") or "default")


@dataclass(frozen=True, slots=True)
class Place:
    """One cluster's own folder; two clusters may stand side by side."""

    name: str

    @property
    def run(self) -> Path:
        """Everything one cluster writes; `down` removes it, logs aside."""
        return cache() / "run" / self.name

    @property
    def logs(self) -> Path:
        """One file per component; kept until the next `up`."""
        return cache() / "log" / self.name

    @property
    def state(self) -> Path:
        """What `status` reads; written when the cluster is up."""
        return self.run / "state.json"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.pki / "admin.kubeconfig"

    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.run / "pki"

    @property
    def config(self) -> Path:
        """The files of `config/`, filled in."""
        return self.run / "config"

    @property
    def binaries(self) -> Path:
        """Links to the binaries of this cluster."""
        return self.run / "bin"

    @property
    def cgroup(self) -> str:
        """The cgroup, in every hierarchy, below which the pods' cgroups are."""
        return f"penstock-cluster-{self.name}"
