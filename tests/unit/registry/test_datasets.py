from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock.core.errors import ConfigurationError, DataRefused
from registry.datasets import read_rows

ROW = {"id": "1", "skill": "s", "messages": [{"role": "user", "content": "hi"}], "answer": "yo"}


def test_reads_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROW) + "\n\n" + json.dumps({**ROW, "id": "2"}) + "\n")
    assert [row.id for row in read_rows(path)] == ["1", "2"]
    assert read_rows(path)[0].prompt == "user: hi"


def test_an_empty_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("\n")
    with pytest.raises(DataRefused, match="no rows"):
        read_rows(tmp_path / "rows.jsonl")


def test_malformed_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps(ROW), "{", json.dumps({**ROW, "messages": []}), json.dumps({"id": 3})]
    path.write_text("\n".join(lines))
    with pytest.raises(DataRefused) as raised:
        read_rows(path)
    assert "line 2" in str(raised.value)
    assert "line 3: messages" in str(raised.value)
    assert "line 4: id" in str(raised.value)


def test_a_missing_file_is_a_mistake_of_the_request(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_rows(tmp_path / "absent.jsonl")


def test_json_may_hold_line_ends_of_other_kinds(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**ROW, "answer": "a\u2028b"}, ensure_ascii=False) + "\n")
    assert [row.answer for row in read_rows(path)] == ["a\u2028b"]


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"id": "\xff"}')
    with pytest.raises(DataRefused, match="not UTF-8 at byte 8"):
        read_rows(path)
