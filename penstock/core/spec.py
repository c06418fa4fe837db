"""`model.yaml`: the one document that says what to serve and how good it must be.

`name` and `source` suffice; every other field has a default. Frozen, and unknown fields are
mistakes. Read a file with `penstock.core.documents.parse_spec`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from penstock.core.errors import ConfigurationError, RecipeImpossible
from penstock.core.identity import ModelRef
from penstock.core.recipes import DEFAULTS, SHORT_NAMES, Recipe, parse_recipe, recipe_of
from penstock.core.replica import Hardware
from penstock.core.serving import Part as _Part
from penstock.core.serving import Serving
from penstock.core.sources import DataRef
from penstock.core.tasks import Task, TaskLimits
from penstock.core.training import Training


def _reference(text: str) -> str:
    try:
        return str(ModelRef.parse(text))
    except ConfigurationError as problem:
        raise ValueError(str(problem).partition("; allowed: ")[2]) from None


Source = Annotated[str, AfterValidator(_reference)]
DataSource = Annotated[str, AfterValidator(lambda text: str(DataRef.parse(text)))]
Share = Annotated[float, Field(ge=0, le=1)]


class Data(_Part):
    """Data sets: JSONL files, or where they are fetched from (docs/how-to/schedule.md).

    A relative path starts at the folder of model.yaml. Beside paths: s3://BUCKET/KEY,
    pvc://CLAIM/FILE=/FOLDER, hf://datasets/ORG/NAME@REVISION/FILE, sql:VARIABLE:SELECT ....
    """

    train: DataSource | None = Field(None, description="What the model is trained on, if it is.")
    evaluate: DataSource | None = Field(
        None, description="What every version is evaluated on; without it nothing is proven."
    )
    calibrate: DataSource | None = Field(None, description="What quantization is calibrated with.")


class Evaluation(_Part):
    """How good a version must be before it is registered."""

    suite: Literal["exact-match"] = Field(
        "exact-match", description="How an answer is scored: equal to the expected one, or not."
    )
    min_exact_match: Share = Field(
        0.0, description="Share of right answers below which the version is refused."
    )
    max_quality_loss: float = Field(
        0.015,
        gt=0,
        le=1,
        description="Margin of non-inferiority against the champion: share of right answers "
        "that may be lost.",
    )
    max_new_tokens: int = Field(64, ge=1, le=4096, description="Longest answer, in tokens.")


class Slo(_Part):
    """What users are promised; p95 over a window, seconds and shares."""

    ttft_p95_s: float = Field(1.0, gt=0, description="Time to first token, in seconds.")
    tpot_p95_s: float = Field(0.05, gt=0, description="Time per output token, in seconds.")
    error_rate: Share = Field(0.005, description="Share of requests that may fail.")


class Policy(_Part):
    """What a checkpoint may contain. Nothing is unpickled, whatever is allowed here."""

    allow_remote_code: bool = Field(
        False, description="Accept a repository with Python code of its own (`auto_map`, *.py)."
    )
    allow_pickle: bool = Field(
        False, description="Accept a repository that has weights only as pickles."
    )
    licenses: list[str] | None = Field(
        None, description="Licence identifiers to accept, as on the Hub; null accepts any."
    )


class Margins(_Part):
    """What a difference is worth, for one metric of the rollout."""

    kind: Literal["errors", "latency", "score"] = Field(
        description="errors: share of failed requests; latency: 95th percentile, margins as shares "
        "of the stable version's; score: mean of a number from 0 to 1, higher is better."
    )
    tolerate: float = Field(
        gt=0, lt=1, description="eps: a loss up to this is not worth a rollback."
    )
    reject: float = Field(
        gt=0, le=4, description="D: a loss of this or more is never promoted; above `tolerate`."
    )
    prove_in: list[Literal["shadow", "live"]] = Field(
        ["shadow", "live"],
        description="Where it must prove itself; what is not scored live can only do so in shadow.",
    )

    webhook: str | None = Field(
        None,
        pattern=r"^https?://",
        description="URL that scores answers in shadow, for kind score: it is sent prompt and "
        "answers as JSON, and returns a number from 0 to 1 for candidate and stable.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Margins:
        if self.reject <= self.tolerate:
            raise ValueError(f"reject above tolerate ({self.tolerate})")
        return self


_METRICS = {
    "error_rate": Margins(kind="errors", tolerate=0.001, reject=0.005),
    "quality": Margins(kind="score", tolerate=0.005, reject=0.015, prove_in=["shadow"]),
    "ttft_p95": Margins(kind="latency", tolerate=0.15, reject=0.30),
    "tpot_p95": Margins(kind="latency", tolerate=0.10, reject=0.20),
}
"""Source: rollout simulations, eps and D of the wide-latency policy."""


class Deadlines(_Part):
    """How long each state may last, in seconds; what happens then depends on the state."""

    warmup_s: float = Field(120.0, gt=0, description="Until warm, or it is rolled back.")
    shadow_s: float = Field(3600.0, gt=0, description="Until proven in shadow; see inconclusive.")
    step_s: float = Field(
        3600.0,
        gt=0,
        description="Per step of the ramp, and besides soak_s where that is waited for; see "
        "inconclusive.",
    )
    held_s: float = Field(7200.0, gt=0, description="Held this long, it is rolled back.")


def _precision(given: object) -> object:
    """Return `auto`, or recipes in the order they were given; none keeps the checkpoint's own."""
    if given == "auto" or isinstance(given, tuple):
        return given
    listed = given if isinstance(given, list) else [given]
    return tuple(found for each in listed for found in _recipe(each))


