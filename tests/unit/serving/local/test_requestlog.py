from __future__ import annotations

from pathlib import Path

from serving.local.requestlog import Entry, RequestLog


def _entry(number: int) -> Entry:
    return Entry(float(number), "m", "m-v1", "/v1/completions", 200, 0.1, f"body {number}")


def test_keeps_the_newest(tmp_path: Path) -> None:
    log = RequestLog(tmp_path / "requests.db", capacity=3)
    log.append([_entry(n) for n in range(5)])
    log.append([_entry(5)])
    assert log.newest(10) == [_entry(5), _entry(4), _entry(3)]
