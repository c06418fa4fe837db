from __future__ import annotations

from pathlib import Path

from serving.local.requestlog import Entry, RequestLog


def _entry(number: int, name: str = "m") -> Entry:
    return Entry(float(number), name, "m-v1", "/v1/completions", 200, 0.1, f"body {number}")


def test_keeps_the_newest(tmp_path: Path) -> None:
    log = RequestLog(tmp_path / "requests.db", capacity=3)
    log.append([_entry(n) for n in range(5)])
    log.append([_entry(5)])
    assert log.newest(10) == [_entry(5), _entry(4), _entry(3)]


def test_is_read_on_from_a_cursor(tmp_path: Path) -> None:
    log = RequestLog(tmp_path / "requests.db", capacity=5)
    log.append([_entry(0), _entry(1, "other"), _entry(2), _entry(3)])
    entries, cursor = log.after(0, "m", 2)
    assert entries == [_entry(0), _entry(2)]
    assert log.after(cursor, "m", 2)[0] == [_entry(3)]
    log.append([_entry(n) for n in range(4, 10)])  # the oldest go, also those not yet read
    entries, cursor = log.after(cursor, "m", 100)
    assert entries == [_entry(n) for n in range(5, 10)]
    assert log.after(cursor, "m", 100) == ([], cursor)
