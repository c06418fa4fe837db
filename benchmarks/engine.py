"""Tokens per CPU-second of the CPU engine against three other ways to run the same model.

`python -m benchmarks.engine [--out DIR] [--model FOLDER]`. Every arm is a process of its own,
pinned to the same core with one thread; the client runs on another core. Rounds are interleaved,
so that a busy host hurts all arms alike, and ratios are of medians. The arms:

* penstock: `python -m serving.engine`, streamed over HTTP
* direct: transformers continuous batching called in process, greedy for all (its fastest
configuration)
* direct-sampling: the same with per-request sampling switched on, as a server of its own would need
* transformers-serve: `transformers serve --continuous-batching`, streamed over HTTP
* loop: `generate` for one request at a time
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

NEW_TOKENS = 64
STREAMS = (1, 8)
REQUESTS = {1: 3, 8: 16}
ROUNDS = 5
START_TIMEOUT_S = 120
COMMITTED_MODEL = Path("examples/skills/model")
THREADS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
WORKERS = ("direct", "direct-sampling", "loop")


@dataclass
class Round:
    """What one arm did in one round."""

    tokens: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0
    ttfts_s: list[float] = field(default_factory=list)


def prompts(count: int, seed: int) -> list[str]:
    """Returns prompts that share no prefix worth caching."""
    rng = random.Random(seed)
    return [" ".join(str(rng.randrange(100)) for _ in range(16)) for _ in range(count)]


# The arms in process: workers that read one JSON line per round and answer with one.


def work(arm: str, folder: Path) -> None:
    """Runs as a worker until its input ends."""
    from serving.engine.loading import load

    loaded = load(folder)
    answer = _loop(loaded) if arm == "loop" else _direct(loaded, sampling=arm == "direct-sampling")
    for line in sys.stdin:
        task = json.loads(line)
        started, cpu = time.perf_counter(), time.process_time()
        done = answer(prompts(REQUESTS[task["streams"]], task["seed"]), task["streams"])
        done.cpu_s = time.process_time() - cpu
        done.wall_s = time.perf_counter() - started
        print(json.dumps(asdict(done)), flush=True)


def _direct(loaded: Any, *, sampling: bool) -> Callable[[list[str], int], Round]:
    from transformers import ContinuousBatchingConfig, GenerationConfig

    choice = {"do_sample": True, "temperature": 0.7, "top_p": 0.95, "top_k": 50}
    options = {"temperature": 1.0, "top_p": 1.0, "top_k": 1} if sampling else {}
    manager = loaded.model.init_continuous_batching(
        generation_config=GenerationConfig(
            **(choice if sampling else {"do_sample": False}), eos_token_id=-1
        ),
        continuous_batching_config=ContinuousBatchingConfig(
            block_size=32,
            num_blocks=128,
            max_batch_tokens=512,
            use_cuda_graph=False,
            per_request_processors=sampling,
        ),
    )
    manager.start()

    def answer(texts: list[str], streams: int) -> Round:
        done, waiting = Round(), list(texts)
        sent: dict[str, float] = {}
        first: set[str] = set()

        def send() -> None:
            ids = loaded.encode_chat([{"role": "user", "content": waiting.pop()}])
            at = time.perf_counter()
            name = manager.add_request(ids, max_new_tokens=NEW_TOKENS, streaming=True, **options)
            sent[name] = at

        for _ in range(streams):
            send()
        while len(first) < len(texts) or sent:
            output = manager.output_router.output_queue.get(timeout=60)
            if output.request_id not in first:
                first.add(output.request_id)
                done.ttfts_s.append(time.perf_counter() - sent[output.request_id])
            if output.is_finished():
                done.tokens += len(output.generated_tokens)
                loaded.decode(output.generated_tokens)
                del sent[output.request_id]
                if waiting:
                    send()
        return done

    return answer


def _loop(loaded: Any) -> Callable[[list[str], int], Round]:
    import torch

    class FirstToken:
        """A streamer that notes when the first token came; the prompt comes before it."""

        def __init__(self) -> None:
            self.puts: list[float] = []

        def put(self, _value: object) -> None:
            self.puts.append(time.perf_counter())

        def end(self) -> None:
            """Has nothing to flush."""

    def answer(texts: list[str], streams: int) -> Round:
        done = Round()
        # `streams` clients queue: each sends its next request when its last one is answered
        ended = [time.perf_counter()] * streams
        for text in texts:
            ids = torch.tensor([loaded.encode_chat([{"role": "user", "content": text}])])
            streamer = FirstToken()
            with torch.inference_mode():
                output = loaded.model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    do_sample=False,
                    max_new_tokens=NEW_TOKENS,
                    min_new_tokens=NEW_TOKENS,
                    streamer=streamer,
                    pad_token_id=loaded.pad_token_id,
                )
            loaded.decode(output[0, ids.shape[1] :].tolist())
            done.tokens += output.shape[1] - ids.shape[1]
            done.ttfts_s.append(streamer.puts[1] - ended.pop(0))
            ended.append(time.perf_counter())
        return done

    return answer


# The client side: one object per arm, all with `measure(streams, seed)`.


class Worker:
    """An arm in a worker process."""

    def __init__(self, name: str, folder: Path, core: int) -> None:
        command = [sys.executable, "-m", "benchmarks.engine", "--worker", name]
        self._process = start([*command, "--model", str(folder)], core, pipes=True)

    def wait_until_ready(self) -> None:
        """Answers one small round, so that nothing lazy is left."""
        self.measure(1, 0)

    def measure(self, streams: int, seed: int) -> Round:
        """Returns what one round took."""
        tasks, results = self._process.stdin, self._process.stdout
        if tasks is None or results is None:
            raise RuntimeError("a worker talks over pipes")
        tasks.write(json.dumps({"streams": streams, "seed": seed}) + "\n")
        tasks.flush()
        line = results.readline()
        if not line:
            raise RuntimeError(f"the worker ended with {self._process.wait()}")
        return Round(**json.loads(line))

    def stop(self) -> None:
        """Ends the process."""
        end(self._process)


class Server:
    """An arm behind HTTP."""

    def __init__(
        self, command: list[str], *, model: str, port: int, core: int, extra: Mapping[str, Any]
    ) -> None:
        self._process = start(command, core, pipes=False)
        self._model = model
        self._url = f"http://127.0.0.1:{port}"
        self._extra = extra

    def wait_until_ready(self) -> None:
        """Waits for the first answer."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                self.measure(1, 0)
            except (aiohttp.ClientError, OSError):
                self._pause()
            else:
                return
        raise RuntimeError(f"no answer from {self._url}; exit code {self._process.poll()}")

    def measure(self, streams: int, seed: int) -> Round:
        """Returns what one round took; CPU time is the server's alone."""
        cpu = cpu_seconds(self._process.pid)
        started = time.perf_counter()
        done = asyncio.run(self._round(prompts(REQUESTS[streams], seed), streams))
        done.wall_s = time.perf_counter() - started
        done.cpu_s = cpu_seconds(self._process.pid) - cpu
        return done

    def stop(self) -> None:
        """Ends the process."""
        end(self._process)

    def _pause(self) -> None:
        try:
            self._process.wait(0.3)
        except subprocess.TimeoutExpired:
            return

    async def _round(self, texts: list[str], streams: int) -> Round:
        done, waiting = Round(), list(texts)
        async with aiohttp.ClientSession() as session:

            async def client() -> None:
                while waiting:
                    await self._ask(session, waiting.pop(), done)

            await asyncio.gather(*(client() for _ in range(streams)))
        return done

    async def _ask(self, session: aiohttp.ClientSession, text: str, done: Round) -> None:
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": NEW_TOKENS,
            "temperature": 0,
            "stream": True,
            **self._extra,
        }
        sent, first = time.perf_counter(), 0.0
        async with session.post(f"{self._url}/v1/chat/completions", json=body) as response:
            response.raise_for_status()
            async for line in response.content:
                if not line.startswith(b"data: {"):
                    continue
                choices = json.loads(line[6:])["choices"]
                if not first and any(each["delta"].get("content") for each in choices):
                    first = time.perf_counter()
        # no model here has an end token, and not every server counts what it streams
        done.tokens += NEW_TOKENS
        done.ttfts_s.append((first or time.perf_counter()) - sent)