def _recipe(given: object) -> tuple[Recipe, ...]:
    if given == AS_IT_CAME:
        return ()
    if isinstance(given, dict):
        try:
            return (parse_recipe(given, where="a recipe"),)
        except RecipeImpossible as problem:
            raise ValueError(str(problem)) from problem
    if not isinstance(given, str) or given not in SHORT_NAMES:
        raise ValueError(" | ".join(PRECISIONS))
    return (recipe_of(given),)


AS_IT_CAME = "bf16"
PRECISIONS = ("auto", AS_IT_CAME, *sorted(SHORT_NAMES))
_PRECISION_SCHEMA = {
    "anyOf": [
        {"enum": list(PRECISIONS)},
        {
            "type": "object",
            "properties": {"scheme": {"enum": list(DEFAULTS)}},
            "required": ["scheme"],
        },
        {"type": "array", "items": {"type": ["string", "object"]}},
    ]
}
Precision = Annotated[
    Literal["auto"] | tuple[Recipe, ...],
    BeforeValidator(_precision),
    WithJsonSchema(_PRECISION_SCHEMA),
]


class Engine(_Part):
    """What is built where the runtime is tensorrt-llm, and how much it serves at once."""

    strategy: Literal["checkpoint", "engine"] = Field(
        "checkpoint",
        description="checkpoint: ModelOpt's export, served by trtllm-serve; engine: trtllm-build, "
        "for images up to 1.2.",
    )
    image: str = Field(
        "nvcr.io/nvidia/tensorrt-llm/release:1.2.1",
        pattern=r"^[\w./:-]+:\d+\.\d+\.\d+[\w.+-]*(@sha256:[0-9a-f]{64})?$",
        description="TensorRT-LLM image it is built in and served by: NAME:VERSION, exact.",
    )
    max_batch_size: int = Field(64, ge=1, description="Requests at once.")
    max_input_len: int = Field(3072, ge=1, description="Tokens of one prompt.")
    max_seq_len: int = Field(4096, ge=2, description="Tokens of one prompt and its answer.")
    max_num_tokens: int = Field(8192, ge=1, description="Tokens of one step, over all requests.")
    pipeline_parallel: int = Field(
        1,
        ge=1,
        le=16,
        description="Pipeline stages; every layer is split over hardware.count divided by this.",
    )


READY_S = 180.0
"""A small checkpoint in Penstock's CPU engine becomes ready within this."""


