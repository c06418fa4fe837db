"""Training data from a real PostgreSQL, where its binaries are installed."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy

from penstock.core.errors import ConfigurationError, LifecycleError, StoreError
from penstock.core.settings import Settings
from penstock.core.sources import DataRef
from registry.datasets import read_rows
from registry.sources.fetch import Fetched, fetched

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        shutil.which("postgres") is None or shutil.which("initdb") is None,
        reason="PostgreSQL is not installed: apt-get install postgresql, "
        "and its bin folder in PATH",
    ),
]
QUERY = "SELECT id, skill, messages, answer FROM rows ORDER BY id"


def _command(*words: str) -> list[str]:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return list(words)
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *words]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A database that only a Unix socket reaches; yields its URL."""
    with tempfile.TemporaryDirectory(prefix="penstock-pg-", ignore_cleanup_errors=True) as made:
        folder = Path(made)
        if os.getuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        data = folder / "data"
        init = _command("initdb", "-D", str(data), "-U", "owner", "--no-sync", "-E", "UTF8", "-A")
        subprocess.run([*init, "trust"], check=True, capture_output=True, cwd="/")
        flags = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}"]
        process = subprocess.Popen(
            _command("postgres", "-D", str(data), *flags, "-F"),
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
        )
        try:
            assert process.stderr is not None
            for line in process.stderr:  # its own word, and an end of the stream if it cannot start
                if "ready to accept connections" in line:
                    break
            else:
                pytest.fail("postgres ended at once")
            yield f"postgresql+psycopg://owner@/postgres?host={folder}"
        finally:
            process.terminate()
            process.communicate(timeout=30)


@pytest.fixture(scope="module")
def filled(server: str) -> str:
    engine = sqlalchemy.create_engine(server)
    with engine.begin() as db:
        db.exec_driver_sql(
            "CREATE TABLE rows (id uuid, skill text, messages jsonb, answer text);"
            "CREATE ROLE reader LOGIN; CREATE TABLE hidden (id int, prompt text, answer text)"
        )
        for number in (2, 1):
            db.exec_driver_sql(
                "INSERT INTO rows VALUES (%s, 'ü', %s, %s)",
                (
                    f"00000000-0000-0000-0000-00000000000{number}",
                    f'[{{"role": "user", "content": "what is {number}?"}}]',
                    str(number),
                ),
            )
    engine.dispose()
    return server


def _fetch(tmp_path: Path, url: str, query: str = QUERY) -> Fetched:
    ref = DataRef.parse(f"sql:ROWS_URL:{query}")
    return fetched("data.train", ref, Settings(home=tmp_path), {"ROWS_URL": url})


def test_types_of_postgresql_become_rows(tmp_path: Path, filled: str) -> None:
    found = _fetch(tmp_path, filled)
    rows = read_rows(found.path)
    assert [(r.id[-1], r.skill, r.prompt, r.answer) for r in rows] == [
        ("1", "ü", "user: what is 1?", "1"),
        ("2", "ü", "user: what is 2?", "2"),
    ]
    assert _fetch(tmp_path, filled) == found


def test_a_new_row_is_another_digest(tmp_path: Path, filled: str) -> None:
    before = _fetch(tmp_path, filled).digest
    engine = sqlalchemy.create_engine(filled)
    with engine.begin() as db:
        db.exec_driver_sql(
            "INSERT INTO rows SELECT gen_random_uuid(), skill, messages, '3' FROM rows"
        )
    engine.dispose()
    assert _fetch(tmp_path, filled).digest != before


@pytest.mark.parametrize(
    ("query", "url", "error", "says"),
    [
        (
            "SELECT * FROM gone ORDER BY id",
            "{}",
            ConfigurationError,
            'relation "gone" does not exist',
        ),
        (
            "SELECT id, prompt, answer FROM hidden ORDER BY id",
            "{reader}",
            ConfigurationError,
            "permission denied for table hidden",
        ),
        (
            "WITH gone AS (DELETE FROM rows RETURNING id) SELECT id FROM gone ORDER BY id",
            "{}",
            ConfigurationError,
            "must not contain data-modifying statements",
        ),
        (QUERY, "{nobody}", StoreError, 'role "stranger" does not exist'),
    ],
)
def test_says_what_the_database_refused(
    tmp_path: Path, filled: str, query: str, url: str, error: type[LifecycleError], says: str
) -> None:
    reader, stranger = (filled.replace("owner@", f"{who}@") for who in ("reader", "stranger"))
    where = url.format(filled, reader=reader, nobody=stranger)
    with pytest.raises(error) as problem:
        _fetch(tmp_path, where, query)
    assert says in str(problem.value)
    assert "socket" not in str(problem.value.__cause__)
