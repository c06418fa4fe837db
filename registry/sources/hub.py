"""Data sets of the Hub, or a mirror of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from penstock.core.errors import ConfigurationError, RepositoryNotFound, RevisionNotFound
from penstock.core.identity import ModelRef
from penstock.core.settings import Settings
from penstock.core.sources import DataRef
from registry.pull import Hub, api, hub_errors

_JSONL = (".jsonl", ".ndjson")


def find(name: str, ref: DataRef, settings: Settings) -> tuple[str, str, Callable[[Path], None]]:
    """Return the commit, the file, and what downloads it.

    Args:
        name: What the spec calls it.
        ref: The data set.
        settings: Which Hub.
    """
    hub = Hub(settings.hub_endpoint, settings.hub_token)
    told = ModelRef("hf", ref.where, ref.revision)
    try:
        with hub_errors(told, hub):
            info = api(hub).dataset_info(ref.where, revision=ref.revision or "main")
    except (RepositoryNotFound, RevisionNotFound) as problem:
        raise type(problem)(f"{name}: data set {problem}", hint=problem.hint) from problem
    files = sorted(s.rfilename for s in info.siblings or [])
    file = _chosen(name, ref, files)
    commit = str(info.sha)

    def bring(target: Path) -> None:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        url = hf_hub_url(
            ref.where, file, repo_type="dataset", revision=commit, endpoint=hub.endpoint
        )
        with hub_errors(told, hub), target.open("wb") as out:
            http_get(url, out, headers=build_hf_headers(token=hub.token or False))

    return commit, file, bring


def _chosen(name: str, ref: DataRef, files: list[str]) -> str:
    if ref.what:
        if ref.what not in files:
            raise ConfigurationError(
                f"{name}: {ref}: no such file; there are: {', '.join(files[:8]) or 'none'}",
                hint="correct the file behind the revision in model.yaml",
            )
        return ref.what
    lines = [file for file in files if file.endswith(_JSONL)]
    if len(lines) != 1:
        raise ConfigurationError(
            f"{name}: {ref}: {len(lines)} files with rows of JSON ({', '.join(lines[:8]) or '-'})",
            hint=f"name one: hf://datasets/{ref.where}@{ref.revision or 'main'}/FILE.jsonl",
        )
    return lines[0]
