"""Runs inside the namespaces: starts the components in order, then watches them.

python -m tests.cluster.supervisor NAME
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from penstock.core.errors import LifecycleError
from tests.cluster import build, components, containerfiles, images, kserve, packages, pki, prepare
from tests.cluster.components import Component
from tests.cluster.discovery import Discovery
from tests.cluster.places import PROMETHEUS, REGISTRY, S3, Place, cache
from tests.cluster.restarts import Restarts
from tests.cluster.waiting import pause, until

_PATIENCE_S = 240
"""For one step of a start: five times what it takes where many others work."""


class ComponentDied(LifecycleError):
    """A process of the cluster ended by itself."""


class Supervisor:
    """Starts and watches the components of one cluster."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._began = time.monotonic()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._components: dict[str, Component] = {}

    def up(self) -> None:
        """Start everything, in the order in which one thing needs another."""
        place = self._place
        binaries = build.binaries(self._say)
        debian, python = packages.debian(self._say), packages.environment(self._say)
        builder = containerfiles.Builder(debian, packages.base(debian, self._say), self._say)
        prepare.machine(place, debian)
        prepare.files(place, binaries)
        pki.write(place.pki)
        kserve.rendered(binaries["kubectl"], place.pki / "ca.crt", place.run / "manifests")
        prepare.managers(place, binaries["envoy-gateway"])
        alone = list(place.run.parent.iterdir()) == [place.run]  # or another's registry writes
        if alone and any((cache() / "registry").iterdir()):
            images.collect(place.config / "registry.yaml")
        self._say("machine prepared")

        self._start(*components.stores(place, python))
        self._wait("etcd", lambda: _answers("http://127.0.0.1:2379/health"))
        self._start(components.api_server(place))
        self._wait("registry", lambda: _answers(f"http://{REGISTRY}/v2/"))
        for name in containerfiles.started():
            builder.push(name, REGISTRY)
        thin = images.thin_images(containerfiles.stand_in())
        for image in (*images.images(binaries, debian, python), *thin):
            images.push(image, f"http://{REGISTRY}", self._say)
        self._wait("kube-apiserver", lambda: self._kubectl("get", "--raw=/readyz"))
        self._start(*components.controllers(place))
        self._wait("containerd", Path("/run/containerd/containerd.sock").exists)
        self._start(*components.node(place))
        self._kserve()
        self._gateway()
        self._ready()
        self._record()

    def watch(self) -> None:
        """Stay until the namespaces end; start again what ends before."""
        restarts, discovery = Restarts(), Discovery(self._place)
        due: dict[str, float | None] = {}
        while True:
            now = time.monotonic()
            for name, process in self._running.items():
                if name not in due and process.poll() is not None:
                    due[name] = restarts.ended(name, now)
                    left = ", too often: left alone" if due[name] is None else ""
                    self._say(f"{name} ended with {process.returncode}{left}")
            again = [name for name, at in due.items() if at is not None and at <= now]
            if again:
                self._start(*(self._components[name] for name in again))
                self._note()
            for name in again:
                del due[name]
            discovery.refresh()
            pause(1)

    def _kserve(self) -> None:
        self._wait("CRDs created", lambda: kserve.define(self._place))
        established = ("wait", "--for=condition=Established", "crd", "--all", "--timeout=9s")
        self._wait("CRDs established", lambda: self._kubectl(*established))
        self._wait("KServe's settings", lambda: self._apply("settings.json"))
        self._start(*components.kserve(self._place))
        self._wait("the node's objects", lambda: self._apply(self._place.config / "node.yaml"))
        for url in components.KSERVE_HEALTH, components.LLMISVC_HEALTH, components.LWS_HEALTH:
            self._wait(url, lambda url=url: _answers(url))  # type: ignore[misc]
        self._apply("webhooks.json")
        self._wait("KServe's webhooks", lambda: self._apply("presets.json"))

    def _gateway(self) -> None:
        namespace = "envoy-gateway-system"
        root = self._place.run / "envoy-gateway"
        subprocess.run(
            ["envoy-gateway", "certgen", "--disable-topology-injector"],
            check=True,
            capture_output=True,
            env={**_environment(), "KUBECONFIG": str(self._place.kubeconfig)},
        )
        secret = json.loads(
            self._kubectl("get", "secret", "envoy-gateway", f"-n{namespace}", "-ojson")
        )
        for name in ("tls.crt", "tls.key", "ca.crt"):
            (root / "certs" / name).write_bytes(base64.b64decode(secret["data"][name]))
        self._start(components.envoy_gateway(self._place))
        self._wait("envoy-gateway", lambda: _answers(components.ENVOY_GATEWAY_HEALTH))
        self._apply(self._place.config / "gateway.yaml")

    def _ready(self) -> None:
        for what, command in {
            "node Ready": ("node/node1", "--for=condition=Ready"),
            "DNS Available": ("deployment/coredns", "-nkube-system", "--for=condition=Available"),
            "Gateway Programmed": (
                "gateway/kserve-ingress-gateway", "-nkserve", "--for=condition=Programmed",
            ),
        }.items():  # fmt: skip
            self._wait(what, partial(self._kubectl, "wait", "--timeout=1s", *command))

    def _record(self) -> None:
        selector = "gateway.envoyproxy.io/owning-gateway-name=kserve-ingress-gateway"
        service = json.loads(self._kubectl("get", "svc", "-A", f"-l{selector}", "-ojson"))["items"]
        seconds = time.monotonic() - self._began
        state = {
            "seconds": round(seconds, 1),
            "components": {name: process.pid for name, process in self._running.items()},
            "kubeconfig": str(self._place.kubeconfig),
            "gateway": f"http://{service[0]['spec']['clusterIP']}",
            "registry": REGISTRY,
            "s3": S3,
            "prometheus": PROMETHEUS,
        }
        self._write(state)
        self._say("up")

    def _write(self, state: dict[str, Any]) -> None:
        half = self._place.state.with_suffix(".half")
        half.write_text(json.dumps(state, indent=2))
        half.replace(self._place.state)

    def _start(self, *started: Component) -> None:
        for component in started:
            mode = "ab" if component.name in self._components else "wb"
            with (self._place.logs / f"{component.name}.log").open(mode) as log:
                self._running[component.name] = subprocess.Popen(
                    component.command,
                    env={**_environment(), **component.environment},
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                )  # fmt: skip
            self._components[component.name] = component

    def _note(self) -> None:
        """Write down which processes the components are now."""
        state = json.loads(self._place.state.read_text())
        state["components"] = {name: process.pid for name, process in self._running.items()}
        self._write(state)

    def _wait(self, what: str, check: Callable[[], object]) -> None:
        def checked() -> object:
            for name, process in self._running.items():
                if process.poll() is not None:
                    log = self._place.logs / f"{name}.log"
                    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
                    raise ComponentDied(f"{name} ended with {process.returncode}:\n{tail}")
            try:
                return check()
            except (subprocess.CalledProcessError, httpx.HTTPError):
                return False

        until(what, checked, _PATIENCE_S)
        self._say(what)

    def _apply(self, manifest: str | Path) -> str:
        path = self._place.run / "manifests" / manifest
        # to validate, kubectl would have the server write its whole OpenAPI document: seconds, and
        # on a busy machine more than it waits for
        return self._kubectl(
            "apply", "--server-side", "--force-conflicts", "--validate=false", f"-f{path}"
        )

    def _kubectl(self, *arguments: str) -> str:
        done = subprocess.run(
            ["kubectl", f"--kubeconfig={self._place.kubeconfig}", *arguments],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            with (self._place.logs / "kubectl.log").open("a") as log:
                log.write(f"{' '.join(arguments)}: {done.stderr[-2000:]}\n")
            done.check_returncode()
        return done.stdout or "done"

    def _say(self, what: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {what}", flush=True)


def _answers(url: str) -> bool:
    return httpx.get(url, timeout=2).is_success


def _environment() -> dict[str, str]:
    return dict(os.environ)


def main() -> None:
    """Bring a cluster up and stay; whatever fails is the last line."""
    supervisor = Supervisor(Place(sys.argv[1]))
    try:
        supervisor.up()
    except (LifecycleError, subprocess.CalledProcessError, OSError, httpx.HTTPError) as problem:
        print(f"failed: {problem}", flush=True)
        sys.exit(1)
    supervisor.watch()


if __name__ == "__main__":
    main()
