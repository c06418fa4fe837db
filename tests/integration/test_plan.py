"""`penstock plan` against the mirror: headers by range requests, never the weights."""

from __future__ import annotations

import json
import resource
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from components.steps import planning
from components.steps.verbs import spec_of
from penstock.cli.app import app
from penstock.core.errors import (
    AccessDenied,
    CheckpointBroken,
    ConfigurationError,
    DataRefused,
    HubError,
    LifecycleError,
    PolicyRefused,
)
from penstock.core.identity import Digest, ModelRef
from penstock.core.recipes import DEFAULTS
from penstock.core.settings import Settings
from penstock.core.spec import ModelSpec
from registry.headers import look
from registry.pull import Hub
from serving.local import lifecycle
from serving.manifests import Release, route
from serving.runtimes.launch import launch
from serving.traffic import LocalTraffic
from tests.fakes.hub import Network, hub
from tests.unit.serving.sizing.checkpoints import tensors
from tests.unit.serving.sizing.published import published

pytestmark = pytest.mark.integration

LLAMA = next(each for each in published() if each.name.endswith("Llama-3.1-8B"))


def _header(entries: Mapping[str, Any]) -> bytes:
    body = json.dumps(entries).encode()
    return struct.pack("<Q", len(body)) + body


def _weights(config: Mapping[str, Any], part: int = 0, parts: int = 1) -> bytes:
    """Return the header of one of a model's files; nothing follows it."""
    entries, at = {}, 0
    for tensor in tensors(config)[part::parts]:
        end = at + tensor.size
        entries[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [at, end],
        }
        at = end
    return _header(entries)


def _repository(root: Path, name: str, files: Mapping[str, bytes], **settings: object) -> None:
    folder = root / "acme" / name
    folder.mkdir(parents=True)
    for path, content in files.items():
        (folder / path).write_bytes(content)
    if settings:
        (folder / ".penstock-hub.json").write_text(json.dumps(settings))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hub")
    config = json.dumps(LLAMA.config).encode()
    whole = {"config.json": config, "model.safetensors": _weights(LLAMA.config)}
    shards = {
        "config.json": config,
        "model-00001-of-00002.safetensors": _weights(LLAMA.config, 0, 2),
        "model-00002-of-00002.safetensors": _weights(LLAMA.config, 1, 2),
        "consolidated.safetensors": _weights(LLAMA.config),  # the same again, in another layout
    }
    long = {f"model.layers.{i % 32}.extra.{'x' * 500}.{i}": _entry() for i in range(400)}
    _repository(root, "chat", shards)
    _repository(root, "long", {"config.json": config, "model.safetensors": _header(long)})
    _repository(root, "gated", whole, gated=True)
    _repository(root, "pickles", {"config.json": config, "pytorch_model.bin": b"p"})
    _repository(root, "bare", {"model.safetensors": whole["model.safetensors"]})
    _repository(root, "damaged", {"config.json": config, "model.safetensors": b"\xff" * 64})
    _repository(root, "nonsense", {**whole, "config.json": b"{"})
    return root


def _entry() -> dict[str, Any]:
    return {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}


@pytest.fixture(scope="module")
def network() -> Network:
    return Network()


@pytest.fixture(scope="module")
def endpoint(root: Path, network: Network) -> Iterator[str]:
    with hub(root, network) as url:
        yield url


