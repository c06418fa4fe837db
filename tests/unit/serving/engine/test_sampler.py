from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch  # noqa: TID253 - what is tested works on tensors

from serving.engine.sampler import Sampler
from serving.engine.sampling import Sampling

LOGITS = [2.0, 1.0, 0.0, -1.0]


@dataclass
class State:
    sampling: Sampling
    request_id: str = "r"
    initial_tokens: list[int] = field(default_factory=list)
    generated_tokens: list[int] = field(default_factory=list)

    @property
    def logit_processor_kwargs(self) -> dict[str, Any]:
        return {"sampling": self.sampling}


@dataclass
class InBatch:
    state: State
    has_new_token: bool = True


def choose(sampler: Sampler, states: list[State]) -> list[int]:
    sampler.prepare_tensor_args([InBatch(state) for state in states], None)
    scores = torch.tensor([LOGITS] * len(states))
    chosen: list[int] = sampler(None, scores, None).argmax(dim=-1).tolist()
    return chosen


def draws(sampling: Sampling, count: int) -> list[int]:
    return choose(Sampler(), [State(sampling, initial_tokens=[0] * n) for n in range(count)])


def test_temperature_zero_takes_the_likeliest() -> None:
    assert set(draws(Sampling(temperature=0), 50)) == {0}


def test_draws_follow_the_softmax() -> None:
    count = 4000
    found = torch.tensor(draws(Sampling(seed=1), count)).bincount(minlength=4) / count
    expected = torch.tensor(LOGITS).softmax(dim=-1)
    assert torch.allclose(found, expected, atol=0.03)


def test_temperature_flattens() -> None:
    hot = draws(Sampling(temperature=2.0, seed=1), 500)
    assert hot.count(0) < draws(Sampling(temperature=0.5, seed=1), 500).count(0)


def test_top_k_keeps_the_k_likeliest() -> None:
    assert set(draws(Sampling(seed=1, top_k=2), 300)) == {0, 1}


def test_top_p_keeps_the_fewest_that_reach_p() -> None:
    assert set(draws(Sampling(seed=1, top_p=0.7), 300)) == {0, 1}
    assert set(draws(Sampling(seed=1, top_p=0.1), 300)) == {0}


def test_a_seed_decides_whatever_else_is_in_the_batch() -> None:
    mine = Sampling(seed=5)
    alone = [choose(Sampler(), [State(mine, initial_tokens=[0] * n)])[0] for n in range(30)]
    other = State(Sampling(seed=9))
    crowded = [
        choose(Sampler(), [other, State(mine, initial_tokens=[0] * n), other])[1] for n in range(30)
    ]
    assert alone == crowded


def test_a_restart_after_eviction_draws_alike() -> None:
    before = State(Sampling(seed=5), initial_tokens=[1, 2], generated_tokens=[3, 4, 5])
    after = State(Sampling(seed=5), initial_tokens=[1, 2, 3, 4, 5])
    assert choose(Sampler(), [before]) == choose(Sampler(), [after])


def test_requests_still_in_their_prompt_have_no_row() -> None:
    sampler = Sampler()
    waiting = InBatch(State(Sampling(temperature=0), "a"), has_new_token=False)
    greedy = InBatch(State(Sampling(temperature=0, top_logprobs=1), "b"))
    records = sampler.record("b")
    sampler.prepare_tensor_args([waiting, greedy], None)
    sampler(None, torch.tensor([LOGITS]), None)
    assert [each.token_id for each in records] == [0]


def test_log_probabilities_are_the_model_s_own_whatever_the_temperature() -> None:
    expected = torch.tensor(LOGITS).log_softmax(dim=-1).tolist()
    for sampling in (
        Sampling(temperature=0, top_logprobs=2),
        Sampling(temperature=0.1, top_k=1, seed=1, top_logprobs=2),
    ):
        sampler = Sampler()
        records = sampler.record("r")
        choose(sampler, [State(sampling)])
        assert records[0].logprob == pytest.approx(expected[0])
        assert [token for token, _ in records[0].alternatives] == [0, 1]
        sampler.forget("r")
        choose(sampler, [State(sampling)])
        assert len(records) == 1
