"""Paths and methods of v2beta1, and who may use them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.fakes.kfp.failure import Failure, absent, invalid
from tests.fakes.kfp.filters import page
from tests.fakes.kfp.schedules import Schedules
from tests.fakes.kfp.store import Store

_ROOT = "/apis/v2beta1"
_OBJECT = re.compile(
    r"^/(?P<kind>[a-z]+)(?:/(?P<id>[^/:]+))?(?::(?P<verb>[a-z]+)|/versions(?:/(?P<version>[^/]+))?)?$"
)
_LOG = re.compile(r"^/apis/v1alpha1/runs/(?P<run>[^/]+)/nodes/(?P<pod>[^/]+)/log$")


@dataclass
class Access:
    """Who may ask. Without a token or a cookie: everybody."""

    token: str = ""
    cookie: str = ""
    """`name=value`; without it a proxy leads to its login page."""

    allowed: set[str] | None = None
    """Namespaces that the account may use, for several users; None: all."""

    seen: list[str] = field(default_factory=list)
    """What stood in Authorization."""

    def enter(self, request: web.Request) -> web.Response | None:
        """Return what a proxy answers instead; raise where the server itself refuses."""
        self.seen.append(request.headers.get("Authorization", ""))
        if self.cookie and self.cookie not in request.headers.get("Cookie", ""):
            return web.Response(status=302, headers={"Location": "/dex/auth?client_id=kubeflow"})
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            raise Failure(
                401,
                "Failed to check authorization. User identity is empty in the request header",
                f"Unauthenticated: got {request.headers.get('Authorization', '')}",
            )
        return None

    def use(self, namespace: str, verb: str, resource: str) -> None:
        if self.allowed is not None and namespace not in self.allowed:
            said = (
                "User 'system:serviceaccount:team:limited' is not authorized with reason:  "
                f"(request: &ResourceAttributes{{Namespace:{namespace},Verb:{verb},"
                f"Group:pipelines.kubeflow.org,Version:v1beta1,Resource:{resource},}})"
            )
            raise Failure(403, said, f"PermissionDenied: {said}: Unauthorized access")


async def answer(
    store: Store, schedules: Schedules, access: Access, request: web.Request, body: bytes
) -> web.Response | dict[str, Any]:
    """Return what the server answers: a JSON object, or a response of another kind."""
    stopped = access.enter(request)
    if stopped is not None:
        return stopped
    log = _LOG.match(request.path)
    if log:
        return _log(store, log["run"], log["pod"])
    if not request.path.startswith(_ROOT):
        return web.Response(status=404, text="404 page not found\n")
    path = request.path.removeprefix(_ROOT)
    if path == "/healthz":
        return {"multi_user": store.multi_user, "pipeline_store": "database"}
    if path in ("/pipelines/upload", "/pipelines/upload_version"):
        return await _upload(store, access, request, body)
    asked = _Asked(store, schedules, access, request, _json(body))
    return asked.named(path) if path.startswith("/pipelines/names/") else asked.answer(path)


@dataclass
class _Asked:
    """One request for objects."""

    store: Store
    schedules: Schedules
    access: Access
    request: web.Request
    body: dict[str, Any]

    def answer(self, path: str) -> dict[str, Any]:
        found = _OBJECT.match(path)
        if not found:
            raise Failure(404, "Not Found")
        kind, identity, verb = found["kind"], found["id"], found["verb"]
        if "/versions" in path:
            return self._versions(identity, found["version"])
        method = {
            "experiments": self._experiments,
            "pipelines": self._pipelines,
            "runs": self._runs,
            "recurringruns": self._recurring,
        }.get(kind)
        if method is None:
            raise Failure(404, "Not Found")
        self._authorize(kind, identity)
        return method(identity, verb or self.request.method.lower())

    def named(self, path: str) -> dict[str, Any]:
        name = path.removeprefix("/pipelines/names/")
        namespace = self.request.query.get("namespace", "") if self.store.multi_user else ""
        self._authorize("pipelines", None)
        for row in self.store.pipelines:
            if (row["name"], row.get("namespace", "")) == (name, namespace):
                return row
        raise absent("Namespace/Pipeline", f"{namespace}/{name}")

    def _authorize(self, kind: str, identity: str | None) -> None:
        if self.store.multi_user:
            verb = {"POST": "create", "DELETE": "delete"}.get(self.request.method, "list")
            resource = "jobs" if kind == "recurringruns" else kind
            self.access.use(self._where(kind, identity), verb, resource)

    def _where(self, kind: str, identity: str | None) -> str:
        """Return the namespace that is asked about: named, or that of what is named."""
        experiment_id = self.body.get("experiment_id") or self.request.query.get("experiment_id")
        if kind == "runs" and identity:
            experiment_id = self.store.run(identity).body["experiment_id"]
        if kind == "recurringruns" and identity:
            experiment_id = self.schedules.get(identity).body["experiment_id"]
        if experiment_id:
            return str(self.store.experiment(experiment_id)["namespace"])
        named = self.body.get("namespace") or self.request.query.get("namespace", "")
        if kind == "pipelines" and identity:
            return str(self._pipeline(identity).get("namespace", ""))
        if not named:
            raise invalid("A resource cannot have an empty namespace in multi-user mode")
        return str(named)

    def _experiments(self, identity: str | None, verb: str) -> dict[str, Any]:
        if identity is None:
            if verb == "post":
                return self.store.create_experiment(self.body)
            return page("experiments", self._mine(self.store.experiments), self.request.query)
        row = self.store.experiment(identity)
        if verb in ("archive", "unarchive"):
            row["storage_state"] = "ARCHIVED" if verb == "archive" else "AVAILABLE"
            return {}
        if verb == "delete":
            self.store.experiments.remove(row)
            return {}
        return row

    def _pipelines(self, identity: str | None, verb: str) -> dict[str, Any]:
        if identity is None:
            if verb == "post":
                return self.store.create_pipeline(self.body)
            return page("pipelines", self._mine(self.store.pipelines), self.request.query)
        row = self._pipeline(identity)
        if verb == "delete":
            mine = [v for v in self.store.versions if v["pipeline_id"] == identity]
            if mine and self.request.query.get("cascade") != "true":
                raise invalid(
                    f"Failed to delete pipeline with id {identity} as it has existing pipeline "
                    f"versions (e.g. {mine[-1]['pipeline_version_id']}). Set cascade=true"
                )
            self.store.versions[:] = [v for v in self.store.versions if v not in mine]
            self.store.pipelines.remove(row)
            return {}
        return row

    def _pipeline(self, identity: str) -> dict[str, Any]:
        return self.store.find("Pipeline", self.store.pipelines, "pipeline_id", identity)

    def _versions(self, pipeline_id: str, version_id: str | None) -> dict[str, Any]:
        self._authorize("pipelines", pipeline_id)
        mine = [v for v in self.store.versions if v["pipeline_id"] == pipeline_id]
        if version_id is None:
            if self.request.method == "POST":
                raise invalid("Pipeline URL validation failed")
            return page("pipeline_versions", mine, self.request.query)
        row = self.store.find("PipelineVersion", mine, "pipeline_version_id", version_id)
        if self.request.method == "DELETE":
            self.store.versions.remove(row)
            return {}
        return row

    def _runs(self, identity: str | None, verb: str) -> dict[str, Any]:
        if identity is None:
            if verb == "post":
                return self.store.create_run(self.body).show()
            rows = [row.show() for row in self.store.runs]
            return page("runs", self._mine(rows), self.request.query)
        row = self.store.run(identity)
        if verb == "get":
            row.advance(self.store.clock.now())
            return row.show()
        if verb == "delete":
            self.store.runs.remove(row)
        elif verb in ("terminate", "retry"):
            change = self.store.terminate if verb == "terminate" else self.store.retry
            return change(identity)
        elif verb in ("archive", "unarchive"):
            row.body["storage_state"] = "ARCHIVED" if verb == "archive" else "AVAILABLE"
        return {}

    def _recurring(self, identity: str | None, verb: str) -> dict[str, Any]:
        if identity is None:
            if verb == "post":
                return self.schedules.create(self.body)
            rows = [row.show() for row in self.store.schedules]
            return page("recurringRuns", self._mine(rows), self.request.query)
        if verb in ("enable", "disable"):
            return self.schedules.change(identity, enabled=verb == "enable")
        if verb == "delete":
            policy = self.request.query.get("propagation_policy", "")
            return self.schedules.delete(identity, policy)
        return self.schedules.get(identity).show()

    def _mine(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return those of the experiment or namespace that is named."""
        wanted = self.request.query.get("experiment_id")
        if wanted:
            self.store.experiment(wanted)
            return [row for row in rows if row.get("experiment_id") == wanted]
        if not self.store.multi_user:
            return rows
        namespace = self.request.query.get("namespace", "")
        of = {e["experiment_id"]: e["namespace"] for e in self.store.experiments}
        return [
            row
            for row in rows
            if row.get("namespace", of.get(row.get("experiment_id", ""), "")) == namespace
        ]


