"""The engine as its clients see it: the official OpenAI client, plain HTTP, and the process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from prometheus_client.parser import text_string_to_metric_families

from penstock.core.errors import NotReady, PortOccupied, ServingError
from serving.completer import Message
from serving.endpoint import EndpointCompleter
from serving.engine.batcher import Limits
from serving.engine.loading import Loaded, load
from serving.engine.routes import Engine
from serving.engine.server import run
from tests.fakes.tiny_model import make_tiny_model, serve

pytestmark = pytest.mark.integration

PATIENCE_S = 30.0
QUESTION = "what is twelve plus thirty?"
ASK: list[ChatCompletionMessageParam] = [{"role": "user", "content": QUESTION}]
TURNS: list[Message] = [{"role": "user", "content": QUESTION}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Loaded:
    return load(folder)


@pytest.fixture(scope="module")
def served(loaded: Loaded) -> Iterator[tuple[str, Engine]]:
    with serve(loaded) as running:
        yield running


@pytest.fixture(scope="module")
def url(served: tuple[str, Engine]) -> str:
    return served[0]


def client_of(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0)


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with client_of(url) as client:
        yield client


def answer(client: openai.OpenAI, **options: object) -> str:
    response = client.chat.completions.create(
        model="tiny", messages=ASK, temperature=0, max_tokens=16, extra_body=options
    )
    return response.choices[0].message.content or ""


def until(condition: Callable[[], bool]) -> None:
    """Waits for what another thread is about to do."""
    tick = threading.Event()
    for _ in range(int(PATIENCE_S / 0.02)):
        if condition():
            return
        tick.wait(0.02)
    pytest.fail("it did not happen")


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "penstock"


def test_a_chat_is_answered_with_usage(client: openai.OpenAI, loaded: Loaded) -> None:
    response = client.chat.completions.create(
        model="tiny", messages=ASK, temperature=0, max_completion_tokens=7
    )
    assert response.choices[0].message.role == "assistant"
    assert response.choices[0].message.content
    assert response.choices[0].finish_reason == "length"
    assert response.usage is not None
    assert response.usage.completion_tokens == 7
    assert response.usage.prompt_tokens == len(loaded.encode_chat(TURNS))


def test_greedy_answers_are_those_of_generate(client: openai.OpenAI, loaded: Loaded) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    reference = AutoModelForCausalLM.from_pretrained(loaded.folder)
    prompt = torch.tensor([loaded.encode_chat(TURNS)])
    output = reference.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=16
    )
    assert answer(client) == loaded.decode(output[0, prompt.shape[1] :].tolist())


def test_streamed_chunks_join_to_the_answer(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="tiny",
        messages=ASK,
        temperature=0,
        max_tokens=16,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    texts = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(texts) == answer(client)
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 16


def test_a_stream_without_usage_has_only_choices(client: openai.OpenAI) -> None:
    stream = client.completions.create(model="tiny", prompt="the fox", max_tokens=4, stream=True)
    assert all(len(chunk.choices) == 1 for chunk in stream)


def test_completions_take_text_and_tokens_alike(client: openai.OpenAI, loaded: Loaded) -> None:
    texts = [
        client.completions.create(model="tiny", prompt=prompt, temperature=0).choices[0].text
        for prompt in ("the fox", loaded.encode_text("the fox"))
    ]
    assert texts[0]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_ends_the_answer_before_it(client: openai.OpenAI, *, stream: bool) -> None:
    whole = answer(client)
    stop = whole[3:6]
    if stream:
        chunks = client.chat.completions.create(
            model="tiny", messages=ASK, temperature=0, max_tokens=16, stop=[stop], stream=True
        )
        choices = [choice for chunk in list(chunks) for choice in chunk.choices]
        text = "".join(choice.delta.content or "" for choice in choices)
        reason = choices[-1].finish_reason
    else:
        response = client.chat.completions.create(
            model="tiny", messages=ASK, temperature=0, max_tokens=16, stop=[stop, "never"]
        )
        text = response.choices[0].message.content or ""
        reason = response.choices[0].finish_reason
    assert text == whole[: whole.index(stop)]
    assert reason == "stop"


def test_seeds_repeat_and_differ(client: openai.OpenAI) -> None:
    def sample(seed: int | None) -> str:
        response = client.completions.create(
            model="tiny", prompt="the", temperature=2.0, max_tokens=24, seed=seed
        )
        return response.choices[0].text

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)
    assert sample(None) != sample(None)


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_come_per_token(client: openai.OpenAI, *, stream: bool) -> None:
    options = {"model": "tiny", "max_tokens": 5, "logprobs": True, "top_logprobs": 3}
    response = httpx.post(
        f"{client.base_url}chat/completions",
        json={**options, "messages": ASK, "temperature": 0, "stream": stream},
    )
    bodies = [json.loads(line[6:]) for line in response.text.splitlines() if line[:7] == "data: {"]
    parts = bodies if stream else [response.json()]
    tokens = [
        token
        for part in parts
        for token in (part["choices"][0]["logprobs"] or {"content": []})["content"]
    ]
    assert len(tokens) == 5
    for token in tokens:
        assert token["logprob"] < 0
        assert len(token["top_logprobs"]) == 3
        # greedy: the chosen token is the likeliest
        assert token["top_logprobs"][0]["token"] == token["token"]


def test_completions_have_log_probabilities_too(client: openai.OpenAI) -> None:
    response = client.completions.create(
        model="tiny", prompt="the", temperature=0, max_tokens=3, logprobs=2
    )
    logprobs = response.choices[0].logprobs
    assert logprobs is not None
    assert len(logprobs.tokens or []) == len(logprobs.token_logprobs or []) == 3
    assert all(len(each) == 2 for each in logprobs.top_logprobs or [])


def test_errors_have_the_client_s_classes_and_codes(client: openai.OpenAI, url: str) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="other", messages=ASK)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as hot:
        client.chat.completions.create(model="tiny", messages=ASK, temperature=3)
    assert hot.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as long:
        client.completions.create(model="tiny", prompt="fox " * 300)
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as unknown:
        client.completions.create(model="tiny", prompt=[99999])
    assert unknown.value.param == "prompt"
    assert httpx.post(f"{url}/v1/completions", content=b"{").status_code == 400
    assert httpx.get(f"{url}/v1/nothing").json()["error"]["type"] == "invalid_request_error"


def test_a_full_queue_answers_429_and_a_lost_client_frees_its_place(loaded: Loaded) -> None:
    with serve(loaded, limits=Limits(streams=1, waiting=0)) as (url, engine), client_of(url) as one:
        long = one.completions.create(
            model="tiny", prompt="the", max_tokens=250, stream=True, extra_body={"ignore_eos": True}
        )
        next(iter(long))
        with pytest.raises(openai.RateLimitError) as full:
            one.completions.create(model="tiny", prompt="the", max_tokens=1)
        assert full.value.response.headers["Retry-After"] == "1"
        long.close()
        until(lambda: engine.batcher.in_flight == 0)
        assert one.completions.create(model="tiny", prompt="the", max_tokens=1).choices
        aborted = 'request_success_total{finished_reason="abort",model_name="tiny"} 1.0'
        assert aborted in httpx.get(f"{url}/metrics").text


def test_waiting_requests_are_answered_in_their_turn(loaded: Loaded) -> None:
    with serve(loaded, limits=Limits(streams=2, waiting=20)) as (url, _):
        completer = EndpointCompleter(url, "tiny", concurrency=12)
        found = completer.complete([TURNS] * 12, max_new_tokens=6)
        completer.close()
    assert len({each.text for each in found}) == 1


def test_health_turns_503_when_the_generation_thread_dies(loaded: Loaded) -> None:
    with serve(loaded) as (url, engine), client_of(url) as client:
        assert httpx.get(f"{url}/health").status_code == 200
        assert httpx.get(f"{url}/ready").status_code == 200
        # no room for a row of logits: the next step raises inside the loop
        engine.batcher._manager.batch_processor.inputs_and_outputs.output_ids = None
        with pytest.raises(openai.InternalServerError):
            client.completions.create(model="tiny", prompt="the", max_tokens=4)
        until(lambda: httpx.get(f"{url}/health").status_code == 503)
        assert httpx.get(f"{url}/ready").status_code == 503
        with pytest.raises(openai.InternalServerError):
            client.completions.create(model="tiny", prompt="the", max_tokens=4)


def test_a_draining_server_is_not_ready_and_takes_nothing_new(loaded: Loaded) -> None:
    with serve(loaded) as (url, engine), client_of(url) as client:
        engine.draining = True
        assert httpx.get(f"{url}/ready").status_code == 503
        assert httpx.get(f"{url}/health").status_code == 200
        with pytest.raises(openai.InternalServerError, match="shutting down"):
            client.completions.create(model="tiny", prompt="the")


def test_metrics_have_the_canonical_names(client: openai.OpenAI, url: str) -> None:
    answer(client)
    families = {
        family.name: family
        for family in text_string_to_metric_families(httpx.get(f"{url}/metrics").text)
    }
    for name in (
        *("num_requests_waiting", "num_requests_running", "kv_cache_usage_perc"),
        *("time_to_first_token_seconds", "request_time_per_output_token_seconds"),
        *("inter_token_latency_seconds", "e2e_request_latency_seconds"),
        *("request_queue_time_seconds", "prompt_tokens", "generation_tokens", "request_success"),
    ):
        samples = families[f"penstock_{name}"].samples
        assert {sample.labels["model_name"] for sample in samples} == {"tiny"}
    counted = {s.name: s.value for s in families["penstock_generation_tokens"].samples}
    assert counted["penstock_generation_tokens_total"] >= 16


def test_a_wrong_model_or_address_says_what_to_do(url: str) -> None:
    wrong = EndpointCompleter(url, "other")
    with pytest.raises(ServingError, match="does not exist") as missing:
        wrong.complete([TURNS], max_new_tokens=1)
    assert missing.value.hint == "models there: tiny"
    wrong.close()
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    nobody = EndpointCompleter(f"http://127.0.0.1:{port}/v1", "tiny")
    with pytest.raises(NotReady, match="cannot connect"):
        nobody.complete([TURNS], max_new_tokens=1)
    nobody.close()


def test_an_occupied_port_is_named_before_anything_is_loaded(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(PortOccupied) as occupied:
        run(
            tmp_path / "nothing",
            model_name="m",
            host="127.0.0.1",
            port=other.getsockname()[1],
            on_ready=print,
        )
    assert "--port" in occupied.value.hint


def test_the_process_serves_a_socket_and_drains_on_sigterm(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    command = [sys.executable, "-m", "serving.engine", str(folder), "--model-name", "tiny"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # noqa: TID251 - a child needs ours
    with subprocess.Popen(
        [*command, "--socket", str(path)], stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"ready unix:{path}\n".encode()
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(path)), base_url="http://engine"
        ) as http:
            body = {"model": "tiny", "prompt": "a", "max_tokens": 200, "ignore_eos": True}
            with http.stream("POST", "/v1/completions", json={**body, "stream": True}) as response:
                lines = response.iter_lines()
                next(lines)
                process.send_signal(signal.SIGTERM)
                rest = list(lines)
        assert rest[-2:] == ["data: [DONE]", ""]
        assert process.wait(PATIENCE_S) == 0
