"""A read-only mirror of a folder that speaks the Hugging Face Hub's protocol.

`ROOT/org/name/` holds a repository's files, `ROOT/datasets/org/name/` a data set's; its revision is
`main`. A file `.penstock-hub.json`
in it may say `{"gated": true, "private": true, "revisions": {"v1": "folder"}}`. A commit is a hash
of the content, so the same files are the same commit everywhere.

Protocol: https://huggingface.co/docs/hub/api, and the client `huggingface_hub` itself, which the
tests run against this.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from penstock.core.errors import ConfigurationError, PortOccupied
from registry.store import files_of, hash_file

_SETTINGS = ".penstock-hub.json"


@dataclass(frozen=True, slots=True)
class File:
    """One file of a revision."""

    path: Path
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Revision:
    """One immutable state of a repository."""

    name: str
    commit: str
    files: dict[str, File]
    modified: datetime


class Refused(web.HTTPException):
    """An error as the Hub words it: the client reads the headers."""

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status_code = status
        super().__init__(
            headers={"X-Error-Code": code, "X-Error-Message": message},
            text=json.dumps({"error": message}),
            content_type="application/json",
        )


@dataclass
class Mirror:
    """The repositories below a folder."""

    root: Path
    tokens: frozenset[str] = frozenset()
    """Each opens every gated and private repository."""

    _digests: dict[tuple[str, int, int], str] = field(default_factory=dict)

    def open(self, request: web.Request) -> Revision:
        """Return the revision a request names, or raise the Hub's refusal."""
        org, name = request.match_info["org"], request.match_info["name"]
        revision = request.match_info.get("revision", "main")
        folder = (self.root / _place(request) / org / name).resolve()
        inside = folder.is_relative_to(self.root.resolve())
        known = inside and folder.is_dir()
        settings = _settings(folder) if known else {}
        opened = request.headers.get("Authorization", "").removeprefix("Bearer ") in self.tokens
        if not known or (settings.get("private") and not opened):
            raise Refused(404 if opened else 401, "RepoNotFound", "Repository not found")
        asks_bytes = "path" in request.match_info and not request.path.startswith("/api/")
        if settings.get("gated") and not opened and asks_bytes:
            status = 403 if "Authorization" in request.headers else 401
            raise Refused(status, "GatedRepo", f"Access to model {org}/{name} is restricted.")
        return self._revision(folder, settings, revision)

    def _revision(self, folder: Path, settings: dict[str, Any], wanted: str) -> Revision:
        places = {"main": ".", **settings.get("revisions", {})}
        for name, place in places.items():
            if wanted == name:
                return self._read(name, folder / place)
        for name, place in places.items():
            found = self._read(name, folder / place)
            if found.commit == wanted:
                return found
        raise Refused(404, "RevisionNotFound", f"Invalid rev id: {wanted}")

    def _read(self, name: str, folder: Path) -> Revision:
        files: dict[str, File] = {}
        modified = 0.0
        for path in files_of(folder):
            if any(part.startswith(".") for part in Path(path).parts):
                continue
            stat = (folder / path).stat()
            key = (str(folder / path), stat.st_size, stat.st_mtime_ns)
            if key not in self._digests:
                self._digests[key] = hash_file(folder / path).hex
            files[path] = File(folder / path, stat.st_size, self._digests[key])
            modified = max(modified, stat.st_mtime)
        lines = "".join(f"{f.digest} {f.size} {p}\n" for p, f in files.items())
        commit = hashlib.sha256(lines.encode()).hexdigest()[:40]
        return Revision(name, commit, files, datetime.fromtimestamp(modified, UTC))


MIRROR = web.AppKey("mirror", Mirror)


def application(root: Path, *, tokens: frozenset[str] = frozenset()) -> web.Application:
    """Return the server of a folder."""
    app = web.Application()
    app[MIRROR] = Mirror(root, tokens)
    asked = "/api/{kind:models|datasets}/{org}/{name}"
    app.router.add_get(asked, _info)
    app.router.add_get(f"{asked}/revision/{{revision}}", _info)
    app.router.add_get(f"{asked}/tree/{{revision}}", _tree)
    app.router.add_get(f"{asked}/tree/{{revision}}/{{path:.*}}", _tree)
    app.router.add_get("/{org}/{name}/resolve/{revision}/{path:.+}", _resolve)
    app.router.add_get("/{kind:datasets}/{org}/{name}/resolve/{revision}/{path:.+}", _resolve)
    return app


