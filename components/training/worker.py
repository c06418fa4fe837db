"""The process that trains: `python -m components.training.worker`, JSON in and out."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

from components.worker import Request, Say, serve
from penstock.core.errors import ConfigurationError

LIBRARIES = ("trl", "peft", "datasets")


def require_libraries(names: tuple[str, ...] = LIBRARIES) -> None:
    """Raise `ConfigurationError` where what trains is not installed."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"training needs {', '.join(missing)}, which this environment does not have",
            hint="install Penstock with its extra `train`",
        )


def _answer(request: Request, say: Say) -> dict[str, Any]:
    require_libraries()
    from components.training.fit import train

    return train(request, say)


def main() -> int:
    """Answer the request on standard input."""
    return serve(_answer)


if __name__ == "__main__":
    sys.exit(main())
