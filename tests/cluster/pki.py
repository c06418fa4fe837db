"""The cluster's keys, certificates and kubeconfigs."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.cluster.places import API_PORT, NODE, NODE_IP

_KUBERNETES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc")
_ADMINS = "system:masters"
_USERS = {
    "admin": ("admin", _ADMINS),
    "apiserver-client": ("kube-apiserver", _ADMINS),
    "controller-manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "kube-proxy": ("system:kube-proxy", ""),
}
_SERVERS = {  # each may be asked under any of these names
    "apiserver": ("kube-apiserver", ""),
    "webhook": ("webhook", ""),
    "kubelet": (f"system:node:{NODE}", "system:nodes"),
}


class Authority:
    """Signs what a cluster needs, into one folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named("penstock-test-cluster", "")
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        builder = self._builder(self._name, self._key).add_extension(constraints, critical=True)
        self._write("ca", self._key, builder.sign(self._key, hashes.SHA256()))

    def issue(self, name: str, common: str, group: str, *, server: bool) -> None:
        """Write NAME.key and NAME.crt."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(_named(common, group), key)
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if server:
            addresses = ("127.0.0.1", "10.96.0.1", NODE_IP)
            names: list[x509.GeneralName] = [
                *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses),
                *(x509.DNSName(dns) for dns in (*_KUBERNETES, "localhost", NODE)),
            ]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        self._write(name, key, builder.sign(self._key, hashes.SHA256()))

    def kubeconfig(self, name: str) -> None:
        """Write NAME.kubeconfig, which carries its keys."""

        def content(file: str) -> str:
            return base64.b64encode((self._folder / file).read_bytes()).decode()

        server = {
            "server": f"https://{NODE_IP}:{API_PORT}",
            "certificate-authority-data": content("ca.crt"),
        }
        user = {
            "client-certificate-data": content(f"{name}.crt"),
            "client-key-data": content(f"{name}.key"),
        }
        text = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": server}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": name}}],
            "current-context": "test",
        }
        path = self._folder / f"{name}.kubeconfig"
        path.touch(0o600)
        path.write_text(json.dumps(text, indent=1))  # JSON is YAML

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=30))
        )

    def _write(
        self, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate
    ) -> None:
        _write_key(self._folder / f"{name}.key", key)
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        (self._folder / f"{name}.crt").write_bytes(pem)


def write(folder: Path) -> None:
    """Write everything into a folder: new keys for every start."""
    authority = Authority(folder)
    for name, (common, group) in _SERVERS.items():
        authority.issue(name, common, group, server=True)
    for name, (common, group) in _USERS.items():
        authority.issue(name, common, group, server=False)
    for name in (*_USERS, "kubelet"):
        authority.kubeconfig(name)
    signing = ec.generate_private_key(ec.SECP256R1())
    _write_key(folder / "service-accounts.key", signing)
    public = signing.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (folder / "service-accounts.pub").write_bytes(public)


def _named(common: str, group: str) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, common)]
    if group:
        parts.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
    return x509.Name(parts)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    path.touch(0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
