"""The guard on real checkpoints: the skills model against rounded versions of itself."""

from __future__ import annotations

import json
import math
import resource
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.guard_items import SKILLS, answers, items, rounded
from components.guard.endpoint import distances as endpoint_distances
from components.guard.fixed import judge
from components.guard.inprocess import distances
from components.guard.items import Judged, pair_up
from components.guard.measures import Measure, measures
from components.guard.sequential import judge_as_answered
from components.steps.scoring import Item
from penstock.cli.app import app
from penstock.core.errors import (
    CheckpointBroken,
    ConfigurationError,
    DiskFull,
    PrecisionRefused,
)
from serving.completer import Message
from serving.engine.inprocess import InProcessCompleter
from serving.engine.loading import load
from serving.logprobs import LogprobEndpoint
from tests.fakes.tiny_model import make_tiny_model, serve

pytestmark = pytest.mark.integration

PARENT = SKILLS / "model"
ITEMS = items()[:210]
ASKED = [(item.conversation, item.answer) for item in ITEMS]


@pytest.fixture(scope="module")
def int4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rounded(PARENT, tmp_path_factory.mktemp("int4") / "m", bits=4, group=32)


@pytest.fixture(scope="module")
def int2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rounded(PARENT, tmp_path_factory.mktemp("int2") / "m", bits=2, group=64)


def by_name(found: Sequence[Measure]) -> dict[str, Measure]:
    return {measure.name: measure for measure in found}


def test_four_bits_are_near_and_two_bits_far(int4: Path, int2: Path) -> None:
    near, far = (by_name(measures(distances(PARENT, folder, ASKED))) for folder in (int4, int2))
    assert 0 < near["mean KL"].value < 0.01
    assert near["same top token"].value > 0.99
    assert not any(measure.beyond for measure in near.values())
    assert far["mean KL"].beyond
    assert far["mean KL"].value > 20 * near["mean KL"].value


def test_a_copy_is_at_no_distance() -> None:
    found = distances(PARENT, PARENT, ASKED[:20])
    assert all(max(each.kl) < 1e-6 for each in found)
    assert all(each.same_top == len(each.kl) for each in found)
    assert [len(each.kl) for each in found] == [
        count for _, count in likelihoods(PARENT, ASKED[:20])
    ]


def likelihoods(
    folder: Path, asked: Sequence[tuple[Sequence[Message], str]]
) -> list[tuple[float, int]]:
    completer = InProcessCompleter(folder)
    found = completer.answer_log_likelihoods([c for c, _ in asked], [a for _, a in asked])
    completer.close()
    assert found is not None
    return found


def test_the_log_ratio_is_the_difference_of_both_likelihoods(int4: Path) -> None:
    asked = ASKED[:30]
    found = distances(PARENT, int4, asked)
    pairs = zip(likelihoods(PARENT, asked), likelihoods(int4, asked), strict=True)
    for each, ((before, _), (after, _)) in zip(found, pairs, strict=True):
        assert each.log_ratio == pytest.approx(before - after, abs=1e-3)