class Rollout(_Part):
    """How a new version takes over: by evidence, step by step."""

    steps: list[Annotated[int, Field(ge=1, le=99)]] = Field(
        [10, 25, 50],
        min_length=1,
        description="Share of live traffic per step, in percent, rising; 100 follows.",
    )
    proof: list[Annotated[float, Field(ge=1)]] = Field(
        [4.0, 2.0],
        description="What live traffic must exclude before a step is left, as a multiple of "
        "`reject`, step by step; the steps beyond are left when they have lasted soak_s.",
    )
    metrics: dict[str, Margins] = Field(
        _METRICS,
        min_length=1,
        description="What is compared: error_rate, quality, ttft_p95 and tpot_p95 are measured by "
        "Penstock; other names of kind score come from webhooks, or later, from POST /v1/scores "
        "(on this machine only: on a cluster they can be proven in shadow).",
    )
    false_rollback: float = Field(
        0.01, gt=0, lt=0.5, description="Chance that a version no worse than `tolerate` goes."
    )
    missed: float = Field(
        0.05, gt=0, lt=0.5, description="Chance that a version as bad as `reject` is promoted."
    )
    soak_s: float = Field(
        60.0, ge=0, description="How long steps without proof, and 100 % last, in seconds."
    )
    inconclusive: Literal["hold", "rollback"] = Field(
        "hold", description="What happens when a deadline comes before the evidence."
    )
    thin: Literal["proceed", "wait"] = Field(
        "proceed",
        description="What happens where live traffic is too thin for a step's proof: even a "
        "perfect version would need more than half of step_s. Proceed once the step has lasted "
        "soak_s, a minute at least, on what shadow has proven; or wait.",
    )
    replay_rps: float = Field(
        15.0, ge=0, description="Prompts per second replayed to both versions in shadow, at most."
    )
    stale_after_s: float = Field(
        120.0, gt=0, description="Without new evidence for this long, the rollout is held."
    )
    sticky: bool = Field(
        True, description="A conversation (header X-Penstock-Session) stays on its version."
    )
    deadlines: Deadlines = Field(Deadlines(), description="How long each state may last.")
    ready_timeout_s: float | None = Field(
        None,
        gt=0,
        description="How long a new version may take to become ready, in seconds; null: what its "
        "runtime, and the size of its checkpoint, may need (docs/runtimes.md).",
    )
    surge: Literal["beside", "borrow", "swap", "unchecked"] = Field(
        "beside",
        description="What happens where a cluster has no free devices for a new version beside the "
        "one that is served. beside: it is refused; borrow: the version that is served lends "
        "replicas while the rollout goes on; swap: it is stopped first, and nobody is served until "
        "the new one is ready, without evidence; unchecked: nobody looks, for a cluster that adds "
        "nodes by itself.",
    )
    keep: int | None = Field(
        None,
        ge=1,
        description="Replicas that the version which is served keeps when it lends; null: all but "
        "one.",
    )

    @property
    def ready_within_s(self) -> float:
        """The time that is named; the least that any runtime gets where none is.

        What is stored when a rollout begins names one: `serving.runtimes.launch.patient`.
        """
        return self.ready_timeout_s or READY_S

    @model_validator(mode="after")
    def _rising(self) -> Rollout:
        if sorted(set(self.steps)) != self.steps:
            raise ValueError(f"steps that rise, found {self.steps}")
        return self


class KServe(_Part):
    """A Kubernetes cluster with KServe."""

    context: str | None = Field(None, description="Context of the kubeconfig; null: current.")
    namespace: str = Field(
        "models",
        pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$",
        description="Where the InferenceServices live.",
    )
    mode: Literal["auto", "route", "llmisvc", "istio", "standard"] = Field(
        "auto",
        description="How traffic is split. route: an InferenceService per version, and an "
        "HTTPRoute of Penstock's over them; llmisvc: LLMInferenceServices in a route group; "
        "istio: as route, with a VirtualService for an Istio that does not speak Gateway API; "
        "standard: spec.canary of KServe. auto asks the cluster, and prefers route.",
    )
    gateway: str | None = Field(
        None,
        pattern=r"^[a-z0-9][-a-z0-9.]*/[a-z0-9][-a-z0-9.]*$",
        description="The Gateway that routes, NAMESPACE/NAME; null: KServe's own.",
    )
    address: str | None = Field(
        None,
        pattern=r"^https?://[^/]+$",
        description="URL of the Gateway as seen from here; null: the address in its status.",
    )
    images: str | None = Field(
        None,
        pattern=r"^[\w.-]+(:\d+)?(/[\w./-]+)?$",
        description="Registry of Penstock's images, HOST/PATH; null: their names as they are.",
    )
    runtime_class: str | None = Field(
        None, description="RuntimeClass of every pod, such as nvidia; null: the cluster's default."
    )
    drain_s: int = Field(
        45,
        ge=5,
        le=3600,
        description="How long a removed pod goes on answering what it has begun before its engine "
        "is told to end, in seconds: as long as the longest answer, and never less than gateways "
        "need to hear that it goes.",
    )
    prometheus: str | None = Field(
        None,
        pattern=r"^https?://[^/]+(/.*)?$",
        description="URL of the Prometheus that scrapes the pods; null: they are read directly.",
    )
    storage: str | None = Field(
        None,
        pattern=r"^(s3://[^/]+/.+|pvc://[^/=]+(/[^=]+)?=/.+)$",
        description="Where checkpoints are brought for pods to read: s3://BUCKET/PREFIX, or "
        "pvc://CLAIM/PATH=/FOLDER, a claim that is mounted at FOLDER where this runs. null: pods "
        "pull hf://ORG/NAME themselves, and only what came from the Hub as it is can be served.",
    )


