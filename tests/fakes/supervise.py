"""A supervisor over the fake engine: `python -m tests.fakes.supervise FOLDER`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from penstock.core.errors import DigestMismatch
from serving.cluster import Object
from serving.local.supervisor import Launch, run


def _verify(obj: Object) -> None:
    if obj["spec"]["predictor"]["model"]["storageUri"].endswith("/altered"):
        raise DigestMismatch("altered: changed: model.safetensors")


if __name__ == "__main__":
    launch = Launch(_verify, dict(os.environ), "tests.fakes.engine", ())  # noqa: TID251 - an edge
    sys.exit(run(Path(sys.argv[1]), launch))
