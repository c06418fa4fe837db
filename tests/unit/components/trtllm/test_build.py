"""Real processes, with programs in place of TensorRT-LLM's that keep their contracts."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from components.trtllm.build import Parent, produce, work_folder
from components.trtllm.builder import Builder, in_environment, node_here, refuse_absent
from components.trtllm.cache import EngineCache, Entry, Unfinished, read_entry
from components.trtllm.key import BuildKey
from components.trtllm.plan import Places, Plan, plan
from penstock.core.errors import (
    BuildFailed,
    ConfigurationError,
    DigestMismatch,
    DiskFull,
    StoreError,
)
from penstock.core.identity import ModelRef
from tests.fakes import trtllm
from tests.unit.components.trtllm import cases

_SOURCE = ModelRef.parse("hf://acme/model@main")
_FORK = multiprocessing.get_context("fork")


class Bench:
    """A cache, a parent, and the fake programs, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.programs = folder / "programs"
        self.env = trtllm.install(self.programs)
        self.cache = EngineCache(folder / "engines")
        self.parent = Parent(cases.parent(folder / "parent"), _SOURCE)
        self.told: list[str] = []

    def plan(self, key: BuildKey, **changes: Any) -> Plan:
        model = replace(cases.FACTS, weights_bytes=1024)
        places = Places(
            source=PurePosixPath(self.parent.folder),
            work=PurePosixPath(work_folder(self.cache, key)),
            python=sys.executable,
            examples=str(self.programs / "examples"),
        )
        return plan(cases.build(model=model, **changes), places)

    def build(self, *, fault: str = "", run: Builder | None = None, **changes: Any) -> Entry:
        key = cases.key(**changes)
        env = self.env | ({"FAKE_TRTLLM": fault} if fault else {})
        return produce(
            self.cache,
            key,
            self.plan(key, **changes),
            self.parent,
            run=run or in_environment(env),
            tell=self.told.append,
        )

    @property
    def ran(self) -> Counter[str]:
        """How often each program ran."""
        path = self.programs / "ran"
        lines = path.read_text().splitlines() if path.exists() else []
        return Counter(line.split()[0] for line in lines)

    def pid(self, program: str) -> int:
        lines = (self.programs / "ran").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(program))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def _until(happened: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < until, what
        threading.Event().wait(0.01)


def test_an_engine_is_built_once_and_then_found(bench: Bench) -> None:
    entry = bench.build(tp=2)
    assert sorted(path.name for path in entry.files.iterdir()) == [
        "engine",
        "extra_llm_args.yaml",
        "serve.json",
        "tokenizer",
    ]
    assert {path.name for path in (entry.files / "engine").iterdir()} == {
        "rank0.engine",
        "rank1.engine",
        "config.json",
    }
    assert (entry.files / "tokenizer" / "chat_template.jinja").is_file()
    assert (entry.files / "tokenizer" / "config.json").is_file()
    assert entry.manifest.source == _SOURCE
    again = bench.build(tp=2)
    assert again == entry
    assert bench.ran == {"quantize": 1, "trtllm-build": 1}
    assert bench.cache.entry(entry.key.digest) == read_entry(entry.folder) == entry
    assert bench.cache.unfinished() == []
    bench.build(tp=1)
    assert len(bench.cache.digests()) == 2


def test_an_exported_checkpoint_has_the_parents_tokenizer_and_template(bench: Bench) -> None:
    entry = bench.build(strategy="checkpoint")
    names = {path.name for path in (entry.files / "checkpoint").iterdir()}
    assert {"model.safetensors", "hf_quant_config.json", "chat_template.jinja"} <= names
    assert (entry.files / "checkpoint" / "tokenizer.json").read_text() == "{}"
    assert bench.ran == {"quantize": 1}


def test_a_checkpoint_that_stays_as_it_is_gets_its_config_only(bench: Bench) -> None:
    entry = bench.build(strategy="checkpoint", recipe=None)
    assert {p.name for p in entry.files.iterdir()} == {"extra_llm_args.yaml", "serve.json"}
    assert bench.ran == Counter()


def test_of_many_processes_one_builds(bench: Bench) -> None:
    def compete(_: int) -> None:
        entry = bench.build()
        entry.verify()
        os._exit(0 if entry.files.is_dir() else 1)

    processes = [_FORK.Process(target=compete, args=(n,)) for n in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 6
    assert bench.ran == {"quantize": 1, "trtllm-build": 1}
    assert [path.name for path in bench.cache.root.glob(".new-*")] == []


@contextmanager
def _building(bench: Bench) -> Iterator[Any]:
    """A process that hangs in trtllm-build; killed at the end if it still is."""
    process = _FORK.Process(target=lambda: bench.build(fault="hang:trtllm-build"))
    process.start()
    try:
        _until(lambda: bench.ran["trtllm-build"] == 1, "trtllm-build never began")
        yield process
    finally:
        process.kill()
        process.join(20)


def test_who_waits_is_told_for_whom_and_a_killed_owner_is_waited_for_no_longer(
    bench: Bench,
) -> None:
    with _building(bench) as process:
        entries: list[Entry] = []
        waiting = threading.Thread(target=lambda: entries.append(bench.build()))
        waiting.start()
        _until(lambda: any("waiting for" in line for line in bench.told), "nobody waited")
        assert f"process {process.pid}" in bench.told[0]
        assert bench.cache.digests() == []
        (left,) = bench.cache.unfinished()
        assert left.owner.startswith(f"process {process.pid} on ")
        os.kill(process.pid, signal.SIGKILL)
        waiting.join(30)
    assert len(entries) == 1
    entries[0].verify()
    # what the killed one had converted was not converted again
    assert bench.ran == {"quantize": 1, "trtllm-build": 2}
    assert any("done by an earlier try" in line for line in bench.told)


def test_a_builder_dies_with_its_owner(bench: Bench) -> None:
    with _building(bench) as process:
        pid = bench.pid("trtllm-build")
        os.kill(pid, 0)
        os.kill(process.pid, signal.SIGKILL)
        _until(lambda: not _alive(pid), "the builder outlived its owner")
    assert bench.cache.digests() == []
    assert bench.cache.unfinished() == [Unfinished(cases.key().digest.hex, "")]


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.mark.parametrize("fault", ["crash", "kill", "full", "lie"])
def test_a_failed_build_leaves_nothing_and_goes_on_next_time(bench: Bench, fault: str) -> None:
    with pytest.raises((BuildFailed, DiskFull)) as raised:
        bench.build(fault=f"{fault}:trtllm-build")
    assert isinstance(raised.value, DiskFull) == (fault == "full")
    said = {
        "crash": "Engine building failed",
        "kill": "was killed (SIGKILL)",
        "full": "no space left for engine",
        "lie": "max_seq_len is 128, not 4096",
    }
    assert said[fault] in str(raised.value)
    key = cases.key()
    assert bench.cache.digests() == []
    assert not (work_folder(bench.cache, key) / "engine").exists()
    bench.build().verify()
    assert bench.ran == {"quantize": 1, "trtllm-build": 2}


def test_a_failed_conversion_is_done_again(bench: Bench) -> None:
    with pytest.raises(BuildFailed, match=r"quantize\.py: exit code 1"):
        bench.build(fault="crash:quantize")
    bench.build()
    assert bench.ran == {"quantize": 2, "trtllm-build": 1}


def test_a_conversion_that_was_altered_is_done_again(bench: Bench) -> None:
    with pytest.raises(BuildFailed):
        bench.build(fault="crash:trtllm-build")
    work = work_folder(bench.cache, cases.key())
    (work / "trtllm_checkpoint" / "rank0.safetensors").write_bytes(b"other")
    bench.build()
    assert bench.ran == {"quantize": 2, "trtllm-build": 2}


def test_no_secret_is_printed(bench: Bench) -> None:
    bench.env["HF_TOKEN"] = "very-private-token"
    bench.env["OTHER"] = "not hidden"
    with pytest.raises(BuildFailed) as raised:
        bench.build(fault="crash:trtllm-build")
    log = work_folder(bench.cache, cases.key()) / "engine.log"
    for text in (str(raised.value), log.read_text(), *bench.told):
        assert "very-private" not in text
    assert "using token <secret>" in log.read_text()
    assert str(log) in raised.value.hint


@pytest.mark.parametrize(
    "line",
    [
        "Bearer abcdefghijkl",
        "token=abcdefghijkl",
        "hf_abcdefghijklmnopqrst",
        "x://u:abcdefghijkl@h",
    ],
)
def test_what_looks_like_a_secret_is_not_printed(line: str) -> None:
    told: list[str] = []
    assert in_environment({"PATH": "/usr/bin:/bin"})(["echo", line], told.append) == 0
    assert "abcdefghijkl" not in told[0]
    assert "<secret>" in told[0]


def test_a_program_that_is_not_there_is_a_failed_build(bench: Bench) -> None:
    told: list[str] = []
    assert in_environment(bench.env)(["no-such-program"], told.append) == 1
    assert told == ["no-such-program: No such file or directory"]


def test_a_disk_that_is_too_small_is_noticed_before_anything_runs(bench: Bench) -> None:
    key = cases.key()
    made = bench.plan(key)
    large = replace(made, resources=replace(made.resources, disk_bytes=10**18))
    with pytest.raises(DiskFull, match="are needed"):
        produce(bench.cache, key, large, bench.parent, run=in_environment(bench.env), tell=print)
    assert bench.ran == Counter()


def test_a_disk_that_fills_while_publishing_leaves_nothing_half_written(bench: Bench) -> None:
    def fails() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))  # less than the YAML for the server
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            bench.build(strategy="checkpoint", recipe=None)
        except DiskFull:
            os._exit(5)
        os._exit(1)

    process = _FORK.Process(target=fails)
    process.start()
    process.join(30)
    assert process.exitcode == 5
    assert bench.cache.digests() == []
    assert list(bench.cache.root.glob(".new-*")) == []
    bench.build(strategy="checkpoint", recipe=None).verify()