class KServeTarget(_Part):
    """Serve on a cluster."""

    kserve: KServe = Field(description="Which cluster, and where in it.")


class ModelSpec(_Part):
    """What to serve, where it comes from, and how good it must be."""

    api_version: Literal["penstock/v1"] = Field(
        "penstock/v1", alias="apiVersion", description="Version of this document's schema."
    )
    name: str = Field(
        pattern=r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$",
        description="Name of the registered model and of its route: lower-case letters, digits "
        "and dashes, at most 40.",
    )
    source: Source = Field(
        description="Where the checkpoint comes from: hf://ORG/NAME@REVISION, file:///FOLDER, "
        "models:/NAME@ALIAS, s3://BUCKET/PREFIX or pvc://CLAIM/PATH. This version pulls hf and "
        "file."
    )
    hardware: Hardware = Field(Hardware(), description="What one replica runs on.")
    runtime: Literal[
        "auto", "vllm", "sglang", "tensorrt-llm", "triton", "tgi", "huggingface", "cpu"
    ] = Field(
        "auto",
        description="Engine; auto: beside devices the first of vllm, sglang and tensorrt-llm that "
        "runs the checkpoint's format there, cpu without. This machine itself serves with cpu "
        "only.",
    )
    serving: Serving = Field(Serving(), description="How the engine serves.")
    runtime_args: list[str] = Field(
        [],
        description="Further arguments of the engine, for what `serving` has no word for, such as "
        "--fault=live-errors=0.2 of the CPU engine. One that the engine does not know, or that "
        "contradicts `serving`, is refused. The same weights with other arguments are another "
        "version.",
    )
    precision: Precision = Field(
        "auto",
        description="Precision of the weights: a recipe's name, a recipe document with its "
        "`scheme`, or a list of them. The smallest that loses nothing worth speaking of is served; "
        "if none does, the checkpoint as it came (bf16). auto: as it came where that fits, else "
        "the most bits that engine and hardware compute natively and that fit (docs/sizing.md).",
    )
    engine: Engine = Field(Engine(), description="What is built for TensorRT-LLM.")
    replicas: int = Field(1, ge=1, le=64, description="Engine processes or pods per version.")
    data: Data = Field(Data(), description="Data sets to check, evaluate and calibrate with.")
    training: Training = Field(
        Training(), description="How the checkpoint is trained on data.train, where it is."
    )
    evaluation: Evaluation = Field(Evaluation(), description="How good a version must be.")
    slo: Slo = Field(Slo(), description="What users are promised.")
    policy: Policy = Field(Policy(), description="What a checkpoint may contain.")
    rollout: Rollout = Field(Rollout(), description="How a new version takes over.")
    tasks: dict[Task, TaskLimits] = Field(
        {},
        description="Limits of a run's tasks, by name: `train: {timeout_s: 14400, retries: 0}` "
        "(seconds of one try; how often a cluster tries again, twice at most and by default).",
    )
    target: Literal["local"] | KServeTarget = Field(
        "local", description="Where it is served: this machine, or a cluster with KServe."
    )

    @property
    def ref(self) -> ModelRef:
        """The source, parsed."""
        return ModelRef.parse(self.source)

    @property
    def engine_name(self) -> str:
        """The engine that serves it: the one that is named, or what `auto` means."""
        if self.runtime != "auto":
            return self.runtime
        return "cpu" if self.hardware.accelerator == "cpu" else "vllm"

    @property
    def undecided(self) -> bool:
        """Whether runtime or precision are left to what sizing says of the weights.

        On a CPU there is nothing to choose.
        """
        return self.hardware.accelerator != "cpu" and "auto" in (self.runtime, self.precision)

    def to_json(self) -> str:
        """Return the document as the one JSON parameter that pipelines take."""
        return self.model_dump_json(by_alias=True)
