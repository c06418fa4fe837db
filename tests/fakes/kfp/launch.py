"""Runs a posted pipeline with kfp.local: `python -m tests.fakes.kfp.launch`, a process of its own.

kfp.local keeps global state and patches `print`. The request comes as JSON on standard input.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile


def main() -> int:
    """Run one request; the exit code says whether every task succeeded."""
    from pipelines.local import import_kfp

    request = json.load(sys.stdin)
    import_kfp()
    from kfp import local
    from kfp.components import load_component_from_text

    workspace = tempfile.mkdtemp(prefix="penstock-")  # kfp deletes it after every pipeline
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=request["root"],
        workspace_root=workspace,
        raise_on_error=True,
    )
    try:
        load_component_from_text(request["text"])(**request["parameters"])
    except RuntimeError as problem:  # its word for "a task failed"
        sys.stderr.write(f"{problem}\n")
        return 1
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
