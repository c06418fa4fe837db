"""Makes the namespaces ready for a node: mounts, network, and the files of `config/` filled in."""

from __future__ import annotations

import json
import os
import shutil
import string
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.cluster import cgroups, components
from tests.cluster.places import (
    DNS_IP,
    HERE,
    NODE,
    NODE_IP,
    PODS,
    REGISTRY,
    REPOSITORY,
    SERVICES,
    Place,
    cache,
)  # fmt: skip

# What the kubelet sets for the whole machine: in here it sees copies, nothing is to be restored.
_KERNEL = (
    "vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
)  # fmt: skip
VOLUMES = Path("/tmp/hostpath_pv")  # noqa: S108 - the controller manager's own choice
"""Where dynamically provisioned volumes lie; inside it is a folder of the cluster's."""

_CONFIG = {
    "containerd.toml": "containerd.toml",
    "cni.conflist": "cni/10-pods.conflist",
    "hosts.toml": "certs.d/_default/hosts.toml",
}


def machine(place: Place, debian: Path) -> None:
    """Mount Debian's packages over /usr and folders of our own; make the network."""
    _do("mount", "--make-rshared", "/")  # volumes of pods propagate
    _do("mount", "-t", "overlay", "-o", f"lowerdir={debian}/usr:/usr", "overlay", "/usr")
    _do("mount", "-t", "tmpfs", "tmpfs", "/run")
    upper, work = place.run / "var", place.run / "var.work"
    for folder in (upper, work):
        folder.mkdir()
    layers = f"lowerdir=/var,upperdir={upper},workdir={work}"
    _do("mount", "-t", "overlay", "-o", layers, "overlay", "/var")
    for needed in ("/run/containerd", "/run/netns", "/var/lib/kubelet/device-plugins"):
        Path(needed).mkdir(parents=True, exist_ok=True)

    VOLUMES.mkdir(exist_ok=True)
    (place.run / "volumes").mkdir()
    _do("mount", "--bind", str(place.run / "volumes"), str(VOLUMES))

    copies = place.run / "sysctl"
    for name in _KERNEL:
        copy, setting = copies / name, Path("/proc/sys") / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(setting.read_bytes())
        _do("mount", "--bind", str(copy), str(setting))
    for name in ("net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables"):
        (Path("/proc/sys") / name).write_text("1")

    _do("ip", "link", "set", "lo", "up")
    _do("ip", "link", "add", "node0", "type", "bridge")  # carries the node's address
    _do("ip", "address", "add", f"{NODE_IP}/32", "dev", "node0")
    _do("ip", "link", "set", "node0", "up")
    # The node's own processes are routed before kube-proxy rewrites, so Services need a route.
    _do("ip", "route", "add", SERVICES, "dev", "node0", "src", NODE_IP)

    cgroups.make(place)


def files(place: Place, binaries: Mapping[str, Path]) -> None:
    """Fill in the configuration, link the binaries and put them on the PATH."""
    place.binaries.mkdir()
    for name, path in binaries.items():
        (place.binaries / name).symlink_to(path)
    os.environ["PATH"] = f"{place.binaries}:{os.environ['PATH']}"

    registry = cache() / "registry"
    registry.mkdir(exist_ok=True)
    values = {
        "cgroup": place.cgroup, "config": place.config, "dns_ip": DNS_IP, "node": NODE,
        "node_ip": NODE_IP, "pki": place.pki, "pods": PODS, "registry": REGISTRY,
        "registry_folder": registry, "run": place.run,
    }  # fmt: skip
    for source in [*(HERE / "config").iterdir(), *(HERE / "manifests").iterdir()]:
        target = place.config / _CONFIG.get(source.name, source.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(string.Template(source.read_text()).substitute(values))
    (place.config / "resolv.conf").touch()  # pods ask the cluster's DNS and nobody else

    spec = json.loads(_do("ctr", "oci", "spec"))
    for folder in (REPOSITORY, sys.base_prefix):  # the host's Python, for the engine's pods
        mount = {"destination": str(folder), "type": "bind", "source": str(folder)}
        spec["mounts"].append({**mount, "options": ["rbind", "ro"]})
    (place.config / "runtime-spec.json").write_text(json.dumps(spec))


def managers(place: Place, envoy_gateway: Path) -> None:
    """Put the webhooks' certificate where KServe looks; make Envoy Gateway's root folder."""
    for component in components.kserve(place):
        folder = Path(component.environment["TMPDIR"]) / "k8s-webhook-server/serving-certs"
        folder.mkdir(parents=True)
        for end in ("crt", "key"):
            shutil.copy(place.pki / f"webhook.{end}", folder / f"tls.{end}")
    root = place.run / "envoy-gateway"
    for inside in ("certs", "tmp"):
        (root / inside).mkdir(parents=True)
    os.link(envoy_gateway, root / "envoy-gateway")
    config = (place.config / "envoy-gateway.yaml").read_text()
    (root / "config.yaml").write_text(config)
    (root / "kubeconfig").write_text(place.kubeconfig.read_text())


def _do(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