def start(command: list[str], core: int, *, pipes: bool) -> subprocess.Popen[str]:
    """Starts a process on one core."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **THREADS, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"},
        stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
        stdout=subprocess.PIPE if pipes else subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    os.sched_setaffinity(process.pid, {core})
    return process


def end(process: subprocess.Popen[str]) -> None:
    """Ends a process, forcibly after ten seconds."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def cpu_seconds(pid: int) -> float:
    """Returns the CPU time of a process, its threads and the children it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """Returns a port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def arms(folder: Path, core: int) -> Iterator[tuple[str, Worker | Server]]:
    """Starts every arm; the first is ours, the second what it is compared with."""
    ours, theirs = free_port(), free_port()
    engine = [sys.executable, "-m", "serving.engine", str(folder), "--model-name", "bench"]
    yield (
        "penstock",
        Server(
            [*engine, "--port", str(ours)],
            model="bench",
            port=ours,
            core=core,
            extra={"stream_options": {"include_usage": True}},
        ),
    )
    for name in WORKERS:
        yield name, Worker(name, folder, core)
    cli = [str(Path(sys.executable).with_name("transformers")), "serve", str(folder)]
    cache = ["--cb-block-size", "32", "--cb-num-blocks", "128", "--cb-max-batch-tokens", "512"]
    where = ["--device", "cpu", "--dtype", "float32", "--host", "127.0.0.1", "--port", str(theirs)]
    yield (
        "transformers-serve",
        Server(
            [*cli, "--continuous-batching", *cache, *where],
            model=str(folder),
            port=theirs,
            core=core,
            extra={},
        ),
    )


