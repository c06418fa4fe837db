"""JSON documents as pipeline parameters.

kfp's local runner replaces the text `python3` in every argument by the interpreter's path, and
reads `{{$.` as a placeholder. Inside JSON both can be written with an escape, so that values
arrive unchanged.
"""

from __future__ import annotations


def as_parameter(document: str) -> str:
    """Return the same JSON document without the texts that the local runner would replace."""
    return document.replace("python3", "python\\u0033").replace("{{$.", "{\\u007b$.")