def serve(
    root: Path, port: int, *, tokens: frozenset[str], on_ready: Callable[[str], None]
) -> None:
    """Serve a folder on 127.0.0.1 until interrupted.

    Args:
        root: Folder with `org/name` below it.
        port: Where to listen; 0 takes a free one.
        tokens: What opens gated and private repositories.
        on_ready: Told the URL once it answers.
    """
    if not root.is_dir():
        raise ConfigurationError(
            f"{root}: no such folder", hint="name a folder with ORG/NAME in it"
        )
    try:
        listener = socket.create_server(("127.0.0.1", port))
    except OSError as problem:
        raise PortOccupied("127.0.0.1", port, option="--port") from problem
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    app = application(root, tokens=tokens)

    async def tell(_app: web.Application) -> None:
        on_ready(url)

    app.on_startup.append(tell)
    with listener:
        web.run_app(app, sock=listener, print=lambda *_: None, access_log=None)


def _place(request: web.Request) -> str:
    """Return the folder of a kind of repositories below the root."""
    return "datasets" if request.match_info.get("kind") == "datasets" else "."


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / _SETTINGS
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


async def _info(request: web.Request) -> web.Response:
    mirror = request.app[MIRROR]
    revision = mirror.open(request)
    org, name = request.match_info["org"], request.match_info["name"]
    settings = _settings(mirror.root / _place(request) / org / name)
    sized = request.query.get("blobs", "").lower() == "true"
    siblings = [
        {"rfilename": path, **({"size": file.size, **_lfs(file)} if sized else {})}
        for path, file in revision.files.items()
    ]
    body = {
        "_id": revision.commit[:24],
        "id": f"{org}/{name}",
        "modelId": f"{org}/{name}",
        "author": org,
        "sha": revision.commit,
        "lastModified": revision.modified.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "private": bool(settings.get("private")),
        "gated": "auto" if settings.get("gated") else False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "siblings": siblings,
    }
    return web.json_response(body, headers={"X-Repo-Commit": revision.commit})


def _lfs(file: File) -> dict[str, Any]:
    if file.path.suffix != ".safetensors":
        return {}
    return {"lfs": {"sha256": file.digest, "size": file.size, "pointerSize": 134}}


async def _tree(request: web.Request) -> web.Response:
    revision = request.app[MIRROR].open(request)
    prefix = request.match_info.get("path", "").strip("/")
    listed = [
        {"type": "file", "oid": file.digest[:40], "size": file.size, "path": path}
        for path, file in revision.files.items()
        if not prefix or path.startswith(f"{prefix}/")
    ]
    if prefix and not listed:
        raise Refused(404, "EntryNotFound", f"{prefix} does not exist on {revision.name}")
    return web.json_response(listed, headers={"X-Repo-Commit": revision.commit})


async def _resolve(request: web.Request) -> web.StreamResponse:
    revision = request.app[MIRROR].open(request)
    path = request.match_info["path"]
    file = revision.files.get(path)
    if file is None:
        raise Refused(404, "EntryNotFound", f"{path} does not exist on {revision.name}")
    headers = {
        "ETag": f'"{file.digest}"',
        "X-Repo-Commit": revision.commit,
        "X-Linked-Size": str(file.size),
        "X-Linked-Etag": f'"{file.digest}"',
        "Accept-Ranges": "bytes",
        "Content-Disposition": f'inline; filename="{file.path.name}"',
    }
    if request.method == "HEAD":
        headers["Content-Length"] = str(file.size)
        return web.Response(headers=headers)
    # aiohttp answers ranges and sends from the kernel; our ETag must win over its own
    response = web.FileResponse(file.path, headers=headers)
    response.content_type = "application/octet-stream"
    return response
