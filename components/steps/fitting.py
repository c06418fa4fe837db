"""Pages that fit where they are shown: long texts and lists are cut, and say so; pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, TypeVar

Row = TypeVar("Row")

HTML_BYTES = 2_000_000
"""Most of a page; KFP's UI sets no limit, and holds it in the browser's memory twice."""

MARKDOWN_CHARACTERS = 400_000
"""Most that KFP's viewer shows (`MarkdownViewer.tsx`): it cuts what is longer anywhere."""


@dataclass(frozen=True, slots=True)
class Tables:
    """Draws tables of so many rows at most."""

    rows: int = 1000

    def __call__(self, head: Sequence[str] | None, rows: Sequence[Sequence[str]]) -> str:
        """Return a table.

        Args:
            head: Names of the columns; None: the first column names the rows.
            rows: Cells as text, escaped here.
        """
        top = f"<tr>{''.join(f'<th>{escape(h)}</th>' for h in head)}</tr>" if head else ""
        body = "".join(f"<tr>{''.join(_cell(str(c)) for c in row)}</tr>" for row in self.some(rows))
        left = len(rows) - self.rows
        more = f'<p class="sub">… and {left:,} more</p>' if left > 0 else ""
        return f'<div class="scroll"><table>{top}{body}</table></div>{more}'

    def some(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Return the first rows, as many as are drawn."""
        return rows[: self.rows]


@dataclass(frozen=True, slots=True)
class Detail:
    """How much of everything is drawn."""

    tables: Tables
    characters: int
    """Most of one text."""


DETAILS = tuple(
    Detail(Tables(rows), characters)
    for rows, characters in ((1000, 20_000), (200, 2_000), (40, 400), (8, 100))
)
"""The fullest that fits is taken."""


def fitting(draw: Callable[[Detail], str], bare: str, most: int = HTML_BYTES) -> str:
    """Return the fullest page that fits.

    Args:
        draw: Returns the page with so much detail.
        bare: The page without anything that can be long, should none fit.
        most: Bytes that it may have.
    """
    pages = (draw(detail) for detail in DETAILS)
    return next((page for page in pages if len(page.encode()) <= most), bare)


def shortened(value: Any, characters: int) -> Any:
    """Return a JSON value whose texts have at most so many characters, and say what was cut."""
    match value:
        case str() if len(value) > characters:
            return f"{value[:characters]}… and {len(value) - characters:,} more characters"
        case Mapping():
            return {key: shortened(each, characters) for key, each in value.items()}
        case list() | tuple():
            return [shortened(each, characters) for each in value]
        case _:
            return value


def markdown(
    lead: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    most: int = MARKDOWN_CHARACTERS,
) -> str:
    """Return a Markdown page with a table whose last rows are left out where it is too long.

    Args:
        lead: Markdown before the table.
        head: Names of the columns.
        rows: Cells as plain text.
        most: Characters that it may have.
    """
    lead = shortened(lead, most // 2)
    lines = [f"| {' | '.join(_plain(cell) for cell in row)} |\n" for row in rows]
    top = f"\n| {' | '.join(head)} |\n|{'---|' * len(head)}\n" if rows else ""
    room = most - len(lead) - len(top) - len(f"\n… and {len(lines):,} more\n") - 1
    shown = 0
    for line in lines:
        room -= len(line)
        if room < 0:
            break
        shown += 1
    left = len(lines) - shown
    more = f"\n… and {left:,} more\n" if left else ""
    return f"{lead}\n{top}{''.join(lines[:shown])}{more}"


def _plain(cell: str) -> str:
    """A cell that cannot end its row: neither bar nor new line."""
    return " ".join(cell.split()).replace("\\", "\\\\").replace("|", "\\|")


def _cell(text: str) -> str:
    marked = {"passed": "ok", "failed": "no", "pass": "ok", "fail": "no"}.get(text)
    return f'<td class="{marked}">{text}</td>' if marked else f"<td>{escape(text)}</td>"
