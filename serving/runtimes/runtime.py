"""What an engine is, as data; and what an engine may be asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from penstock.core.serving import Eagle
from penstock.core.spec import ModelSpec
from serving.runtimes.settings import MODEL, Setting
from serving.runtimes.signals import Answered, Series, Signal

PORT = 8080
Place = Literal["gpu", "cpu"]
Can = Literal[
    "context",
    "concurrency",
    "max_queued",
    "max_answer_tokens",
    "tensor_parallel",
    "pipeline_parallel",
    "kv_cache",
    "memory_share",
    "chunked_prefill",
    "prefix_caching",
    "speculative: draft",
    "speculative: ngram",
    "speculative: eagle 1",
    "speculative: eagle 3",
    "chat_template",
    "tool_parser",
    "reasoning_parser",
    "lora",
]
"""Fields of `serving` that somebody may set, the values apart that not every engine has."""

CAN_ALL: tuple[Can, ...] = Can.__args__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Runtime:
    """One engine, pinned."""

    key: str
    text: str
    version: str
    image: str
    """NAME:TAG, exact; a name without a tag is one of Penstock's own images."""

    source: str
    """Where image, command, endpoints and options were read, and when."""

    matrix: Mapping[Place, tuple[str, str]]
    """Where it runs → engine and version in `penstock.core.matrix`."""

    known: str
    """File of its options: see `serving.runtimes.known`."""

    settings: Callable[[ModelSpec], Iterator[Setting]]
    """Returns what it is told of a spec. Not how weights are quantized: it reads that from them."""

    can: frozenset[Can]
    """Beside devices."""

    command: tuple[str, ...]
    args: tuple[str, ...] = ()
    """Those that hold for every model."""

    can_on_cpu: frozenset[Can] = frozenset()
    series: Mapping[Signal, Series] = field(default_factory=dict)
    series_source: str = ""
    answered: Answered | None = None
    """None: it does not count failures, so users' requests are no evidence against a version."""

    env: Mapping[str, str] = field(default_factory=dict)
    image_from_spec: bool = False
    """Whether `engine.image` may name another."""

    ready: str = "/health"
    alive: str = "/health"
    metrics: str = "/metrics"
    metrics_port: int = PORT

    start_s: float = 300.0
    """What starting takes beside reading weights: imports, compilation, graphs. An estimate."""

    name_option: str = ""
    """What it is told the model's name by; empty: by `PENSTOCK_NAME`, or not at all."""

    tensor_option: str = ""
    server_type: str = ""
    """KServe's word for it, if it has one: it then takes the image's build for GPU or CPU."""

    model_format: str = "huggingface"
    structured: str = "no"
    over_nodes: tuple[tuple[str, str], ...] = ()
    """Options and values that make one engine of several pods; `{nodes}` is how many. None: it runs
    in one. A LeaderWorkerSet tells each where the leader is, and its own index, the leader's 0."""

    worker_args: tuple[str, ...] = ()
    """What those are told beside that answer nobody."""

    multi_node: str = "no"
    note: str = ""
    """What surprises."""

    frozen: str = ""
    """Why no new version will come."""

    refused: str = ""
    """Why Penstock does not roll it out, though its runtime can be installed."""

    @property
    def name(self) -> str:
        """Name of its ServingRuntime and ClusterServingRuntime."""
        return f"penstock-{self.key}"

    def can_on(self, where: Place) -> frozenset[Can]:
        """Return what it can be told on a kind of hardware."""
        return self.can if where == "gpu" else self.can_on_cpu

    @property
    def own(self) -> bool:
        """Whether the image is Penstock's own."""
        return ":" not in self.image


def nothing(spec: ModelSpec) -> Iterator[Setting]:  # noqa: ARG001
    """Yield nothing: an engine that is told its model's name at most."""
    yield from ()


def place(spec: ModelSpec) -> Place:
    """Return what a replica runs on."""
    return "cpu" if spec.hardware.accelerator == "cpu" else "gpu"


def asked(spec: ModelSpec) -> dict[Can, str]:
    """Return what a spec asks of its engine → the field that asks, as people write it."""
    wish, found = spec.serving, dict[Can, str]()
    plain: tuple[Can, ...] = (
        *("context", "concurrency", "max_queued", "max_answer_tokens", "memory_share"),
        *("chunked_prefill", "prefix_caching", "chat_template", "tool_parser", "reasoning_parser"),
        "lora",
    )
    for can in plain:
        if getattr(wish, can) is not None:
            found[can] = f"serving.{can}"
    if wish.kv_cache != "auto":
        found["kv_cache"] = f"serving.kv_cache: {wish.kv_cache}"
    _, stages = split(spec)
    if stages > 1:
        by = "hardware.nodes" if wish.pipeline_parallel is None else "serving.pipeline_parallel"
        found["pipeline_parallel"] = by
    if place(spec) == "gpu" and spec.hardware.count // stages > 1:
        by = "hardware.count" if wish.tensor_parallel is None else "serving.tensor_parallel"
        found["tensor_parallel"] = by
    if (guess := wish.speculative) is not None:
        kind = f"{guess.kind} {guess.version}" if isinstance(guess, Eagle) else guess.kind
        known: dict[str, Can] = {can.removeprefix("speculative: "): can for can in CAN_ALL}
        found[known[kind]] = f"serving.speculative of kind {kind}"
    return found


def split(spec: ModelSpec) -> tuple[int, int]:
    """Return over how many devices a layer is split, and into how many stages the layers are.

    A stage stays inside a node, where layers are exchanged by NVLink.
    """
    if place(spec) == "cpu":
        return 1, 1
    stages = spec.serving.pipeline_parallel or spec.hardware.nodes
    return spec.serving.tensor_parallel or max(1, spec.hardware.count // stages), stages


SERVED = "/tmp/served"  # noqa: S108 - of a container of its own
"""Where a link has the model's name, for engines that know no other way to be told."""


def named_by_a_link(program: str, *, below: str = "") -> tuple[str, ...]:
    """Return a command for an engine that calls a model as its folder is called.

    The engine's document, if it has one, is written first; arguments follow the program's.
    """
    script = (
        f'mkdir -p {SERVED} && ln -sfn {MODEL}{below} "{SERVED}/$PENSTOCK_NAME" && '
        f'printf %s "$PENSTOCK_CONFIG" > /tmp/config.yaml && '
        f'exec {program} "{SERVED}/$PENSTOCK_NAME" "$@"'
    )
    return ("/bin/sh", "-c", script, program)
