"""What the gateway costs: `python -m benchmarks.gateway [--out DIR]`.

The gateway runs on one core; load and two fake upstreams share the other. Three figures: requests
per second when the gateway's core is busy, latency added at a moderate rate (through the gateway
and directly, in alternation), and the split over 10,000 requests against weights of 90 and 10.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from serving.local.objects import SqliteCluster
from serving.manifests import route

REQUESTS, CONNECTIONS = 10_000, 32
PACED, PACE_S = 600, 0.005
BODY = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": False}
_UPSTREAM = """
import sys
from aiohttp import web
async def answer(request):
    await request.read()
    return web.Response(body=b'{"choices": []}', content_type="application/json")
app = web.Application()
app.router.add_post("/v1/chat/completions", answer)
import uvloop; uvloop.install()
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
"""


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        return int(unused.getsockname()[1])


@contextmanager
def running(command: list[str], cores: set[int]) -> Iterator[int]:
    """Run a process on some cores; yields its pid."""
    process = subprocess.Popen(command)
    os.sched_setaffinity(process.pid, cores)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def cpu_s(pid: int) -> float:
    """Return the CPU-seconds a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def answers(session: aiohttp.ClientSession, url: str) -> None:
    """Wait until something listens."""
    for _ in range(200):
        try:
            async with session.post(f"{url}/v1/chat/completions", json=BODY) as response:
                if response.status == 200:
                    return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.05)
    raise SystemExit(f"{url} does not answer")


async def flood(session: aiohttp.ClientSession, url: str) -> tuple[float, Counter[str]]:
    """Send every request over a fixed number of connections; return seconds and who answered."""
    left = iter(range(REQUESTS))
    seen: Counter[str] = Counter()

    async def worker() -> None:
        for _ in left:
            async with session.post(f"{url}/v1/chat/completions", json=BODY) as response:
                await response.read()
                seen[response.headers["X-Penstock-Version"]] += 1

    start = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(CONNECTIONS)))
    return time.perf_counter() - start, seen


async def paced(session: aiohttp.ClientSession, gateway: str, direct: str) -> dict[str, float]:
    """Return the latency in ms, through the gateway and directly, in alternation."""
    times: dict[str, list[float]] = {gateway: [], direct: []}
    for number in range(2 * PACED):
        url = gateway if number % 2 else direct
        start = time.perf_counter()
        async with session.post(f"{url}/v1/chat/completions", json=BODY) as response:
            await response.read()
        times[url].append((time.perf_counter() - start) * 1000)
        await asyncio.sleep(PACE_S)
    cuts = {name: statistics.quantiles(seen, n=100) for name, seen in times.items()}
    return {
        "added_p50_ms": cuts[gateway][49] - cuts[direct][49],
        "added_p99_ms": cuts[gateway][98] - cuts[direct][98],
    }


async def load(gateway: str, direct: str, pid: int) -> dict[str, Any]:
    """Run the three measurements."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await answers(session, direct)
        await answers(session, gateway)
        before = cpu_s(pid)
        seconds, seen = await flood(session, gateway)
        used = cpu_s(pid) - before
        added = await paced(session, gateway, direct)
    return {
        "requests_per_s": REQUESTS / seconds,
        "requests_per_gateway_cpu_s": REQUESTS / used,
        **added,
        "split": {name: count / REQUESTS for name, count in sorted(seen.items())},
    }


def measure() -> dict[str, Any]:
    """Start everything, measure, stop everything."""
    cores = sorted(os.sched_getaffinity(0))
    mine, theirs = {cores[0]}, {cores[-1]}
    os.sched_setaffinity(0, mine)
    ports = [free_port(), free_port(), free_port()]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        cluster = SqliteCluster(folder / "cluster.db")
        for version, port in ((1, ports[0]), (2, ports[1])):
            made = cluster.create(
                {"kind": "InferenceService", "metadata": {"name": f"m-v{version}"}, "spec": {}}
            )
            endpoints = [f"http://127.0.0.1:{port}"]
            cluster.replace_status({**made, "status": {"endpoints": endpoints}})
        cluster.create(route("m", {"m-v1": 90, "m-v2": 10}))
        upstream = [sys.executable, "-c", _UPSTREAM]
        gateway = [sys.executable, "-m", "serving.local.gateway", scratch, str(ports[2])]
        with (
            running([*upstream, str(ports[0])], mine),
            running([*upstream, str(ports[1])], mine),
            running(gateway, theirs) as pid,
        ):
            urls = [f"http://127.0.0.1:{port}" for port in ports]
            return asyncio.run(load(urls[2], urls[0], pid))


def main() -> None:
    """Measure, print, and write JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks"))
    out: Path = parser.parse_args().out
    found = measure()
    out.mkdir(parents=True, exist_ok=True)
    (out / "gateway.json").write_text(json.dumps(found, indent=1) + "\n")
    split = ", ".join(f"{name} {share:.2%}" for name, share in found["split"].items())
    table = (
        "| what | found | goal |\n|---|---|---|\n"
        f"| requests/s, gateway on one core | {found['requests_per_s']:.0f} | 1,000 |\n"
        f"| requests per CPU-second of it | {found['requests_per_gateway_cpu_s']:.0f} | |\n"
        f"| added latency p50 | {found['added_p50_ms']:.2f} ms | |\n"
        f"| added latency p99 | {found['added_p99_ms']:.2f} ms | 10 ms |\n"
        f"| split of 10,000, weights 90 and 10 | {split} | within 1 point |\n"
    )
    (out / "gateway.md").write_text(table)
    print(table, end="")


if __name__ == "__main__":
    main()
