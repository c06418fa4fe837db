"""Checks of data sets with great-expectations: failing rows are named, Data Docs rendered."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.core.errors import DataRefused
from registry.datasets import Row, read_rows

_NAMED_ROWS = 10
_EVALUATED = "evaluate"
_SITE = "local_site"

CountTokens = Callable[[Row], int]


@dataclass(frozen=True, slots=True)
class Sets:
    """What is checked, and against what."""

    paths: Mapping[str, Path]
    """`train`, `evaluate`, `calibrate`: as far as the spec names them."""

    context_length: int
    """Tokens the model can read."""

    count_tokens: CountTokens
    """Tokens of a row, question and answer."""


def check(sets: Sets, docs: Path | None) -> dict[str, Any]:
    """Return `suites` (per set: expectations with failing rows) and `docs` (the page's path).

    Args:
        sets: What is checked.
        docs: Folder for the Data Docs; None renders none.
    """
    rows = {name: read_rows(path) for name, path in sets.paths.items()}
    if not rows:
        return {"suites": [], "docs": ""}
    trained = {row.prompt for row in rows.get("train", [])}
    context = _context(docs)
    suites = []
    for name, content in rows.items():
        frame = _frame(content, sets.count_tokens, trained if name == _EVALUATED else set())
        result = _validate(context, name, frame, sets.context_length)
        suites.append(_suite(name, content, result))
    page = ""
    if docs is not None:
        context.build_data_docs()
        page = str(docs / "index.html")
    return {"suites": suites, "docs": page}


def require(report: Mapping[str, Any]) -> None:
    """Raise `DataRefused` with every failed expectation and the rows that fail it."""
    failed = [
        f"{suite['name']}: {e['name']}: {e['failing_count']} rows fail, such as "
        f"{', '.join(e['failing_rows'][:3]) or 'all'}"
        for suite in report["suites"]
        for e in suite["expectations"]
        if not e["passed"]
    ]
    if failed:
        raise DataRefused(
            "\n  ".join(["the data is not fit to measure on:", *failed]),
            hint="correct the rows named; every expectation is in the run's report",
        )


def _frame(rows: list[Row], count_tokens: CountTokens, trained: set[str]) -> Any:
    import pandas as pd

    return pd.DataFrame(
        {
            "id": [row.id for row in rows],
            "prompt": [row.prompt for row in rows],
            "answer": [row.answer for row in rows],
            "tokens": [count_tokens(row) for row in rows],
            "leaks": [row.prompt in trained for row in rows],
        }
    )


def _context(docs: Path | None) -> Any:
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    context.enable_analytics(enable=False)
    if docs is not None:
        store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs)}
        site = {
            "class_name": "SiteBuilder",
            "show_how_to_buttons": False,
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "store_backend": store,
        }
        known = _SITE in context.get_site_names()  # some contexts come with one of this name
        (context.update_data_docs_site if known else context.add_data_docs_site)(_SITE, site)
    return context


def _validate(context: Any, name: str, frame: Any, context_length: int) -> Any:
    import great_expectations as gx
    from great_expectations import expectations as gxe

    asset = context.data_sources.add_pandas(name).add_dataframe_asset(name)
    batch = asset.add_batch_definition_whole_dataframe("all")
    suite = gx.ExpectationSuite(name=name)
    suite.add_expectation(gxe.ExpectColumnValuesToBeUnique(column="id"))
    suite.add_expectation(gxe.ExpectColumnValuesToBeUnique(column="prompt"))
    suite.add_expectation(gxe.ExpectColumnValueLengthsToBeBetween(column="answer", min_value=1))
    suite.add_expectation(
        gxe.ExpectColumnValuesToBeBetween(column="tokens", max_value=context_length)
    )
    if name == _EVALUATED:
        suite.add_expectation(gxe.ExpectColumnValuesToBeInSet(column="leaks", value_set=[False]))
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name=name, data=batch, suite=context.suites.add(suite))
    )
    checkpoint = context.checkpoints.add(
        gx.Checkpoint(
            name=name,
            validation_definitions=[definition],
            actions=[],
            result_format={
                "result_format": "COMPLETE",
                "unexpected_index_column_names": ["id"],
                "partial_unexpected_count": _NAMED_ROWS,
            },
        )
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas' and marshmallow's, about great-expectations
        result = checkpoint.run(batch_parameters={"dataframe": frame})
    return next(iter(result.run_results.values()))


_NAMES = {
    ("expect_column_values_to_be_unique", "id"): "ids are unique",
    ("expect_column_values_to_be_unique", "prompt"): "no prompt comes twice",
    ("expect_column_value_lengths_to_be_between", "answer"): "answers are not empty",
    ("expect_column_values_to_be_between", "tokens"): "rows fit the context",
    ("expect_column_values_to_be_in_set", "leaks"): "no prompt is in the training set",
}


def _suite(name: str, rows: list[Row], result: Any) -> dict[str, Any]:
    expectations = [_expectation(each) for each in result.results]
    return {
        "name": name,
        "rows": len(rows),
        "passed": bool(result.success),
        "expectations": expectations,
    }


def _expectation(result: Any) -> dict[str, Any]:
    config = result.expectation_config
    column = config.kwargs.get("column", "")
    unexpected = result.result.get("unexpected_index_list") or []
    return {
        "name": _NAMES.get((config.type, column), f"{config.type}({column})"),
        "passed": bool(result.success),
        "failing_rows": [str(each["id"]) for each in unexpected[:_NAMED_ROWS]],
        "failing_count": int(result.result.get("unexpected_count") or 0),
        "detail": f"{config.type} on {column}",
    }