async def _upload(
    store: Store, access: Access, request: web.Request, body: bytes
) -> dict[str, Any]:
    package = _form_file(request, body)
    query = request.query
    if store.multi_user:
        known = [p for p in store.pipelines if p["pipeline_id"] == query.get("pipelineid")]
        namespace = known[0].get("namespace", "") if known else query.get("namespace", "")
        try:
            access.use(namespace, "create", "pipelines")
        except Failure as problem:  # its handler tells no more
            raise Failure(400, "Failed to create a pipeline version", upload=True) from problem
    if request.path.endswith("upload_version"):
        return store.add_version(query.get("pipelineid", ""), package, query)
    return store.upload(package, query)


def _form_file(request: web.Request, body: bytes) -> bytes:
    """Return the part `uploadfile` of a form."""
    import email.parser
    import email.policy

    head = f"Content-Type: {request.headers.get('Content-Type', '')}\r\n\r\n".encode()
    form = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    for part in form.iter_parts() if form.is_multipart() else ():
        if part.get_param("name", header="content-disposition") == "uploadfile":
            return bytes(part.get_payload(decode=True) or b"")
    raise Failure(400, "Failed to read pipeline from file", upload=True)


def _json(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body) if body.strip() else {}
    except ValueError as problem:
        raise Failure(400, f"invalid character: {problem}") from None
    if not isinstance(found, dict):
        raise Failure(400, "proto: syntax error: unexpected token")
    return found


def _log(store: Store, run_id: str, pod: str) -> web.Response:
    """200 comes first, whatever follows."""
    run = next((r for r in store.runs if r.body["run_id"] == run_id), None)
    if run is None or pod not in run.logs:
        why = f"Failed to read logs for run {run_id}"
        details = f'BadRequestError: {why}: pods "{pod}" not found'
        return web.Response(text=json.dumps({"error_message": details, "error_details": details}))
    return web.Response(text=run.logs[pod])