def test_a_small_file_gives_the_same_in_more_rounds(int4: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    asked = ASKED[:30]
    few = distances(
        PARENT,
        int4,
        asked,
        scratch=tmp_path,
        scratch_bytes=640 * 4 * 60,
        on_progress=lambda done, total: told.append((done, total)),
    )
    whole = distances(PARENT, int4, asked)
    assert len(told) > 2
    assert told[-1] == (30, 30)
    assert [e.same_top for e in few] == [e.same_top for e in whole]
    assert [sum(e.kl) for e in few] == pytest.approx([sum(e.kl) for e in whole], abs=1e-5)
    assert list(tmp_path.iterdir()) == []


def test_another_tokenizer_vocabulary_or_template_is_a_broken_checkpoint(
    tmp_path: Path, int4: Path
) -> None:
    other = make_tiny_model(tmp_path / "other")
    with pytest.raises(CheckpointBroken, match="other tokens"):
        distances(PARENT, other, ASKED[:2])
    silent = rounded(int4, tmp_path / "silent", bits=8, group=32)
    (silent / "chat_template.jinja").unlink()
    with pytest.raises(CheckpointBroken, match="cannot read what its parent reads"):
        distances(PARENT, silent, ASKED[:2])
    shifted = rounded(int4, tmp_path / "shifted", bits=8, group=32)
    template = shifted / "chat_template.jinja"
    template.write_text("a " + template.read_text())
    with pytest.raises(CheckpointBroken, match="as other tokens than its parent"):
        distances(PARENT, shifted, ASKED[:2])


def test_numbers_that_are_none_are_a_broken_checkpoint(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = rounded(PARENT, tmp_path / "nan", bits=8, group=32)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.4.mlp.down_proj.weight"][0, 0] = math.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointBroken, match="not numbers"):
        distances(PARENT, folder, ASKED[:2])


def test_an_item_that_does_not_fit_is_told() -> None:
    long: list[Message] = [{"role": "user", "content": "a b c " * 400}]
    with pytest.raises(ConfigurationError, match="allowed: 1 to 512"):
        distances(PARENT, PARENT, [(long, "a")])


def test_a_full_disk_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # a write beyond it fails
    try:
        with pytest.raises(DiskFull):
            distances(PARENT, PARENT, ASKED[:20], scratch=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


class Pair:
    """Has items answered by both versions, as a pipeline does."""

    def __init__(self, candidate: Path, asked: Sequence[Item]) -> None:
        self.candidate = candidate
        self.items = {item.identity: item for item in asked}
        self.asked = 0

    def __call__(self, identities: Sequence[str]) -> list[Judged]:
        batch = [self.items[identity] for identity in identities]
        self.asked += len(batch)
        return pair_up(answers(PARENT, batch), answers(self.candidate, batch))


def test_both_forms_refuse_what_is_broken_and_the_sequential_asks_less(int2: Path) -> None:
    pair = Pair(int2, ITEMS)
    whole = judge(pair(list(pair.items)), margin=0.1)
    assert whole.outcome == "refuse"
    assert any(each.refused for each in whole.slices if each.kind == "skill")
    pair.asked = 0
    early = judge_as_answered(list(pair.items), pair, margin=0.1, batch=30)
    assert early.outcome == "refuse"
    assert early.n == pair.asked < whole.n
    json.dumps(early.to_json())


def test_four_bits_are_accepted_at_a_margin_that_the_items_can_show(int4: Path) -> None:
    pair = Pair(int4, ITEMS)
    found = judge(pair(list(pair.items)), margin=0.05)
    assert found.outcome == "accept"
    assert judge(pair(list(pair.items)[:40]), margin=0.015).outcome == "insufficient"


def test_an_endpoint_tells_less_than_the_process_knows(int2: Path, int4: Path) -> None:
    asked = [item.conversation for item in ITEMS[:24]]
    told = []
    for folder in (PARENT, int4, int2):
        with serve(load(folder), model_name="m") as (url, _engine):
            endpoint = LogprobEndpoint(url, "m")
            told.append(endpoint.answer(asked, max_new_tokens=24))
            endpoint.close()
    parent, near, far = told
    completer = InProcessCompleter(PARENT)
    said = [each.text for each in completer.complete(asked, max_new_tokens=24)]
    completer.close()
    assert [each.text for each in parent] == said
    # what the parent said, both read in process: position by position, up to where they part
    for folder, seen in ((int4, near), (int2, far)):
        within = distances(PARENT, folder, list(zip(asked, said, strict=True)))
        over = endpoint_distances(parent, seen)
        assert any(len(each.kl) > 0 for each in over)
        for bounded, exact in zip(over, within, strict=True):
            for low, full in zip(bounded.kl, exact.kl, strict=False):
                assert low <= full + 1e-3
    apart = [sum(sum(e.kl) for e in endpoint_distances(parent, seen)) for seen in (near, far)]
    assert apart[0] < apart[1]


def test_the_command_line_judges_folders_and_endpoints(int2: Path, tmp_path: Path) -> None:
    data = tmp_path / "few.jsonl"
    rows = (SKILLS / "data" / "evaluate.jsonl").read_text().splitlines(keepends=True)
    data.write_text("".join(rows[::35]))
    options = ["--data", str(data), "--max-new-tokens", "24", "--margin", "0.2"]
    refused = CliRunner().invoke(app, ["guard", str(PARENT), str(int2), *options])
    assert isinstance(refused.exception, PrecisionRefused)
    assert "refuse: " in refused.output
    with serve(load(PARENT), model_name="m") as (url, _engine):
        served = ["guard", url, url, *options, "--model", "m", "--parent-model", "m"]
        accepted = CliRunner().invoke(app, [*served, "--sequential", "--output", "json"])
        nameless = CliRunner().invoke(app, ["guard", url, url, *options])
    verdict = json.loads(accepted.output)
    assert (accepted.exit_code, verdict["outcome"]) == (0, "accept")
    assert {m["name"] for m in verdict["measures"]} >= {"mean KL", "truncated mass"}
    assert isinstance(nameless.exception, ConfigurationError)
    assert "the model's name" in str(nameless.exception)
