"""Every argument list that is written, read by the engines' own parsers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.trtllm.documented import KV_CACHE, SERVE, TORCH_ARGS
from serving.runtimes.catalog import RUNTIMES
from serving.runtimes.known import known
from serving.runtimes.launch import launch, told
from serving.runtimes.runtime import Runtime
from serving.runtimes.settings import Option
from serving.runtimes.vllm import command_line
from tests.conformance.conftest import PARSERS, Ask
from tests.conformance.list_options import OPTIONS
from tests.unit.serving.runtimes.wishes import wishes

OLD_VLLM = replace(
    RUNTIMES["vllm"],
    version="0.24.0",
    can=RUNTIMES["vllm"].can - {"max_queued"},
    settings=lambda spec: command_line(spec, "--no-enable-"),
)
"""What KServe's Hugging Face server and Triton's backend have inside."""


def _lists(runtime: Runtime) -> dict[str, list[str]]:
    """Return everything a runtime may be told, as arguments."""
    found = {}
    for name, spec in wishes(runtime).items():
        settings = [each for each in told(runtime, spec) if isinstance(each, Option)]
        words = [word for each in settings for word in each.words()]
        found[name] = [*runtime.args, *words]
        if spec.hardware.nodes > 1:
            found[f"{name}, a worker"] = [*found[name], *runtime.worker_args]
    return found


@pytest.mark.conformance
@pytest.mark.parametrize(
    ("engine", "version"), [(name, each) for name, every in PARSERS.items() for each in every]
)
def test_an_engine_reads_every_argument_list(
    ask: Ask, tmp_path: Path, engine: str, version: str
) -> None:
    lists = _lists(OLD_VLLM if (engine, version) == ("vllm", "0.24.0") else RUNTIMES[engine])
    file = tmp_path / "lists.json"
    unknown = [["--no-such-option"], ["--port=many"]]
    # a template that is not there is refused, so the checkpoint is here
    (tmp_path / "chat.jinja").write_text("{{ messages }}")
    text = json.dumps([*lists.values(), *unknown])
    text = text.replace("$(LWS_WORKER_INDEX)", "1").replace("$(LWS_LEADER_ADDRESS)", "leader")
    file.write_text(text.replace("/mnt/models", str(tmp_path)))
    answer = ask(f"{engine}-{version}", "read_arguments.py", engine, file)
    assert answer["version"] == version
    *answers, no_option, no_value = answer["answers"]
    refused = {name: a for name, a in zip(lists, answers, strict=True) if "refused" in a}
    assert refused == {}
    assert "refused" in no_option
    assert "refused" in no_value
    _said(engine, dict(zip(lists, answers, strict=True)))
    if (OPTIONS / f"{engine}-{version}.txt").exists():
        there = {spelling for spellings in answer["options"] for spelling in spellings}
        known_to_us = set(known(f"{engine}-{version}").spellings)
        assert known_to_us == there, "python -m tests.conformance.list_options"


def _said(engine: str, answers: Mapping[str, Mapping[str, Any]]) -> None:
    """What was read is what was meant, in the parser's own names."""
    read = answers["everything"]["read"]
    names = {
        "vllm": {
            "served_model_name": "['chat']",
            "max_model_len": "8192",
            "max_num_seqs": "48",
            "gpu_memory_utilization": "0.85",
            "enable_prefix_caching": "False",
            "enable_chunked_prefill": "False",
            "tensor_parallel_size": "2",
            "pipeline_parallel_size": "2",
            "tool_call_parser": "mistral",
        },
        "sglang": {
            "served_model_name": "chat",
            "context_length": "8192",
            "max_running_requests": "48",
            "mem_fraction_static": "0.85",
            "disable_radix_cache": "True",
            "chunked_prefill_size": "-1",
            "tp_size": "2",
            "pp_size": "2",
            "tool_call_parser": "mistral",
        },
    }
    assert {name: read[name] for name in names[engine]} == names[engine]


@pytest.mark.parametrize("key", ["tensorrt-llm", "tensorrt-llm-engine"])
def test_tensorrt_llm_documents_every_name_that_is_told(key: str) -> None:
    for name, spec in wishes(RUNTIMES[key]).items():
        made = launch(spec)
        options = {word.partition("=")[0] for word in (*made.runtime.args, *made.args)}
        assert options <= SERVE.names, name
        document = json.loads(made.env["PENSTOCK_CONFIG"])
        assert document.keys() <= TORCH_ARGS.names, name
        assert document.get("kv_cache_config", {}).keys() <= KV_CACHE.names, name
        assert document.get("speculative_config", {}).keys() <= SPECULATIVE, name


SPECULATIVE = {"decoding_type", "max_draft_len", "speculative_model_dir"}
"""TensorRT-LLM docs/source/features/speculative-decoding.md @04c8822, read 2026-11-28."""
