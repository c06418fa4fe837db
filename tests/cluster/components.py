"""The cluster's processes: what each is called and how it is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.cluster.places import API_PORT, NODE, NODE_IP, SERVICES, Place

KSERVE_PORT = 9443
LLMISVC_PORT = 9444
LWS_PORT = 9445
KSERVE_HEALTH = "http://127.0.0.1:18081/readyz"
LLMISVC_HEALTH = "http://127.0.0.1:18083/readyz"
LWS_HEALTH = "http://127.0.0.1:18085/readyz"
ENVOY_GATEWAY_HEALTH = "http://127.0.0.1:8081/readyz"
_ETCD = "http://127.0.0.1:2379"


@dataclass(frozen=True, slots=True)
class Component:
    """One process."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


def _component(name: str, *command: str, **options: str | Path) -> Component:
    flags = [f"--{_flag(key)}={value}" for key, value in options.items()]
    return Component(name, (*command, *flags))


def _flag(name: str) -> str:
    return name.replace("__", ".").replace("_", "-")


def stores(place: Place, python: Path) -> list[Component]:
    """Return what needs nothing else."""
    return [
        _component(
            "etcd", "etcd", "--unsafe-no-fsync",
            data_dir=place.run / "etcd",
            listen_client_urls=_ETCD,
            advertise_client_urls=_ETCD,
            log_level="warn",
        ),
        Component("registry", ("docker-registry", "serve", str(place.config / "registry.yaml"))),
        Component("containerd", ("containerd", "-c", str(place.config / "containerd.toml"))),
        Component(
            "s3", (str(python / "bin/python"), "-m", "moto.server", "-H", NODE_IP, "-p", "9000")
        ),
        _component(
            "prometheus", "prometheus",
            config__file=place.config / "prometheus.yaml",
            storage__tsdb__path=place.run / "prometheus",
            web__listen_address=f"{NODE_IP}:9090",
        ),
    ]  # fmt: skip


def api_server(place: Place) -> Component:
    """Return the API server, with RBAC and every admission plugin that is on by default."""
    pki = place.pki
    return _component(
        "kube-apiserver", "kube-apiserver",
        etcd_servers=_ETCD,
        bind_address=NODE_IP,
        advertise_address=NODE_IP,
        secure_port=str(API_PORT),
        service_cluster_ip_range=SERVICES,
        authorization_mode="Node,RBAC",
        enable_admission_plugins="NodeRestriction",
        allow_privileged="true",
        client_ca_file=pki / "ca.crt",
        tls_cert_file=pki / "apiserver.crt",
        tls_private_key_file=pki / "apiserver.key",
        service_account_issuer="https://kubernetes.default.svc.cluster.local",
        service_account_key_file=pki / "service-accounts.pub",
        service_account_signing_key_file=pki / "service-accounts.key",
        kubelet_client_certificate=pki / "apiserver-client.crt",
        kubelet_client_key=pki / "apiserver-client.key",
        kubelet_certificate_authority=pki / "ca.crt",
        kubelet_preferred_address_types="InternalIP",
        profiling="false",
    )  # fmt: skip


def controllers(place: Place) -> list[Component]:
    """Return what makes an API server a cluster."""
    pki = place.pki
    return [
        _component(
            "kube-controller-manager", "kube-controller-manager", "--enable-hostpath-provisioner",
            **_kubeconfigs(pki / "controller-manager.kubeconfig"),
            service_account_private_key_file=pki / "service-accounts.key",
            root_ca_file=pki / "ca.crt",
            use_service_account_credentials="true",
            cert_dir=place.run / "kube-controller-manager",
        ),
        _component(
            "kube-scheduler", "kube-scheduler",
            **_kubeconfigs(pki / "scheduler.kubeconfig"),
            cert_dir=place.run / "kube-scheduler",
        ),
    ]  # fmt: skip


def node(place: Place) -> list[Component]:
    """Return what makes this machine a node with two GPUs."""
    return [
        _component(
            "kubelet", "kubelet",
            config=place.config / "kubelet.yaml",
            kubeconfig=place.pki / "kubelet.kubeconfig",
            hostname_override=NODE,
            node_ip=NODE_IP,
        ),
        _component("kube-proxy", "kube-proxy", config=place.config / "kube-proxy.yaml"),
        _component("fake-gpu", "fake-gpu", count="2"),
    ]  # fmt: skip


def kserve(place: Place) -> list[Component]:
    """Return KServe's managers and the one of LeaderWorkerSets, which one of KServe's makes.

    Each takes its webhook certificate from its temporary folder.
    """
    lws = _component(
        "lws-manager", "lws-manager",
        config=place.config / "lws.yaml",
        kubeconfig=place.kubeconfig,
        metrics_bind_address="0",
    )  # fmt: skip
    return [
        replace(lws, environment={"TMPDIR": str(place.run / "lws-manager")}),
        *(Component(
            name,
            (name, f"--kubeconfig={place.kubeconfig}", f"--metrics-addr=127.0.0.1:{metrics}",
             f"--health-probe-addr=127.0.0.1:{metrics + 1}", f"--webhook-port={port}", *more),
            {"TMPDIR": str(place.run / name), "POD_NAMESPACE": "kserve"},
        )
        for name, metrics, port, more in (
            ("kserve-manager", 18080, KSERVE_PORT, ()),
            ("kserve-llmisvc", 18082, LLMISVC_PORT, ("--metrics-secure=false",)),
        )),
    ]  # fmt: skip


def envoy_gateway(place: Place) -> Component:
    """Return Envoy Gateway in a root folder of its own: it reads /certs and nothing else."""
    root = place.run / "envoy-gateway"
    return Component(
        "envoy-gateway",
        ("chroot", str(root), "/envoy-gateway", "server", "--config-path=/config.yaml"),
        {"HOME": "/", "KUBECONFIG": "/kubeconfig"},
    )


def _kubeconfigs(path: Path) -> dict[str, str | Path]:
    return {
        "kubeconfig": path,
        "authentication_kubeconfig": path,
        "authorization_kubeconfig": path,
        "leader_elect": "false",
        "bind_address": "127.0.0.1",
        "profiling": "false",
    }
