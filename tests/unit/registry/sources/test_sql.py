"""Rows of a database as a data set, on SQLite; `tests/integration/test_postgres.py` has another."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from penstock.core.errors import ConfigurationError, DataRefused, LifecycleError, StoreError
from penstock.core.settings import Settings
from penstock.core.sources import DataRef
from registry.datasets import read_rows
from registry.sources.fetch import Fetched, fetched

QUERY = "SELECT id, skill, prompt, answer FROM rows ORDER BY id"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "rows.db"
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE rows (id INTEGER, skill TEXT, prompt TEXT, answer TEXT)")
        rows = [(3, None, "what is ü?", None), (1, "add", "1 + 1?", "2"), (2, "add", "2 + 2?", "4")]
        db.executemany("INSERT INTO rows VALUES (?, ?, ?, ?)", rows)
    return path


def _fetch(tmp_path: Path, database: Path, query: str = QUERY) -> Fetched:
    ref = DataRef.parse(f"sql:ROWS_URL:{query}")
    env = {"ROWS_URL": f"sqlite:///{database}"}
    return fetched("data.train", ref, Settings(home=tmp_path / "home"), env)


def test_rows_come_in_the_order_of_the_query(tmp_path: Path, database: Path) -> None:
    found = _fetch(tmp_path, database)
    rows = read_rows(found.path)
    assert [(r.id, r.skill, r.conversation[0]["content"], r.answer) for r in rows] == [
        ("1", "add", "1 + 1?", "2"),
        ("2", "add", "2 + 2?", "4"),
        ("3", "all", "what is ü?", ""),
    ]
    assert found.source == "sql:ROWS_URL"


def test_the_same_rows_are_the_same_digest(tmp_path: Path, database: Path) -> None:
    first = _fetch(tmp_path, database)
    assert _fetch(tmp_path, database) == first
    with closing(sqlite3.connect(database)) as db, db:
        db.execute("UPDATE rows SET answer = '5' WHERE id = 2")
    second = _fetch(tmp_path, database)
    assert second.digest != first.digest
    assert first.path.exists()  # a run that began with it still has it
    kept = {path.name for path in (tmp_path / "home/data").iterdir()}
    assert kept == {f"{each.digest.hex}.jsonl" for each in (first, second)}


def test_messages_may_be_whole_conversations(tmp_path: Path, database: Path) -> None:
    turns = json.dumps([{"role": "system", "content": "s"}, {"role": "user", "content": "u"}])
    with closing(sqlite3.connect(database)) as db, db:
        db.execute("CREATE TABLE talks (id TEXT, messages TEXT, answer TEXT)")
        db.execute("INSERT INTO talks VALUES ('a', ?, 'x')", (turns,))
    query = "SELECT id, messages, answer FROM talks ORDER BY id"
    (row,) = read_rows(_fetch(tmp_path, database, query).path)
    assert [turn["role"] for turn in row.conversation] == ["system", "user"]


@pytest.mark.parametrize(
    ("query", "error", "says"),
    [
        ("SELECT id, prompt FROM rows ORDER BY id", DataRefused, "without answer"),
        ("SELECT *, 1 AS extra FROM rows ORDER BY id", DataRefused, "unknown columns extra"),
        (
            "SELECT id, prompt AS messages, answer FROM rows ORDER BY id",
            DataRefused,
            "row 1: messages are not JSON",
        ),
        ("SELECT id FROM gone ORDER BY id", StoreError, "no such table: gone"),
    ],
)
def test_says_what_is_wrong_with_the_query(
    tmp_path: Path, database: Path, query: str, error: type[LifecycleError], says: str
) -> None:
    with pytest.raises(error, match=says):
        _fetch(tmp_path, database, query)
    assert not list((tmp_path / "home/data").iterdir())


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({}, "ROWS_URL is not set"),
        ({"ROWS_URL": "s3cret"}, "no usable URL"),
        ({"ROWS_URL": "nothing://user:s3cret@host/db"}, "no usable URL"),
        ({"ROWS_URL": "sqlite:////nowhere/s3cret/x.db"}, "cannot be reached"),
    ],
)
def test_never_tells_the_url(tmp_path: Path, env: dict[str, str], says: str) -> None:
    ref = DataRef.parse(f"sql:ROWS_URL:{QUERY}")
    with pytest.raises((ConfigurationError, StoreError)) as problem:
        fetched("data.train", ref, Settings(home=tmp_path), env)
    assert says in str(problem.value)
    assert "s3cret" not in f"{problem.value}{problem.value.hint}{problem.value.__cause__}"
