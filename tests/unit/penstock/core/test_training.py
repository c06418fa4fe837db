"""The section `training`: its defaults, what contradicts itself, and what decides the result."""

from __future__ import annotations

import pytest

from penstock.core.documents import parse_spec
from penstock.core.errors import SpecError
from penstock.core.training import EPOCHS, FULL_RATE, LORA_RATE, Training

HEAD = "name: chat\nsource: hf://org/name\n"


def parsed(section: str) -> Training:
    return parse_spec(f"{HEAD}training: {section}\n").training


def test_the_defaults_follow_the_method() -> None:
    lora, full = parsed("{}"), parsed("{method: full}")
    assert (lora.rate, full.rate) == (LORA_RATE, FULL_RATE)
    assert lora.adapter is not None
    assert (lora.adapter.rank, lora.adapter.target_modules) == (16, None)
    assert full.adapter is None
    assert (lora.passes, parsed("{steps: 9}").passes) == (EPOCHS, None)
    assert parsed("{epochs: 0.5, learning_rate: 0.1}").rate == 0.1


def test_a_document_comes_back_as_it_went_out() -> None:
    for section in ("{}", "{method: full, steps: 3}", "{lora: {rank: 2, target_modules: [a.b]}}"):
        spec = parse_spec(f"{HEAD}training: {section}\n")
        assert parse_spec(spec.to_json()) == spec


_VOLUME = "volume: pvc://home=/data"


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ("{method: full, lora: {rank: 4}}", "method full trains every weight"),
        ("{epochs: 2, steps: 3}", "epochs or steps, not both"),
        ("{rnak: 3}", "did you mean"),
        ("{lora: {rank: 0}}", "training.lora.rank: found 0"),
        ("{lora: {target_modules: []}}", "training.lora.target_modules"),
        ("{lora: {target_modules: [q_proj, q_proj]}}", "named once each"),
        ("{lora: {target_modules: ['.*']}}", "training.lora.target_modules"),
        ("{learning_rate: 0}", "training.learning_rate: found 0"),
        ("{held_out_share: 0.9}", "training.held_out_share: found 0.9"),
        ("{method: lore}", "did you mean 'lora'"),
        (f"{{distributed: {{strategy: torchrun, {_VOLUME}}}}}", "2 devices or more"),
        (f"{{distributed: {{strategy: fsdp, nodes: 2, {_VOLUME}}}}}", "deepspeed-zero3"),
        ("{distributed: {strategy: torchrun, nodes: 2}}", "training.distributed.volume"),
        ("{distributed: {strategy: torchrun, nodes: 2, volume: s3://b}}", "pvc://CLAIM=/FOLDER"),
    ],
)
def test_what_contradicts_itself_is_refused_with_its_place(section: str, told: str) -> None:
    with pytest.raises(SpecError) as refused:
        parsed(section)
    if told == "did you mean":
        assert "one of method, lora, epochs" in str(refused.value)
    else:
        assert told in str(refused.value)


def test_how_often_it_is_saved_decides_nothing_and_everything_else_does() -> None:
    plain = Training()
    assert Training(checkpoint_every_steps=7).digest == plain.digest
    others = [
        Training(seed=1),
        Training(method="full"),
        Training(steps=3),
        Training(batch_rows=9),
        Training(max_length=64),
    ]
    assert len({plain.digest, *(other.digest for other in others)}) == 6


def test_claim_and_mount_are_read_from_the_volume() -> None:
    found = parsed("{distributed: {strategy: torchrun, nodes: 2, volume: 'pvc://home=/a/b'}}")
    assert found.distributed is not None
    assert found.distributed.claim == ("home", "/a/b")
    assert found.distributed.devices == 2
