"""Events and prompts in ConfigMaps: nothing is lost, whoever writes."""

from __future__ import annotations

import base64
import random
import threading

from serving.targets.configmaps import (
    ConfigMapLog,
    forget_prompts,
    keep_prompts,
    kept_prompts,
)
from tests.fakes.cluster import MemoryCluster


def _noise(seed: int, length: int) -> str:
    """Return text that does not become much smaller."""
    return base64.b64encode(random.Random(seed).randbytes(length)).decode()[:length]


def test_lines_come_back_in_order_over_many_chunks() -> None:
    cluster = MemoryCluster()
    written = [f"{number} {_noise(number, 20_000)}" for number in range(30)]
    for line in written:
        ConfigMapLog(cluster).append("m", line)  # every process finds the end anew
    ConfigMapLog(cluster).append("other", "y")
    assert list(ConfigMapLog(cluster).lines("m")) == written
    assert ConfigMapLog(cluster).names() == ["m", "other"]
    sizes = [len(obj["binaryData"]["lines"]) for obj in cluster.list("ConfigMap")]
    assert len(sizes) > 3
    assert max(sizes) < 100_000


def test_hours_of_looks_that_differ_little_have_room() -> None:
    """A look at eight pods is some 12 kB: at one a second, 64 chunks of text lasted minutes."""
    cluster, noise = MemoryCluster(), _noise(0, 12_000)
    log, looks = ConfigMapLog(cluster), 400
    for number in range(looks):
        log.append("m", f"{noise}{number}")
    chunks = cluster.list("ConfigMap")
    assert len(list(log.lines("m"))) == looks
    assert len(chunks) * 3600 / looks < 64, "an hour is kept"


def test_lines_that_an_earlier_penstock_wrote_are_read_and_followed() -> None:
    cluster = MemoryCluster()
    log = ConfigMapLog(cluster)
    log.append("m", "first")
    (chunk,) = cluster.list("ConfigMap")
    del chunk["binaryData"]
    cluster.replace({**chunk, "data": {"lines": "one\ntwo\n"}})
    log.append("m", "three")
    assert list(log.lines("m")) == ["one", "two", "three"]


def test_a_line_longer_than_a_chunk_is_kept_whole() -> None:
    log = ConfigMapLog(MemoryCluster())
    long = _noise(1, 300_000)
    for line in (long, "b"):
        log.append("m", line)
    assert list(log.lines("m")) == [long, "b"]


def test_the_oldest_chunks_go_and_the_newest_stay() -> None:
    log = ConfigMapLog(MemoryCluster())
    for number in range(70):
        log.append("m", f"{number} {_noise(number, 97_000)}")
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
