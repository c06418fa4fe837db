"""Chooses tokens inside transformers' generation loop: sampling, seeds and log-probabilities.

transformers' own per-request processors sort the vocabulary three times per step for every
request, know no seed, and report log-probabilities *after* temperature and top-k, so that a greedy
answer always has probability 1. This object stands in for their list
(`ContinuousBatchingLogitsProcessorList`, whose five members it has). A greedy request costs
nothing: the loop takes the arg max. For a sampled one, Gumbel noise is added to the logits that
survive top-k and top-p; the arg max of the sum is an exact draw from the softmax (Gumbel-max
trick). The noise depends only on the seed and the token's position, so a seeded request gets the
same draws in any batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from serving.engine.sampling import Sampling


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """What the model thought of one token, before temperature, top-k and top-p."""

    token_id: int
    logprob: float
    alternatives: tuple[tuple[int, float], ...]
    """The likeliest tokens, best first."""


class Sampler:
    """Takes the place of a manager's `logit_processor`; requests carry a `sampling`."""

    tensors_required = 0
    do_processing = True

    def __init__(self) -> None:
        self._states: Sequence[Any] = ()
        self._records: dict[str, list[TokenLogprob]] = {}

    def record(self, request_id: str) -> list[TokenLogprob]:
        """Returns the list that will grow by one entry per token, before the token is delivered."""
        return self._records.setdefault(request_id, [])

    def forget(self, request_id: str) -> None:
        """Drops what was recorded for a request that is over."""
        self._records.pop(request_id, None)

    def check_kwargs(self, _kwargs: dict[str, Any]) -> None:
        """Accepts the arguments of a new request; `add_request` only ever passes ours."""

    def fill_defaults(self, storage: Any) -> None:
        """Has no tensor arguments to fill in."""

    def prepare_tensor_args(self, requests_in_batch: Sequence[Any], arg_storage: Any) -> Any:
        """Remembers which request each row of the next logits belongs to."""
        self._states = [each.state for each in requests_in_batch if each.has_new_token]
        return arg_storage

    def __call__(self, _input_ids: Any, scores: Any, _arguments: Any) -> Any:
        """Returns logits whose arg max is the token of each row."""
        for row, state in enumerate(self._states):
            sampling: Sampling = state.logit_processor_kwargs["sampling"]
            logits = scores[row]
            chosen = logits
            if sampling.temperature > 0:
                # counted from the prompt's start: a request restarted after eviction draws alike
                position = len(state.initial_tokens) + len(state.generated_tokens)
                chosen = _with_noise(logits, sampling, position)
            if sampling.top_logprobs is not None and state.request_id in self._records:
                entry = _logprob(logits, int(chosen.argmax()), sampling.top_logprobs)
                self._records[state.request_id].append(entry)
            if chosen is not logits:
                scores[row] = chosen
        return scores


def _with_noise(logits: Any, sampling: Sampling, position: int) -> Any:
    import torch

    # numbers only: unlike those of strings, their hashes are alike in every process
    seed = hash((sampling.seed or 0, position)) & (2**63 - 1)

    kept = _truncate(logits / sampling.temperature, sampling)
    generator = torch.Generator(device=kept.device).manual_seed(seed)
    # exponential(1) is -log(uniform): its negative log is Gumbel noise
    noise = torch.empty_like(kept).exponential_(generator=generator).log_().neg_()
    return kept + noise


def _truncate(logits: Any, sampling: Sampling) -> Any:
    import torch

    if not sampling.top_k and sampling.top_p >= 1:
        return logits
    ordered, order = torch.sort(logits, descending=True)
    if sampling.top_k:
        ordered[sampling.top_k :] = -torch.inf
    if sampling.top_p < 1:
        before = ordered.softmax(dim=-1).cumsum(dim=-1).roll(1)
        before[0] = 0.0
        ordered[before >= sampling.top_p] = -torch.inf
    return torch.empty_like(logits).scatter_(0, order, ordered)


def _logprob(logits: Any, token_id: int, alternatives: int) -> TokenLogprob:
    logprobs = logits.log_softmax(dim=-1)
    best = logprobs.topk(min(alternatives, logprobs.shape[-1]))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return TokenLogprob(token_id, float(logprobs[token_id]), tuple(pairs))
