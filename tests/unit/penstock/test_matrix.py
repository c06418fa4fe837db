from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

from penstock.core.errors import ConfigurationError
from penstock.core.gpus import CPU, FAMILIES, sm_of
from penstock.core.hardware import ACCELERATORS
from penstock.core.matrix import judge, possible, render
from penstock.core.matrix_rows import ARTIFACTS, ENGINES, ROWS
from penstock.core.matrix_sources import SOURCES

REFERENCE = Path(__file__).parents[3] / "docs/reference/precision.md"
RECIPES = (
    "fp8-dynamic fp8 fp8-block w4a16 awq w8a8 nvfp4 "
    "modelopt-fp8 modelopt-int4-awq modelopt-w4a8-awq modelopt-nvfp4"
)
GPUS = ["cpu", "A100", "A10", "L40S", "H100", "B200", "GB300", "RTX PRO 6000"]


def test_the_reference_is_what_the_rows_say() -> None:
    assert REFERENCE.read_text() == render(), "run: make golden"


def test_every_recipe_is_an_artifact() -> None:
    assert set(ARTIFACTS) == {*RECIPES.split(), "bf16", "tensorrt-engine"}


def test_rows_name_what_exists() -> None:
    for row in ROWS:
        assert set(row.artifacts.split()) <= set(ARTIFACTS), row
        assert row.engine in ENGINES, row
        assert row.source in SOURCES, row
        assert row.reason, row
        assert row.sm[0] <= row.sm[1], row
    assert {row.source for row in ROWS} | {"closed"} == set(SOURCES), "a source nobody cites"


def test_every_source_has_a_date_and_every_test_it_names_is_there() -> None:
    root = REFERENCE.parents[2]
    for source in SOURCES.values():
        assert date.fromisoformat(source.day).year >= 2026
        assert not source.test or (root / source.test).is_file()


def test_every_cell_of_the_reference_has_a_note_with_a_date() -> None:
    text = REFERENCE.read_text()
    tables, _, notes = text.partition("## vllm")[2].partition("## Notes")
    rows = [line for line in tables.splitlines() if line.startswith("| `")]
    cells = [cell for row in rows for cell in row.split("|")[2:-1]]
    numbers = {
        int(found[1]) for found in (re.search(r"\[(\d+)\]", cell) for cell in cells) if found
    }
    assert len(cells) > 400
    assert all(re.fullmatch(r" (yes|fallback|emulated|-) \[\d+\] ", cell) for cell in cells)
    lines = [line for line in notes.splitlines() if line[:1].isdigit()]
    assert numbers == set(range(1, len(lines) + 1))
    assert all(re.search(r"\((measured|read|inferred), \d{4}-\d\d-\d\d", line) for line in lines)


def test_no_two_rows_contradict_each_other_unless_the_first_is_narrower() -> None:
    # a wide "no" may stand behind a narrow "yes"; the other way round it would hide it
    for index, early in enumerate(ROWS):
        for late in ROWS[index + 1 :]:
            if early.engine != late.engine or early.how == late.how:
                continue
            shared = set(early.artifacts.split()) & set(late.artifacts.split())
            covers = early.sm[0] <= late.sm[0] and late.sm[1] <= early.sm[1]
            reaches = (early.since or "0") <= (late.since or "0") and (
                not early.before or early.before == late.before
            )
            assert not (shared and covers and reaches), (early, late)


