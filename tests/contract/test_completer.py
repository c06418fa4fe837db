"""What every completer does, whether it asks a server, a checkpoint or a table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.core.errors import ServingError
from serving.completer import Completer, Message
from serving.endpoint import EndpointCompleter
from serving.engine.inprocess import InProcessCompleter
from serving.engine.loading import Loaded, load
from tests.fakes.completer import FakeCompleter
from tests.fakes.tiny_model import make_tiny_model, serve


def ask(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


CONVERSATIONS = [ask(f"what is {n} plus {n * 7}? {'please ' * (n % 3)}") for n in range(9)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Loaded:
    return load(folder)


@pytest.fixture(params=["fake", "in process", "endpoint"])
def completer(request: pytest.FixtureRequest, folder: Path, loaded: Loaded) -> Iterator[Completer]:
    if request.param == "fake":
        yield FakeCompleter({}, default="one two three four five six seven")
    elif request.param == "in process":
        yield InProcessCompleter(folder, streams=1)
    else:
        with serve(loaded) as (url, _):
            endpoint = EndpointCompleter(url, "tiny", concurrency=4)
            yield endpoint
            endpoint.close()


def test_a_completion_per_conversation_in_order(completer: Completer) -> None:
    together = completer.complete(CONVERSATIONS, max_new_tokens=5)
    alone = [completer.complete([each], max_new_tokens=5)[0] for each in CONVERSATIONS]
    assert [each.text for each in together] == [each.text for each in alone]


def test_every_completion_counts_its_tokens_and_says_why_it_ended(completer: Completer) -> None:
    for each in completer.complete(CONVERSATIONS, max_new_tokens=5):
        assert each.finish_reason in ("stop", "length")
        assert 1 <= each.completion_tokens <= 5
        assert each.finish_reason == "stop" or each.completion_tokens == 5
        assert each.prompt_tokens > 3
        assert each.e2e_s >= 0
        assert each.ttft_s is None or 0 <= each.ttft_s <= each.e2e_s


def test_progress_rises_to_the_number_of_conversations(completer: Completer) -> None:
    reported: list[int] = []
    completer.complete(CONVERSATIONS, max_new_tokens=2, on_done=reported.append)
    assert reported == sorted(reported)
    assert reported[-1] == len(CONVERSATIONS)


def test_no_conversations_give_no_completions(completer: Completer) -> None:
    assert completer.complete([], max_new_tokens=5) == []


def test_log_likelihoods_are_negative_and_counted_or_absent(completer: Completer) -> None:
    scored = completer.answer_log_likelihoods(CONVERSATIONS[:3], ["one", "two words", "three"])
    if scored is None:
        return
    assert len(scored) == 3
    for log_likelihood, tokens in scored:
        assert log_likelihood < 0
        assert tokens >= 2


def test_it_says_where_answers_come_from(completer: Completer) -> None:
    assert completer.description


def test_a_closed_completer_says_so(completer: Completer) -> None:
    completer.close()
    with pytest.raises(ServingError, match="closed"):
        completer.complete(CONVERSATIONS[:1], max_new_tokens=1)


def test_server_and_process_answer_alike(folder: Path, loaded: Loaded) -> None:
    in_process = InProcessCompleter(folder, streams=2)
    with serve(loaded) as (url, _):
        endpoint = EndpointCompleter(url, "tiny", concurrency=8)
        served = endpoint.complete(CONVERSATIONS, max_new_tokens=12)
        endpoint.close()
    local = in_process.complete(CONVERSATIONS, max_new_tokens=12)
    assert [(c.text, c.finish_reason, c.completion_tokens, c.prompt_tokens) for c in served] == [
        (c.text, c.finish_reason, c.completion_tokens, c.prompt_tokens) for c in local
    ]