def measure(folder: Path) -> dict[str, dict[int, list[Round]]]:
    """Returns the rounds of every arm that started, by number of streams."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0]})
    found: dict[str, dict[int, list[Round]]] = {}
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        started = {}
        for name, arm in arms(folder, cores[-1]):
            stack.callback(arm.stop)
            started[name] = arm
        waits = {name: pool.submit(arm.wait_until_ready) for name, arm in started.items()}
        for name, wait in waits.items():
            if error := wait.exception():
                print(f"{name}: did not start: {error}", file=sys.stderr)
                del started[name]
        for number in range(ROUNDS):
            for name, arm in rotated(list(started.items()), number):
                for streams in STREAMS:
                    result = arm.measure(streams, seed=number + 1)
                    found.setdefault(name, {}).setdefault(streams, []).append(result)
            print(f"round {number + 1} of {ROUNDS}", file=sys.stderr)
    return found


def rotated(items: list[Any], by: int) -> list[Any]:
    """Returns the items in a different order each round."""
    by %= len(items)
    return items[by:] + items[:by]


def summarize(found: Mapping[str, Mapping[int, list[Round]]]) -> list[dict[str, Any]]:
    """Returns one row per arm and number of streams, with ratios of medians to ours."""
    rates = {
        (name, streams): statistics.median(each.tokens / each.cpu_s for each in rounds)
        for name, by_streams in found.items()
        for streams, rounds in by_streams.items()
    }
    rows = []
    for (name, streams), rate in rates.items():
        rounds = found[name][streams]
        ttfts = sorted(ttft for each in rounds for ttft in each.ttfts_s)
        rows.append(
            {
                "arm": name,
                "streams": streams,
                "tokens_per_cpu_s": round(rate, 1),
                "tokens_per_s": round(statistics.median(e.tokens / e.wall_s for e in rounds), 1),
                "ttft_p50_ms": round(1000 * statistics.median(ttfts), 1),
                "ttft_p95_ms": round(1000 * ttfts[int(0.95 * (len(ttfts) - 1))], 1),
                "penstock_over_this": round(rates["penstock", streams] / rate, 2),
            }
        )
    return sorted(rows, key=lambda row: (row["streams"], -row["tokens_per_cpu_s"]))


def markdown(rows: list[dict[str, Any]], facts: Mapping[str, Any]) -> str:
    """Returns the table with the conditions it was measured under."""
    lines = [
        "# CPU engine",
        "",
        "; ".join(f"{key}: {value}" for key, value in facts.items()),
        "",
        "| streams | arm | tok/CPU-s | tok/s | TTFT p50 ms | TTFT p95 ms | penstock / arm |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['streams']} | {r['arm']} | {r['tokens_per_cpu_s']} | {r['tokens_per_s']} |"
        f" {r['ttft_p50_ms']} | {r['ttft_p95_ms']} | {r['penstock_over_this']:.2f} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


def model_folder(asked: Path | None, scratch: Path) -> Path:
    """Returns the model asked for, the committed one, or a random one of that shape."""
    if asked is not None:
        return asked
    if (COMMITTED_MODEL / "config.json").exists():
        return COMMITTED_MODEL
    from tests.fakes.tiny_model import Shape, make_tiny_model

    shape = Shape(hidden=256, intermediate=640, layers=4, heads=4, vocabulary=768, context=512)
    return make_tiny_model(scratch / "model", shape=shape)


def without_end(folder: Path, copy: Path) -> Path:
    """Copies a checkpoint whose answers then never end early: every arm does the same work."""
    shutil.copytree(folder, copy)
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        path = copy / name
        if path.exists():
            fields = json.loads(path.read_text())
            kept = {key: value for key, value in fields.items() if not key.startswith("eos_token")}
            path.write_text(json.dumps(kept))
    return copy


def main() -> None:
    """Measures, prints the table, and writes `engine.json` and `engine.md`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks"))
    parser.add_argument("--model", type=Path)
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.model)
        return
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        folder = model_folder(options.model, Path(scratch))
        found = measure(without_end(folder, Path(scratch) / "endless"))
    facts = {
        "model": "committed example" if folder == COMMITTED_MODEL else folder.name,
        "new_tokens": NEW_TOKENS,
        "rounds": ROUNDS,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "took_s": round(time.perf_counter() - started),
    }
    rows = summarize(found)
    options.out.mkdir(parents=True, exist_ok=True)
    report = {"facts": facts, "rows": rows}
    (options.out / "engine.json").write_text(json.dumps(report, indent=2) + "\n")
    (options.out / "engine.md").write_text(markdown(rows, facts))
    print(markdown(rows, facts))


if __name__ == "__main__":
    main()
