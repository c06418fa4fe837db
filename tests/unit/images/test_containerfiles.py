"""Most images are not built by tests; what can be said without building them is said here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from components import images
from components.trtllm.documented import ENGINE_IMAGE
from penstock import __version__
from tests.cluster.containerfiles import TESTED

_ROOT = Path(__file__).resolve().parents[3]
_FILES = sorted((_ROOT / "images").glob("*.Containerfile"))
_TAG = re.compile(r".+:[\w.-]*\d+\.\d+\.\d+[\w.-]*")
_DIGEST = re.compile(r".+@sha256:[0-9a-f]{64}")


def instructions(text: str) -> list[tuple[str, str]]:
    """Return instruction and arguments; comments go, continued lines are joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\s*\n", " ", "\n".join(lines))
    words = [line.strip().split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [(word[0].upper(), " ".join(word[1].split()) if len(word) > 1 else "") for word in words]


def problems(text: str) -> Iterator[str]:
    """Yield what is wrong with a Containerfile."""
    steps = instructions(text)
    yield from _bases(steps)
    commands = [part.strip() for step, rest in steps if step == "RUN" for part in rest.split("&&")]
    installs = [part for part in commands if re.search(r"\bpip\b.* install\b", f" {part}")]
    copied = " ".join(rest for step, rest in steps if step == "COPY")
    wheel = [part for part in installs if re.search(r"/penstock-\*\.whl$", part)]
    if "dist/penstock-*.whl" not in copied or not wheel:
        yield "does not install the wheel"
    for part in installs:
        if ("--no-deps" if part in wheel else "--require-hashes") not in part:
            yield f"{part}: packages without hashes"
        if re.search(r"--(extra-)?index-url|--find-links|https?:", part):
            yield f"{part}: names a registry"


def _bases(steps: list[tuple[str, str]]) -> Iterator[str]:
    if not steps or steps[0][0] != "FROM":
        yield "does not begin with FROM"
    stages: set[str] = set()
    for step, rest in steps:
        if step != "FROM":
            continue
        base, *alias = rest.split()
        if base not in stages and not (_TAG.fullmatch(base) or _DIGEST.fullmatch(base)):
            yield f"FROM {base}: neither an exact tag nor a digest"
        stages.update(alias[1:])


def _copied(path: Path) -> list[str]:
    sources = [rest.split()[:-1] for step, rest in instructions(path.read_text()) if step == "COPY"]
    return [name for names in sources for name in names if not name.startswith("dist/")]


def test_every_component_has_its_image_here() -> None:
    named = [value for value in vars(images).values() if isinstance(value, str)]
    named = [value for value in named if re.fullmatch(r"[\w./-]+:[\w.-]+", value)]
    assert images.STEPS in named
    for image in named:
        name, _, version = image.partition(":")
        assert (_ROOT / "images" / f"{name}.Containerfile").is_file(), image
        assert version == __version__


@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.stem)
def test_bases_are_pinned_and_the_wheel_is_installed(path: Path) -> None:
    assert list(problems(path.read_text())) == []


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(
            path,
            marks=pytest.mark.xfail(reason="the extra `quantize` is not locked yet")
            if "quantize" in path.stem and not (_ROOT / "requirements/quantize.txt").exists()
            else (),
        )
        for path in _FILES
    ],
    ids=lambda path: path.stem,
)
def test_what_is_copied_is_there(path: Path) -> None:
    assert _copied(path)
    for name in _copied(path):
        assert (_ROOT / name).is_file(), name


def test_the_build_image_is_the_one_that_commands_were_checked_for() -> None:
    path = _ROOT / "images" / "penstock-trtllm-python.Containerfile"
    assert instructions(path.read_text())[0] == ("FROM", ENGINE_IMAGE)


def test_the_readme_names_every_image_and_says_which_were_built() -> None:
    text = (_ROOT / "images" / "README.md").read_text()
    built = " and ".join(f"`{name}`" for name in TESTED)
    assert f"**{built} are built" in text
    for path in _FILES:
        assert f"`{path.stem}`" in text


_WHEEL = "COPY dist/penstock-*.whl /tmp/\nRUN pip install --no-deps /tmp/penstock-*.whl\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (_WHEEL, "does not begin with FROM"),
        (f"FROM python\n{_WHEEL}", "FROM python"),
        (f"FROM python:latest\n{_WHEEL}", "FROM python:latest"),
        (f"FROM python:3.11-slim\n{_WHEEL}", "FROM python:3.11-slim"),
        (f"ARG T\nFROM python:$T\n{_WHEEL}", "does not begin with FROM"),
        (f"FROM python:3.11.1 AS a\nFROM b\n{_WHEEL}", "FROM b"),
        ("FROM python:3.11.1\n", "does not install the wheel"),
        ("FROM python:3.11.1\n# COPY dist/penstock-*.whl /tmp/", "does not install the wheel"),
        (f"FROM python:3.11.1\n{_WHEEL}RUN pip install torch", "packages without hashes"),
        (f"FROM python:3.11.1\n{_WHEEL}RUN true && \\\n pip \\\n install torch", "without hashes"),
        (
            f"FROM python:3.11.1\n{_WHEEL}RUN pip install --require-hashes --index-url x -r y",
            "names a registry",
        ),
    ],
)
def test_what_would_be_wrong_is_found(text: str, said: str) -> None:
    assert any(said in problem for problem in problems(text))


def test_a_stage_and_a_digest_are_pinned() -> None:
    base = f"FROM python@sha256:{'a' * 64} AS base\nFROM base\n"
    assert list(problems(base + _WHEEL)) == []