@pytest.mark.parametrize("after_s", [0.03, 0.1, 0.17])
def test_whenever_it_is_killed_there_is_a_whole_build_or_none(bench: Bench, after_s: float) -> None:
    process = _FORK.Process(target=bench.build)
    process.start()
    process.join(after_s)
    process.kill()
    process.join(20)
    for digest in bench.cache.digests():
        bench.cache.entry(digest).verify()
    bench.build().verify()
    left = {path.name for path in bench.cache.root.iterdir()}
    assert left == {".work", ".locks", cases.key().digest.hex}


def test_a_damaged_build_is_refused_and_built_again(bench: Bench) -> None:
    entry = bench.build()
    engine = entry.files / "engine" / "rank0.engine"
    engine.unlink()
    engine.write_bytes(b"damaged")
    with pytest.raises(DigestMismatch, match=r"changed: engine/rank0\.engine"):
        entry.verify()
    bench.build().verify()
    assert bench.ran == {"quantize": 2, "trtllm-build": 2}
    assert any("built again, because it is damaged" in line for line in bench.told)
    assert list(bench.cache.root.glob(".old-*")) == []


def test_papers_of_another_build_are_refused(bench: Bench) -> None:
    entry, other = bench.build(), bench.build(tp=2)
    (entry.folder / "key.json").write_text((other.folder / "key.json").read_text())
    with pytest.raises(DigestMismatch, match=r"key\.json is that of"):
        bench.cache.entry(cases.key().digest)
    (entry.folder / "key.json").write_text("{}")
    with pytest.raises(DigestMismatch, match="not a build key"):
        read_entry(entry.folder)


