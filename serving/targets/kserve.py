"""A cluster with KServe: objects through its API, traffic by its gateway, counters of its pods."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial

import httpx

from penstock.core.checks import refuse
from penstock.core.errors import ConfigurationError, NotReady
from penstock.core.manifest import Manifest
from penstock.core.replica import MOST_NODES
from penstock.core.settings import Settings
from penstock.core.spec import KServe, ModelSpec, Rollout
from serving import kube
from serving.cluster import Object
from serving.controller import record_of
from serving.doors import Door
from serving.gpus.surge import Beside, Candidate, Decision, Stable, decide
from serving.headers import SERVICE, WEIGHTS
from serving.kserve import http_route, llm_inference_service, runtimes, virtual_service
from serving.kserve.facts import Facts, Storage
from serving.kserve.inference_service import AUTOSCALER
from serving.kserve.traffic import MECHANISMS, IstioTraffic, LlmTraffic, RouteTraffic
from serving.kube import KubernetesCluster
from serving.kube.calls import Target as ApiTarget
from serving.kube.errors import Forbidden, Unreachable
from serving.kube.patience import Patience
from serving.manifests import NAME, VERSION, replicas_of, version_of
from serving.sources.pods import PodCounters, Scraper
from serving.sources.replay import Load, Prompt
from serving.sources.world import ObservedWorld, Place
from serving.targets import checks, configmaps, probe
from serving.targets.diagnosis import replaced, sentence, warning
from serving.targets.scrape import PodScraper, PrometheusScraper, prometheus
from serving.targets.target import MAX_NEW_TOKENS, prompts_from_json, prompts_to_json
from serving.traffic import Traffic

_ASKED_S = 5.0

PATIENCE = Patience(total_s=10.0)
"""Less than a lease lasts: who cannot write must not believe for longer that it is its turn."""


def connect(where: KServe, settings: Settings) -> ClusterTarget:
    """Return a cluster as a target; asks it what it is.

    Raises:
        ConfigurationError: There is no way in, or it cannot split traffic, with the fix.
        ServingError: It does not answer.
    """
    cluster = kube.connect(where.context or "", where.namespace, patience=PATIENCE)
    return ClusterTarget(cluster, where, storage_of(settings), probe.look(cluster, where))


def storage_of(settings: Settings) -> Storage:
    """Return how pods reach checkpoints, as the settings have it."""
    from penstock.core.settings import PUBLIC_HUB

    hub = "" if settings.hub_endpoint == PUBLIC_HUB else settings.hub_endpoint
    return Storage(
        hub_endpoint=hub,
        s3_endpoint=settings.s3_endpoint,
        s3_region=settings.s3_region,
        secret=settings.storage_secret,
    )


@dataclass(frozen=True)
class ClusterTarget:
    """A `Target`.

    Args:
        cluster: The namespace that models live in.
        where: What the spec says of it.
        storage: How pods reach checkpoints.
        found: What the cluster said of itself.
    """

    cluster: KubernetesCluster
    where: KServe
    storage: Storage
    found: checks.Found
    look_s: float = 1.0
    began: bool = True

    @property
    def options(self) -> str:
        """What names it to other commands; mode `standard` has no rollouts there."""
        where = self.where
        context = f" --context {where.context}" if where.context else ""
        mode = f" --mode {where.mode}" if where.mode in ("route", "llmisvc", "istio") else ""
        return f"{context} --namespace {where.namespace}{mode}"

    @property
    def hint(self) -> str:
        """The command that shows what goes on there."""
        return f"penstock status{self.options}"

    @cached_property
    def facts(self) -> Facts:
        """What the objects depend on."""
        return checks.facts_of(self.found, self.where, self.storage)

    @cached_property
    def traffic(self) -> Traffic:
        """The mechanism that the spec names, or the best that the cluster can do."""
        chosen = checks.mechanism(self.found, self.where)
        return MECHANISMS.get(chosen, RouteTraffic)(self.facts)

    @cached_property
    def log(self) -> configmaps.ConfigMapLog:
        """ConfigMaps beside the record."""
        return configmaps.ConfigMapLog(self.cluster)

    def require(self, model: ModelSpec) -> None:
        """Raise what keeps a model from being served there."""
        found = probe.look(self.cluster, self.where, rights=True)
        refuse(checks.checks(found, self.where, model))
        self._leads_alone(model.name)
        if self.where.prometheus:
            refuse([prometheus(self.where.prometheus, self.where.namespace)])

    def surge(self, model: ModelSpec, service: str, stable: str) -> Decision:
        """Return what the cluster has room for; what cannot be seen hinders nothing.

        A candidate that finds no devices waits, and is rolled back; who is served stays.
        """
        if not runtimes.devices(model):
            return Beside("no devices are wanted")
        if model.rollout.surge == "unchecked":
            return Beside("not looked at: rollout.surge is unchecked")
        seen = probe.devices(self.cluster, model.hardware)
        if seen is None:
            return Beside("not known whether it fits: nodes or pods cannot be listed")
        wanted = seen.wanted(self.facts.offers)
        candidate = Candidate(service, model.replicas, wanted)
        lender = self._lender(stable, seen.held(self.pods(stable), wanted)) if stable else None
        return decide(seen.inventory, lender, candidate, model.rollout)

    def _lender(self, stable: str, held: tuple[tuple[str, int], ...]) -> Stable | None:
        """Return the version that is served, if its replicas are ours to move."""
        obj = self.cluster.get(self.traffic.served, stable)
        if obj is None or obj["metadata"].get("annotations", {}).get(AUTOSCALER) != "none":
            return None
        return Stable(stable, replicas_of(obj), held)

    def storage_for(self, manifest: Manifest, *, as_it_came: bool) -> str:
        """Return the spec's storage, or the Hub for what came from there as it is."""
        if self.where.storage:
            return self.where.storage
        source = manifest.source
        if as_it_came and source.scheme == "hf" and source.pinned:
            return f"hf://{source.path}:{source.revision}"
        what = str(source) if as_it_came else f"what was made from {source}"
        raise ConfigurationError(
            f"pods cannot pull {what} themselves",
            hint="set target.kserve.storage to s3://BUCKET/PREFIX or pvc://CLAIM/PATH=/FOLDER",
        )

    def door(self, name: str) -> Door:
        """Return the gateway, with the name's host; `llmisvc` has a path per name."""
        url = checks.address_of(self.found, self.where)
        if isinstance(self.traffic, LlmTraffic):
            return Door(url + llm_inference_service.base(name, self.facts), {})
        host, *_ = self.facts.gateway.hostnames(name, self.where.namespace)
        return Door(url, {"Host": host})

    def observed(self, name: str) -> Mapping[str, int]:
        """Return the weights that the gateway has accepted."""
        obj = self.cluster.get(self.traffic.carrier, name)
        if obj is None:
            return {}
        if isinstance(self.traffic, IstioTraffic):
            return virtual_service.observed(obj, _answered_by(self.door(name)))
        if isinstance(self.traffic, RouteTraffic):
            return http_route.observed(obj, self.facts)
        names = map(llm_inference_service.route_name, self.traffic.weights_of(obj))
        members = [self.cluster.get("HTTPRoute", each) for each in names]
        if None in members:
            return {}
        return llm_inference_service.observed(obj, filter(None, members), self.facts)

    def counters(self, name: str, candidate: str, stable: str) -> PodCounters:
        """Return the counters of the versions' pods."""
        scraper = Scraper(self._scraper.pods, self._scraper.samples)
        return PodCounters(scraper, name, candidate=candidate, stable=stable, clock=time.time)

    def world(self, name: str, policy: Rollout) -> ObservedWorld:
        """Return what a rollout sees; it replays the prompts that were kept.

        Raises:
            NotReady: The gateway cannot be reached: nothing could be asked.
        """
        here = replace(self, found=probe.look(self.cluster, self.where))  # it may have changed
        door = here.door(name)
        if not door.url.startswith("http"):
            gateway = "/".join(checks.gateway_of(self.where, here.found.ingress))
            raise NotReady(
                f"gateway {gateway}",
                reason="it has no address",
                waited_s=0,
                hint="set target.kserve.address, or --address, to the URL by which it is reached",
            )
        obj = self.cluster.get(self.traffic.carrier, name)
        record = record_of(obj) if obj is not None else None
        prompts, max_new_tokens = list[Prompt](), MAX_NEW_TOKENS
        kept = configmaps.kept_prompts(self.cluster, record.candidate) if record else None
        if kept is not None:
            prompts, max_new_tokens = prompts_from_json(kept)
        place = Place(
            self.cluster,
            self.traffic,
            name,
            ClusterDoors(door, self.hint),
            partial(here.observed, name),
            partial(self.counters, name),
            self.why,
            self.replaced,
        )
        load = Load(max_new_tokens=max_new_tokens)
        return ObservedWorld(place, policy, prompts, load, time.time)

    def why(self, service: str) -> str:
        """Return what is wrong with a version's pods, in a sentence; or why nobody can tell."""
        try:
            return sentence(self.pods(service)) or warning(self._warnings(), service)
        except (Forbidden, Unreachable) as problem:
            return f"{problem}; {problem.hint}"  # a diagnosis; whoever asks goes on without it

    def replaced(self, service: str) -> bool:
        """Return whether somebody took a version's pods away, and others start."""
        try:
            return replaced(self.pods(service))
        except (Forbidden, Unreachable):
            return False

    def pods(self, service: str) -> list[Object]:
        """Return a version's pods."""
        query = {"labelSelector": self._selector(service)}
        target = ApiTarget("Pod", self.cluster.namespace)
        found, _ = self.cluster.api.list(target.call("list", query=query))
        return found

    def keep_prompts(self, candidate: str, prompts: Iterable[Prompt], max_new_tokens: int) -> None:
        """Keep them in ConfigMaps."""
        text = prompts_to_json(prompts, max_new_tokens)
        configmaps.keep_prompts(self.cluster, candidate, text)

    def forget_prompts(self, candidate: str) -> None:
        """Remove the ConfigMaps."""
        configmaps.forget_prompts(self.cluster, candidate)

    @cached_property
    def _scraper(self) -> PodScraper:
        if self.where.prometheus:
            return PrometheusScraper(self.cluster, self._answering, self.where.prometheus)
        return PodScraper(self.cluster, self._answering)

    def _answering(self, service: str) -> str:
        """Select the pods that answer users: of those that are one replica, the leader."""
        label = "leaderworkerset.sigs.k8s.io/worker-index"
        others = (f"{label}!={at}" for at in range(1, MOST_NODES))
        return ",".join([self._selector(service), *others])

    def _selector(self, service: str) -> str:
        """Select a version's pods: an InferenceService's by KServe's own label.

        One that was adopted has no other, and may have any name.
        """
        if self.traffic.served == "InferenceService":
            return f"serving.kserve.io/inferenceservice={service}"
        return f"{NAME}={service.rpartition('-v')[0]},{VERSION}={version_of(service)}"

    def _leads_alone(self, name: str) -> None:
        """Refuse a name whose users another mechanism leads.

        Its version would be taken for a leftover, and its users for nobody's.
        """
        mode = probe.led_by(self.cluster, name, self.facts, self.found)
        chosen = checks.mechanism(self.found, self.where)
        if mode and mode != chosen:
            raise ConfigurationError(
                f"{name} is served in mode {mode} already, and mode {chosen} was chosen",
                hint=f"set target.kserve.mode: {mode}, or choose another name",
            )

    def _warnings(self) -> list[Object]:
        target = ApiTarget("Event", self.cluster.namespace)
        query = {"fieldSelector": "type=Warning"}
        found, _ = self.cluster.api.list(target.call("list", query=query))
        return found


@dataclass(frozen=True, slots=True)
class ClusterDoors:
    """The gateway's: our HTTPRoute leads a request that names a version to it alone."""

    users: Door
    hint: str

    def version(self, service: str) -> Door:
        """Return users' way, with the version's name."""
        return Door(self.users.url, {**self.users.headers, SERVICE: service})

    def alive(self) -> Door:
        """Return the list of models, of whoever serves users now."""
        return Door(f"{self.users.url}/v1/models", self.users.headers)


def _answered_by(door: Door) -> str | None:
    """Return by which weights a gateway says that it routes users; None while it says nothing."""
    try:
        answer = httpx.get(f"{door.url}/v1/models", headers=door.headers, timeout=_ASKED_S)
    except httpx.HTTPError:
        return None
    return str(answer.headers[WEIGHTS]) if WEIGHTS in answer.headers else None
