"""Checks of data sets with great-expectations: failing rows are named, Data Docs rendered."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.core.errors import DataRefused
from registry.datasets import Row, read_rows

_NAMED_ROWS = 10
_TRAINED, _EVALUATED = "train", "evaluate"
_OTHER = {_TRAINED: _EVALUATED, _EVALUATED: _TRAINED}
"""Set → the one that it must share no question with."""
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
    asked = {name: {_plain(row.prompt) for row in content} for name, content in rows.items()}
    context = _context(docs)
    suites = []
    for name, content in rows.items():
        other = asked.get(_OTHER.get(name, ""), set())
        frame = _frame(content, sets.count_tokens, other)
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


_MAY_FOLLOW = {
    "": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant", "user"),
}


def in_order(roles: Sequence[str]) -> bool:
    """Return whether turns are such as are answered: system first, if at all, and the user last.

    A tool's answer may stand where a user would speak.
    """
    turns = list(roles[1:] if roles[:1] and roles[0] in ("system", "developer") else roles)
    before = ["", *turns[:-1]]
    follows = all(
        role in _MAY_FOLLOW.get(last, ()) for last, role in zip(before, turns, strict=False)
    )
    return follows and turns[-1:] != [] and turns[-1] in ("user", "tool")


def _plain(prompt: str) -> str:
    """Return a prompt without what hides that it is another: case, and white space."""
    return " ".join(prompt.casefold().split())


def _frame(rows: list[Row], count_tokens: CountTokens, other: set[str]) -> Any:
    import pandas as pd

    return pd.DataFrame(
        {
            "id": [row.id for row in rows],
            "prompt": [row.prompt for row in rows],
            "question": [row.messages[-1].content.strip() for row in rows],
            "answer": [row.answer.strip() for row in rows],
            "tokens": [count_tokens(row) for row in rows],
            "leaks": [_plain(row.prompt) in other for row in rows],
            "in_order": [in_order([turn.role for turn in row.messages]) for row in rows],
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
    if name in _OTHER:
        suite.add_expectation(gxe.ExpectColumnValuesToBeInSet(column="leaks", value_set=[False]))
    if name == _TRAINED:  # what is learnt must be such as is asked later
        suite.add_expectation(
            gxe.ExpectColumnValueLengthsToBeBetween(column="question", min_value=1)
        )
        suite.add_expectation(gxe.ExpectColumnValuesToBeInSet(column="in_order", value_set=[True]))
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
    ("expect_column_value_lengths_to_be_between", "question"): "questions are not empty",
    ("expect_column_values_to_be_in_set", "in_order"): "roles are in order",
}
_LEAKS = {
    _TRAINED: "no prompt is in the evaluation set",
    _EVALUATED: "no prompt is in the training set",
}


def _suite(name: str, rows: list[Row], result: Any) -> dict[str, Any]:
    expectations = [_expectation(each, name) for each in result.results]
    return {
        "name": name,
        "rows": len(rows),
        "passed": bool(result.success),
        "expectations": expectations,
    }


def _expectation(result: Any, suite: str) -> dict[str, Any]:
    config = result.expectation_config
    column = config.kwargs.get("column", "")
    named = _NAMES.get((config.type, column), f"{config.type}({column})")
    unexpected = result.result.get("unexpected_index_list") or []
    return {
        "name": _LEAKS[suite] if column == "leaks" else named,
        "passed": bool(result.success),
        "failing_rows": [str(each["id"]) for each in unexpected[:_NAMED_ROWS]],
        "failing_count": int(result.result.get("unexpected_count") or 0),
        "detail": f"{config.type} on {column}",
    }