def test_a_build_is_found_by_the_beginning_of_its_key(bench: Bench) -> None:
    with pytest.raises(StoreError, match="no finished build"):
        bench.cache.entry(cases.key().digest)
    entry = bench.build()
    assert bench.cache.find(entry.key.digest.short) == entry.key.digest
    assert bench.cache.find("") == entry.key.digest
    bench.build(tp=2)
    for text, said in (("", "2 builds begin"), ("zz", "no finished build is 'zz'")):
        with pytest.raises(StoreError, match=said):
            bench.cache.find(text)


def test_the_node_is_what_the_driver_says(bench: Bench) -> None:
    node = node_here(bench.env, cuda=13)
    assert (node.gpu, node.sm, node.driver) == ("NVIDIA H100 80GB HBM3", 90, 580)
    assert (node.os, node.cuda) == ("linux", 13)


@pytest.mark.parametrize("gpus", ["", f"{trtllm.H100}\nNVIDIA L4, 8.9, 580.65.06", "H100, new, 5"])
def test_a_node_that_cannot_be_named_is_refused(bench: Bench, gpus: str) -> None:
    with pytest.raises(ConfigurationError, match="nvidia-smi"):
        node_here(bench.env | {"FAKE_GPUS": gpus}, cuda=13)


def test_without_the_gpu_image_it_says_what_is_missing(bench: Bench) -> None:
    made = bench.plan(cases.key())
    refuse_absent(made, bench.env, image="the image")
    (bench.programs / "examples" / "quantization" / "quantize.py").unlink()
    with pytest.raises(
        ConfigurationError, match=r"quantize\.py, trtllm-build|trtllm-build, .*quantize"
    ):
        refuse_absent(made, {"PATH": ""}, image="the image")
    with pytest.raises(ConfigurationError, match="no GPU to build for"):
        node_here({"PATH": ""}, cuda=13)
