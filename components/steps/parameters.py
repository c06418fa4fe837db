"""JSON documents as pipeline parameters.

kfp's local runner replaces the text `python3` in every argument by the interpreter's path, and
reads `{{$.` as a placeholder. Inside JSON both can be written with an escape, so that values
arrive unchanged.
"""

from __future__ import annotations

import json

from penstock.core.errors import ConfigurationError

MOST_BYTES = 100_000
"""Linux takes 131,072 bytes in one argument; a task's inputs are one, and there are others."""


def as_parameter(document: str) -> str:
    """Return the same JSON document without the texts that the local runner would replace.

    Raises:
        ConfigurationError: It is too large for a task's command line.
    """
    text = document.replace("python3", "python\\u0033").replace("{{$.", "{\\u007b$.")
    size = len(json.dumps(text).encode())
    if size > MOST_BYTES:
        raise ConfigurationError(
            f"a document of {size:,} bytes: a pipeline's task can be given {MOST_BYTES:,} at most",
            hint="keep long texts, such as chat templates, in files that model.yaml names",
        )
    return text
