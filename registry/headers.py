"""What a checkpoint says about its weights, without the weights: a few kilobytes per file.

From a folder the headers are read; from the Hub they are asked for by range requests
(https://huggingface.co/docs/safetensors/metadata_parsing).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from penstock.core.errors import CheckpointBroken, HubError, PolicyRefused
from penstock.core.identity import ModelRef
from registry.pull import Hub, api, hub_errors, resolve

_CONFIG, _MODELOPT = "config.json", "hf_quant_config.json"
_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Header:
    """One tensor, without its values."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a checkpoint says about itself."""

    source: ModelRef
    """Pinned to a commit, where the Hub has one."""

    config: Mapping[str, Any]
    modelopt: Mapping[str, Any]
    """`hf_quant_config.json`; empty where there is none."""

    tensors: tuple[Header, ...]


def look(ref: ModelRef, hub: Hub) -> Seen:
    """Return what a checkpoint says about itself; no weights are downloaded.

    Raises:
        ConfigurationError: It is neither a folder nor on the Hub.
        HubError: The Hub refuses, does not answer, or sends whole files only.
        PolicyRefused: It has no safetensors files, whose headers could be read.
        CheckpointBroken: It has no readable config.json, or a header is damaged.
    """
    return _remote(ref, hub) if ref.scheme == "hf" else _folder(resolve(ref, hub))


def _folder(ref: ModelRef) -> Seen:
    from registry.conformance.reading import read

    found = read(Path(ref.path))
    if found.damaged:
        raise CheckpointBroken(
            f"{ref}: {found.damaged[0]}", hint="penstock checkpoint verify shows everything"
        )
    names = chosen([p.name for p in Path(ref.path).glob("*.safetensors")], str(ref))
    tensors = tuple(
        Header(t.name, t.dtype, t.shape, t.size)
        for t in found.tensors.values()
        if t.file.name in names
    )
    return Seen(ref, found.config, found.modelopt, tensors)


def _remote(ref: ModelRef, hub: Hub) -> Seen:
    client = api(hub)
    with hub_errors(ref, hub):
        info = client.model_info(ref.path, revision=ref.revision or "main")
        ref = ref.at(str(info.sha))
        names = [each.rfilename for each in info.siblings or []]
        wanted = chosen(names, str(ref))
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            small = pool.submit(_small, client, ref, names)
            _require_parts(client, ref, wanted[0])
            headers = list(pool.map(lambda name: _header(client, ref, name), wanted))
            config, modelopt = small.result()
    return Seen(ref, config, modelopt, tuple(t for header in headers for t in header))


def chosen(names: Sequence[str], where: str) -> list[str]:
    """Return the files of weights that engines read: not a second copy in another layout.

    Mistral's repositories have `consolidated*.safetensors` beside transformers' files.
    """
    found = sorted(n for n in names if n.endswith(".safetensors") and "/" not in n)
    ours = [name for name in found if name.startswith("model")]
    if not found:
        raise PolicyRefused(
            f"{where}: no safetensors files, so nothing is known of the weights",
            hint="choose a repository with safetensors, or convert it first",
        )
    return ours or found


def _small(client: Any, ref: ModelRef, names: Sequence[str]) -> tuple[Any, Any]:
    if _CONFIG not in names:
        raise CheckpointBroken(
            f"{ref}: no config.json", hint="name a repository of a Hugging Face checkpoint"
        )
    with tempfile.TemporaryDirectory(prefix="penstock-headers-") as scratch:
        found: list[Any] = []
        for name in (_CONFIG, _MODELOPT):
            if name not in names:
                found.append({})
                continue
            path = client.hf_hub_download(ref.path, name, revision=ref.revision, local_dir=scratch)
            try:
                found.append(json.loads(Path(path).read_text(encoding="utf-8")))
            except ValueError as problem:
                raise CheckpointBroken(
                    f"{ref}: {name}: not JSON: {problem}", hint="ask its author"
                ) from problem
    return found[0], found[1]


def _require_parts(client: Any, ref: ModelRef, name: str) -> None:
    """Raise if a Hub sends the whole file where a part was asked for: that can be gigabytes."""
    from huggingface_hub import get_session, hf_hub_url

    url = hf_hub_url(ref.path, name, revision=ref.revision, endpoint=client.endpoint)
    opens = {"authorization": f"Bearer {client.token}"} if client.token else {}
    headers = {"range": "bytes=0-7", **opens}
    with get_session().stream("GET", url, headers=headers) as answer:
        if answer.status_code == HTTPStatus.OK:
            raise HubError(
                f"{ref}: {client.endpoint} sends no parts of files, so no headers can be read",
                hint="set HF_ENDPOINT to a Hub or a mirror that answers range requests",
            )


def _header(client: Any, ref: ModelRef, name: str) -> list[Header]:
    from huggingface_hub import errors

    try:
        found = client.parse_safetensors_file_metadata(ref.path, name, revision=ref.revision)
    except errors.SafetensorsParsingError as problem:
        told = str(problem).partition("\n")[0]
        raise CheckpointBroken(f"{ref}: {name}: {told}", hint="ask its author") from problem
    return [
        Header(each, t.dtype, tuple(t.shape), t.data_offsets[1] - t.data_offsets[0])
        for each, t in found.tensors.items()
    ]
