"""Events and prompts in ConfigMaps: nothing is lost, whoever writes."""

from __future__ import annotations

import random
import threading

from serving.targets.configmaps import (
    ConfigMapLog,
    forget_prompts,
    keep_prompts,
    kept_prompts,
)
from tests.fakes.cluster import MemoryCluster


def test_lines_come_back_in_order_over_many_chunks() -> None:
    cluster = MemoryCluster()
    written = [f"{number} {'x' * 20_000}" for number in range(30)]
    for line in written:
        ConfigMapLog(cluster).append("m", line)  # every process finds the end anew
    ConfigMapLog(cluster).append("other", "y")
    assert list(ConfigMapLog(cluster).lines("m")) == written
    assert ConfigMapLog(cluster).names() == ["m", "other"]
    sizes = [len(obj["data"]["lines"]) for obj in cluster.list("ConfigMap")]
    assert len(sizes) > 5
    assert max(sizes) < 100_000


def test_a_line_longer_than_a_chunk_is_kept_whole() -> None:
    log = ConfigMapLog(MemoryCluster())
    for line in ("a" * 200_000, "b"):
        log.append("m", line)
    assert list(log.lines("m")) == ["a" * 200_000, "b"]


def test_the_oldest_chunks_go_and_the_newest_stay() -> None:
    log = ConfigMapLog(MemoryCluster())
    for number in range(70):
        log.append("m", f"{number} {'x' * 97_000}")
    kept = [int(line.split()[0]) for line in log.lines("m")]
    assert kept == list(range(6, 70))


def test_of_many_writers_none_loses_a_line() -> None:
    cluster = MemoryCluster()

    def write(owner: int) -> None:
        log = ConfigMapLog(cluster)
        for number in range(25):
            log.append("m", f"{owner}-{number}")

    threads = [threading.Thread(target=write, args=(owner,)) for owner in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ConfigMapLog(cluster).lines("m")) == sorted(
        f"{owner}-{number}" for owner in range(4) for number in range(25)
    )


def test_prompts_are_kept_replaced_and_forgotten() -> None:
    cluster = MemoryCluster()
    assert kept_prompts(cluster, "m-v2") is None
    keep_prompts(cluster, "m-v2", "first")
    keep_prompts(cluster, "m-v2", "second: schön")
    assert kept_prompts(cluster, "m-v2") == "second: schön"
    forget_prompts(cluster, "m-v2")
    assert kept_prompts(cluster, "m-v2") is None
    assert cluster.list("ConfigMap") == []


def test_half_of_the_prompts_are_none() -> None:

    cluster, text = MemoryCluster(), random.Random(1).randbytes(1_000_000).hex()
    keep_prompts(cluster, "m-v2", text)
    assert len(cluster.list("ConfigMap")) > 1
    assert kept_prompts(cluster, "m-v2") == text
    cluster.delete("ConfigMap", "penstock-prompts-m-v2-1")
    assert kept_prompts(cluster, "m-v2") is None
