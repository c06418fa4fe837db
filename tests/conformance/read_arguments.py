"""Says what an engine's own parser makes of argument lists: JSON on the last line.

`python read_arguments.py ENGINE [FILE]`; the file holds a JSON list of argument lists. The answer
has the engine's version, every option with its spellings, and per list what was read or refused.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import importlib.metadata
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Check = Callable[[argparse.Namespace], None]


def vllm() -> tuple[argparse.ArgumentParser, Check]:
    """Return the parser of `vllm serve`, and what it checks before it loads anything."""
    import vllm.platforms  # type: ignore[import-not-found]  # an environment of its own
    from vllm.platforms.cpu import CpuPlatform  # type: ignore[import-not-found]

    # which device there is decides defaults, and here is none that the build knows
    vllm.platforms._current_platform = CpuPlatform()
    module = _first(
        "vllm.entrypoints.common.cli_args",  # 0.33
        "vllm.entrypoints.launchers.cli_args",  # 0.32
        "vllm.entrypoints.openai.cli_args",  # 0.24
    )
    from vllm.config.speculative import SpeculativeConfig  # type: ignore[import-not-found]
    from vllm.utils.argparse_utils import FlexibleArgumentParser  # type: ignore[import-not-found]

    def check(found: argparse.Namespace) -> None:
        module.validate_parsed_serve_args(found)
        known = {field.name for field in dataclasses.fields(SpeculativeConfig)}
        strange = set(found.speculative_config or {}) - known
        if strange:
            raise ValueError(f"speculative_config has no {sorted(strange)}")

    return module.make_arg_parser(FlexibleArgumentParser(prog="vllm serve")), check


def sglang() -> tuple[argparse.ArgumentParser, Check]:
    """Return the parser of `sglang.launch_server`."""
    from sglang.srt.server_args import ServerArgs  # type: ignore[import-not-found]

    parser = argparse.ArgumentParser(prog="sglang.launch_server", allow_abbrev=False)
    ServerArgs.add_cli_args(parser)
    return parser, lambda _: None


def _first(*names: str) -> Any:
    for name in names:
        with contextlib.suppress(ModuleNotFoundError):
            return importlib.import_module(name)
    raise ModuleNotFoundError(", ".join(names))


def read(parser: argparse.ArgumentParser, check: Check, words: list[str]) -> dict[str, Any]:
    """Return what was read of one list, or why it was refused."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            found = parser.parse_args(words)
        check(found)
    except SystemExit:
        return {"refused": said.getvalue().splitlines()[-1]}
    except Exception as problem:  # noqa: BLE001 - whatever it is, it is the answer
        return {"refused": f"{type(problem).__name__}: {problem}"}
    return {"read": {name: str(value) for name, value in vars(found).items()}}


def main(engine: str, file: str = "") -> None:
    parser, check = {"vllm": vllm, "sglang": sglang}[engine]()
    lists = json.loads(Path(file).read_text()) if file else []
    answer = {
        "version": importlib.metadata.version(engine),
        "options": [each.option_strings for each in parser._actions if each.option_strings],
        "answers": [read(parser, check, words) for words in lists],
    }
    sys.stdout.write("\n" + json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
