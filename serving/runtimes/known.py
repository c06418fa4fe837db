"""The options an engine knows, and what people make of them.

`options/*.txt` are facts: one option per line with its other spellings, read in the engine's own
parser or document (`tests/conformance/list_options.py`), whose version and date the first lines
say.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from penstock.core.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Known:
    """Every option of an engine."""

    source: str
    spellings: dict[str, str]
    """Any spelling → the first one, which stands for the option."""

    underscores: bool
    """Whether `--a_b` is `--a-b` to it."""

    def option(self, word: str) -> str | None:
        """Return what an argument's option is, in its first spelling; None: there is none such."""
        name = word.partition("=")[0]
        tries = [name, name.partition(".")[0]]  # --compilation-config.level
        if self.underscores:
            tries += [each.replace("_", "-") for each in tries]
        return next((self.spellings[each] for each in tries if each in self.spellings), None)

    def nearest(self, word: str) -> str:
        """Return the spelling that is most like an unknown one; empty: none is."""
        name = word.partition("=")[0]
        close = difflib.get_close_matches(name, self.spellings, n=1, cutoff=0.6)
        return close[0] if close else ""


@cache
def known(names: str) -> Known:
    """Return the options in files of `options/`, by their names with spaces between them."""
    folder = files("serving.runtimes").joinpath("options")
    texts = [folder.joinpath(f"{name}.txt").read_text() for name in names.split()]
    lines = [line for text in texts for line in text.splitlines()]
    head = [line.removeprefix("#").strip() for line in lines if line.startswith("#")]
    rows = [line.split() for line in lines if line and not line.startswith("#")]
    return Known(
        " ".join(line for line in head if line != "underscores"),
        {spelling: row[0] for row in rows for spelling in row},
        "underscores" in head,
    )


def options_of(args: list[str], where: str) -> Iterator[str]:
    """Yield the words that are options; the others are values of those before them.

    Raises:
        ConfigurationError: The first word is a value.
    """
    for index, word in enumerate(args):
        if word.startswith("-") and not _number(word):
            yield word
        elif index == 0:
            raise ConfigurationError(
                f"{where}: found {word!r} where an option should be",
                hint="write options as --name=value",
            )


def _number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