@pytest.fixture
def home(tmp_path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return tmp_path


def _plan(home: Path, *words: str, **spec: Any) -> Result:
    body = {"name": "acme", "source": "hf://acme/chat", **spec}
    path = home / "model.yaml"
    path.write_text(json.dumps(body))
    return CliRunner().invoke(app, ["plan", str(path), *words])


def _problem(result: Result) -> LifecycleError:
    assert isinstance(result.exception, LifecycleError), result.output
    return result.exception


GPU = {"hardware": {"accelerator": "nvidia-l40s"}}


def test_the_mirror_answers_ranges(endpoint: str) -> None:
    url = f"{endpoint}/acme/chat/resolve/main/model-00001-of-00002.safetensors"
    found = httpx.get(url, headers={"Range": "bytes=0-7"})
    assert (found.status_code, len(found.content)) == (206, 8)


def test_headers_are_read_by_ranges_and_nothing_else(home: Path, network: Network) -> None:
    network.ranges.clear()
    result = _plan(home, **GPU)
    assert result.exit_code == 0, result.output
    assert network.ranges == ["bytes=0-7", *["bytes=0-100000"] * 2]
    assert "8.03 B parameters" in result.output
    assert "vllm on 1 x nvidia-l40s, bf16, tp 1" in result.output
    assert "nothing runs under this name" in result.output


def test_it_takes_two_seconds_of_a_processor_at_most(home: Path) -> None:
    path = home / "model.yaml"
    path.write_text(json.dumps({"name": "acme", "source": "hf://acme/chat", **GPU}))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = [sys.executable, "-m", "penstock.cli", "plan", str(path)]
    subprocess.run(words, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
    assert spent < 2.0


def test_a_long_header_is_read_whole(endpoint: str, network: Network) -> None:
    network.ranges.clear()
    found = look(ModelRef.parse("hf://acme/long"), Hub(endpoint))
    assert len(found.tensors) == 400
    asked, first, second = network.ranges
    assert (asked, first) == ("bytes=0-7", "bytes=0-100000")
    assert second.startswith("bytes=8-")


@pytest.fixture
def whole(network: Network) -> Iterator[Network]:
    network.fault, network.sent = "whole", 0
    yield network
    network.fault = ""


def test_a_mirror_without_ranges_is_told_and_not_downloaded(home: Path, whole: Network) -> None:
    problem = _problem(_plan(home, **GPU))
    assert isinstance(problem, HubError)
    assert "sends no parts of files" in str(problem)
    assert "HF_ENDPOINT" in problem.hint
    assert whole.sent < 1 << 26


ON_CLUSTER = {**GPU, "target": {"kserve": {}}}


def _planned(endpoint: str, **fields: Any) -> tuple[ModelSpec, dict[str, Any]]:
    spec = ModelSpec.model_validate({"name": "acme", "source": "hf://acme/chat", **fields})
    return planning.plan(spec, spec.ref, Hub(endpoint))


def test_a_run_serves_what_the_plan_chose(endpoint: str, home: Path) -> None:
    small = {"hardware": {"accelerator": "nvidia-l4"}, "target": {"kserve": {}}}
    chosen, told = _planned(endpoint, **small)
    planned = json.loads(_plan(home, "--output", "json", hardware=small["hardware"]).output)
    assert (chosen.runtime, chosen.precision) == ("vllm", ())
    assert chosen.serving.context == planned["context"] < 131_072
    assert told["made"]
    assert told["told"] == f"vllm on 1 x nvidia-l4, bf16, tp 1, context {planned['context']:,}"
    assert set(told["reasons"]) <= set(planned["reasons"])


def test_later_steps_read_what_was_chosen(endpoint: str) -> None:
    spec = ModelSpec.model_validate({"name": "acme", "source": "hf://acme/chat", **ON_CLUSTER})
    chosen, told = planning.plan(spec, spec.ref, Hub(endpoint))
    resolved = json.dumps({"plan": told, "chosen": planning.chosen(chosen)})
    assert spec_of(spec.to_json(), resolved) == chosen
    assert spec_of(spec.to_json(), json.dumps({"source": "x"})) == spec
    words = launch(chosen).args
    assert "--max-model-len=131072" in words
    assert "--max-num-seqs=256" in words


def test_a_run_without_headers_goes_on_and_says_so(endpoint: str, whole: Network) -> None:
    chosen, told = _planned(endpoint, **ON_CLUSTER)
    assert not told["made"]
    assert told["told"].startswith("not planned, vllm by default: ")
    assert "sends no parts of files" in told["told"]
    assert (chosen.runtime, chosen.precision, chosen.serving.context) == ("vllm", (), None)
    assert whole.sent < 1 << 26


def test_devices_that_sizing_does_not_know_are_served_by_default(endpoint: str) -> None:
    amd = {"hardware": {"accelerator": "amd-mi300x-192gb"}, "target": {"kserve": {}}}
    chosen, told = _planned(endpoint, **amd)
    assert "knows amd-mi300x-192gb" in told["told"]
    assert chosen.runtime == "vllm"


def test_a_run_that_cannot_fit_is_refused_before_anything_is_pulled(endpoint: str) -> None:
    small = {"hardware": {"accelerator": "nvidia-l4"}, "serving": {"context": 131_072}}
    with pytest.raises(ConfigurationError, match="does not fit") as refused:
        _planned(endpoint, **small, target={"kserve": {}})
    assert refused.value.hint.startswith("serving.context: ")


def test_what_must_be_made_smaller_needs_something_to_judge_it_by(endpoint: str) -> None:
    part = {"accelerator": "nvidia-h100-80gb", "mig": "1g.20gb"}
    wish: dict[str, Any] = {"hardware": part, "target": {"kserve": {}}}
    with pytest.raises(DataRefused, match=r"data\.evaluate is not set") as refused:
        _planned(endpoint, **wish)
    assert "(1g.20gb), fp8-dynamic, tp 1" in str(refused.value)
    chosen, _ = _planned(endpoint, **wish, data={"evaluate": "items.jsonl"})
    assert chosen.precision == (DEFAULTS["fp8-dynamic"],)


def test_what_was_made_must_fit_as_well(tmp_path: Path, endpoint: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA.config))
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(_weights(LLAMA.config))
        file.truncate(file.tell() + sum(each.size for each in tensors(LLAMA.config)))
    four_bits = {"precision": "int4", "serving": {"context": 65_536}}
    small = {"hardware": {"accelerator": "nvidia-l4"}, "target": {"kserve": {}}}
    asked = ModelSpec.model_validate(
        {"name": "acme", "source": "hf://acme/chat", **small, **four_bits}
    )
    chosen, told = planning.plan(asked, asked.ref, Hub(endpoint))
    assert "w4a16" in told["told"]
    assert any("evaluation refuses w4a16" in each for each in told["warnings"])
    with pytest.raises(ConfigurationError, match=r"bf16.*does not fit"):
        planning.require(chosen, asked, tmp_path)


def test_programs_get_everything(home: Path) -> None:
    result = _plan(home, "--output", "json", "--load", "3:1000:200", **GPU)
    found = json.loads(result.output)
    assert found["fits"] is True
    assert found["source"].startswith("hf://acme/chat@")
    assert (found["engine"], found["precision"], found["context"]) == ("vllm", "bf16", 131072)
    assert found["replicas"] == 1
    assert not any(found["running"].values())
    assert {item["name"] for item in found["items"]} >= {"weights", "activations", "CUDA graphs"}


def test_explained_it_names_what_was_rejected(home: Path) -> None:
    result = _plan(home, "--explain", precision=["fp8", "nvfp4", "int4"], **GPU)
    assert "fits: vllm on 1 x nvidia-l40s, fp8-dynamic, tp 1" in result.output
    assert "w4a16, tp 1: fits too" in result.output
    assert "headers of the safetensors files" in result.output


def test_what_is_not_counted_is_said(home: Path) -> None:
    guess = {"kind": "draft", "model": "draft", "tokens": 4}
    result = _plan(home, **GPU, serving={"speculative": guess, "lora": {"adapters": {"a": "l"}}})
    assert "the weights of draft and its cache are not counted" in result.output
    assert "serving.lora: adapters are not counted" in result.output


def test_what_does_not_fit_is_refused_with_what_would(home: Path) -> None:
    small = {"hardware": {"accelerator": "nvidia-l4"}, "serving": {"context": 131072}}
    problem = _problem(_plan(home, **small))
    assert isinstance(problem, ConfigurationError)
    assert problem.exit_code == 2
    assert "do not fit into the" in str(problem)
    assert problem.hint.startswith("serving.context: ")
    assert "hardware.accelerator: nvidia-a100-40gb" in problem.hint


@pytest.mark.parametrize(
    ("spec", "told", "hint"),
    [
        ({"serving": {"context": 200_000}}, "made for 131,072 tokens", "at most 131,072"),
        (
            {
                "hardware": {"accelerator": "nvidia-l40s", "count": 3},
                "serving": {"tensor_parallel": 3},
            },
            "does not divide the 32 heads",
            "tensor_parallel: 2",
        ),
        ({"runtime": "cpu"}, "runtime cpu cannot use nvidia-l40s", "runtime: auto"),
        (
            {"hardware": {"accelerator": "amd-mi300x-192gb"}},
            "knows amd-mi300x-192gb",
            "by vllm unless another is named",
        ),
        (
            {"hardware": {"accelerator": "cpu"}, "runtime": "vllm"},
            "what vllm needs on a CPU is not known",
            "set runtime: auto",
        ),
    ],
)
def test_what_nothing_could_hold_is_refused(
    home: Path, spec: dict[str, Any], told: str, hint: str
) -> None:
    problem = _problem(_plan(home, **{**GPU, **spec}))
    assert told in str(problem)
    assert hint in problem.hint


@pytest.mark.parametrize(
    ("name", "error", "told"),
    [
        ("gated", AccessDenied, "gated"),
        ("pickles", PolicyRefused, "no safetensors files"),
        ("bare", CheckpointBroken, "no config.json"),
        ("damaged", CheckpointBroken, "model.safetensors"),
        ("nonsense", CheckpointBroken, "config.json: not JSON"),
    ],
)
def test_what_cannot_be_read_is_named(
    home: Path, name: str, error: type[LifecycleError], told: str
) -> None:
    problem = _problem(_plan(home, **{**GPU, "source": f"hf://acme/{name}"}))
    assert type(problem) is error
    assert told in str(problem)
    assert problem.hint


def test_a_folder_is_read_from_disk(home: Path) -> None:
    folder = Path("examples/skills/model").absolute()
    result = _plan(home, "--explain", source=f"file://{folder}")
    assert result.exit_code == 0, result.output
    assert "on the CPU engine" in result.output
    assert "2,091,072 parameters x 4 bytes" in result.output


def test_a_pod_that_is_too_small_is_refused(home: Path) -> None:
    spec = {
        "hardware": {"memory": "512Mi"},
        "target": {"kserve": {"context": "nowhere"}},
        "source": f"file://{Path('examples/skills/model').absolute()}",
    }
    problem = _problem(_plan(home, **spec))
    assert "0.50 GiB are there" in str(problem)
    assert problem.hint.startswith("set hardware.memory: ")


def test_it_is_compared_with_what_runs_here(home: Path) -> None:
    folder = Path("examples/skills/model").absolute()
    spec = ModelSpec.model_validate({"name": "acme", "source": f"file://{folder}"})
    cluster = lifecycle.cluster(Settings(home=home / "home"))
    release = Release(1, "file:///x", Digest.of(b"x"))
    cluster.create(LocalTraffic().version(spec, release))
    cluster.create(route("acme", {"acme-v1": 100}))
    same = _plan(home, source=spec.source)
    assert "acme-v1 runs so already, the checkpoint aside" in same.output
    more = _plan(home, source=spec.source, replicas=2)
    assert "2 changes to what runs (acme-v1)" in more.output
    assert "~ predictor.minReplicas: 1 -> 2" in more.output
