"""Rows of a SQL query as a data set, by SQLAlchemy: any database that has a driver here.

A query gives either whole rows (`id`, `skill`, `messages` as JSON, `answer`) or `prompt` in place
of `messages`. The connection's URL is read from the environment and never shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penstock.core.errors import ConfigurationError, DataRefused, StoreError
from penstock.core.sources import DataRef

_KNOWN = {"id", "skill", "messages", "prompt", "answer"}
_ROWS_AT_ONCE = 1000


def bring(name: str, ref: DataRef, env: Mapping[str, str], target: Path) -> None:
    """Write the rows of a query as JSONL, in the query's order.

    Args:
        name: What the spec calls it.
        ref: The query, and the variable with its connection.
        env: Where that variable is.
        target: File to write.
    """
    url = env.get(ref.where)
    if not url:
        raise ConfigurationError(
            f"{name}: {ref.where} is not set: it has the URL of the query's database",
            hint=f"export {ref.where}=postgresql+psycopg://USER:PASSWORD@HOST/DATABASE; "
            "on a cluster, from a Secret",
        )
    with _refusals(name, ref), _connected(url) as connection, target.open("w") as out:
        from sqlalchemy import text

        found = connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(text(ref.what))
        _require(name, ref, set(found.keys()))
        for number, row in enumerate(found.mappings(), start=1):
            out.write(line(row, f"{name}: {ref.told}: row {number}") + "\n")


def line(row: Mapping[str, Any], where: str) -> str:
    """Return a row of the database as a line of the data set.

    Args:
        row: Its columns.
        where: For the message when it cannot be one.
    """
    body: dict[str, Any] = {"id": str(row["id"])}
    if row.get("skill") is not None:
        body["skill"] = str(row["skill"])
    if "messages" in row:
        body["messages"] = _messages(row["messages"], where)
    else:
        body["messages"] = [{"role": "user", "content": str(row["prompt"])}]
    body["answer"] = "" if row["answer"] is None else str(row["answer"])
    return json.dumps(body, ensure_ascii=False)


def _messages(found: Any, where: str) -> Any:
    if not isinstance(found, str):
        return found  # the driver reads JSON columns itself
    try:
        return json.loads(found)
    except ValueError as problem:
        raise DataRefused(
            f"{where}: messages are not JSON: {problem}",
            hint="or select a column prompt instead",
        ) from problem


def _require(name: str, ref: DataRef, columns: set[str]) -> None:
    missing = {"id", "answer"} - columns
    if not columns & {"messages", "prompt"}:
        missing |= {"prompt"}
    strange = columns - _KNOWN
    if missing or strange:
        wrong = [f"without {', '.join(sorted(missing))}"] if missing else []
        wrong += [f"with unknown columns {', '.join(sorted(strange))}"] if strange else []
        raise DataRefused(
            f"{name}: {ref.told}: the query gives rows {' and '.join(wrong)}",
            hint="select id, skill, prompt (or messages) and answer; rename with AS",
        )


@contextmanager
def _connected(url: str) -> Iterator[Any]:
    import sqlalchemy

    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


@contextmanager
def _refusals(name: str, ref: DataRef) -> Iterator[None]:
    """Turn SQLAlchemy's errors into ours; theirs may quote the URL."""
    from sqlalchemy import exc

    try:
        yield
    except (exc.ArgumentError, exc.NoSuchModuleError, ImportError) as problem:
        raise ConfigurationError(
            f"{name}: {ref.where} is no usable URL of a database ({type(problem).__name__})",
            hint="postgresql+psycopg://USER:PASSWORD@HOST/DATABASE, with its driver installed",
        ) from None
    except (exc.OperationalError, exc.InterfaceError) as problem:
        raise StoreError(
            f"{name}: the database of {ref.where} refused or cannot be reached: {_first(problem)}",
            hint="check that it runs, and that the user may read the table; then run again",
        ) from None
    except exc.DBAPIError as problem:
        raise ConfigurationError(
            f"{name}: the query of {ref.where} was refused: {_first(problem)}",
            hint="was a table or a column dropped? correct the query in model.yaml",
        ) from None


def _first(problem: Any) -> str:
    """Return the driver's first line; SQLAlchemy's own text would repeat the whole query."""
    return str(problem.orig).strip().partition("\n")[0][:200]