@pytest.mark.parametrize(
    ("artifact", "engine", "version", "gpu", "how", "nearest"),
    [
        ("fp8-dynamic", "vllm", "0.33.0", "nvidia-h100-80gb", "yes", "fp8-dynamic"),
        ("fp8-dynamic", "vllm", "", "nvidia-a100-80gb", "fallback", "fp8-dynamic"),
        ("modelopt-fp8", "vllm", "0.24.0", "A100", "no", "w8a8"),
        ("modelopt-fp8", "vllm", "0.33.0", "A100", "fallback", "modelopt-fp8"),
        ("modelopt-int4-awq", "vllm", "0.33.0", "H100", "no", "w4a16"),
        ("w8a8", "vllm", "", "B200", "no", "fp8-dynamic"),
        ("nvfp4", "vllm", "", "L4", "fallback", "nvfp4"),
        ("nvfp4", "triton", "", "GB200", "yes", "nvfp4"),
        ("modelopt-fp8", "tensorrt-llm", "1.2.1", "A100", "no", "modelopt-int4-awq"),
        ("modelopt-nvfp4", "tensorrt-llm", "1.2.1", "H100", "no", "modelopt-int4-awq"),
        ("modelopt-nvfp4", "tensorrt-llm", "1.2.1", "B200", "yes", "modelopt-nvfp4"),
        ("modelopt-int4-awq", "tensorrt-llm", "1.2.1", "B200", "no", "modelopt-nvfp4"),
        ("modelopt-int4-awq", "tensorrt-llm", "1.2.1", "H200", "yes", "modelopt-int4-awq"),
        ("fp8-dynamic", "tensorrt-llm", "1.2.1", "H100", "no", "modelopt-fp8"),
        ("fp8-dynamic", "tensorrt-llm", "1.3.0rc27", "H100", "yes", "fp8-dynamic"),
        ("fp8-dynamic", "tensorrt-llm", "1.3.0", "L40S", "no", "modelopt-fp8"),
        ("fp8", "tensorrt-llm", "1.3.0", "H100", "no", "fp8-dynamic"),
        ("w8a8", "tensorrt-llm", "1.3.0", "H100", "no", "fp8-dynamic"),
        ("tensorrt-engine", "tensorrt-llm", "1.2.1", "H100", "yes", "tensorrt-engine"),
        ("tensorrt-engine", "tensorrt-llm", "1.3.0", "H100", "no", "fp8-dynamic"),
        ("modelopt-fp8", "cpu", "", "cpu", "no", "fp8-dynamic"),
        ("w4a16", "cpu", "", "cpu", "emulated", "w4a16"),
        ("awq", "huggingface", "5.17.0", "cpu", "emulated", "awq"),
        ("awq", "huggingface", "5.23.0", "cpu", "no", "w4a16"),
        ("bf16", "cpu", "", "H100", "no", None),
        ("bf16", "vllm", "", "T4", "no", None),
        ("bf16", "vllm", "0.1.0", "H100", "no", None),
    ],
)
def test_the_pairs_that_matter(
    artifact: str, engine: str, version: str, gpu: str, how: str, nearest: str | None
) -> None:
    fit = judge(artifact, engine, version, gpu)
    assert (fit.how, fit.ok, fit.nearest) == (how, how != "no", nearest)
    assert fit.reason
    assert fit.source


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_possible_is_what_is_judged_so(engine: str, gpu: str) -> None:
    for version in ENGINES[engine].versions:
        fits = possible(engine, version, gpu)
        for artifact in ARTIFACTS:
            fit = judge(artifact, engine, version, gpu)
            assert fit.ok == (artifact in fits)
            assert (fit.nearest in fits) if fits else fit.nearest is None
            same = [a for a in fits if ARTIFACTS[a].bits == ARTIFACTS[artifact].bits]
            if same:
                assert ARTIFACTS[fit.nearest or ""].bits == ARTIFACTS[artifact].bits


def test_nothing_of_modelopt_ever_goes_into_transformers() -> None:
    for engine in ("huggingface", "cpu"):
        for version in ("4.57.3", "5.14.1", "5.17.0", "5.23.0", "6.0"):
            for gpu in GPUS:
                assert not [a for a in possible(engine, version, gpu) if "modelopt" in a]


def test_rules_of_the_hardware_hold_for_every_engine_and_version() -> None:
    for engine, known in ENGINES.items():
        for version in known.versions:
            for family, sm in FAMILIES.items():
                native = [
                    a
                    for a in possible(engine, version, family)
                    if judge(a, engine, version, family).how == "yes"
                ]
                if sm < 89:
                    assert not [a for a in native if "fp8" in a or "w4a8" in a]
                if sm < 100:
                    assert not [a for a in native if "nvfp4" in a]
                if engine == "tensorrt-llm" and sm > 90:
                    assert not [a for a in native if "awq" in a]


def test_native_comes_before_fallback() -> None:
    found = possible("vllm", "0.33.0", "A100")
    assert found.index("w8a8") < found.index("bf16") < found.index("fp8-dynamic")
    assert possible("vllm", "", "H100")[0] == "fp8-dynamic"
    assert possible("cpu", "", "cpu")[0] == "bf16"


@pytest.mark.parametrize(
    ("name", "sm"),
    [
        ("NVIDIA-A100-SXM4-80GB", 80),
        ("NVIDIA A10G", 86),
        ("NVIDIA L40S", 89),
        ("NVIDIA RTX 6000 Ada Generation", 89),
        ("NVIDIA H100 80GB HBM3", 90),
        ("NVIDIA GH200 480GB", 90),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 120),
        ("NVIDIA-A100-SXM4-80GB-MIG-1g.10gb", 80),
        ("cpu", CPU),
    ],
)
def test_a_gpu_is_known_by_every_name_it_has(name: str, sm: int) -> None:
    assert sm_of(name) == sm


def test_the_names_of_model_yaml_have_the_same_architecture() -> None:
    for name, accelerator in ACCELERATORS.items():
        if accelerator.vendor != "amd":  # without CUDA
            assert sm_of(name) == (accelerator.sm or CPU)


def test_columns_of_the_reference_speak_for_every_gpu_in_them() -> None:
    groups = [(80, 86), (100, 103), (120, 121)]
    for engine in ENGINES:
        for first, second in groups:
            one, two = (
                next(name for name, found in FAMILIES.items() if found == sm)
                for sm in (first, second)
            )
            for artifact in ARTIFACTS:
                assert judge(artifact, engine, "", one) == judge(artifact, engine, "", two)


@pytest.mark.parametrize(
    "question",
    [
        ("fp9", "vllm", "", "H100"),
        ("fp8", "ollama", "", "H100"),
        ("fp8", "vllm", "latest", "H100"),
        ("fp8", "vllm", "", "H100x"),
    ],
)
def test_unknown_names_are_mistakes_that_say_what_is_allowed(
    question: tuple[str, str, str, str],
) -> None:
    with pytest.raises(ConfigurationError, match=r"allowed: |known: |such as "):
        judge(*question)
