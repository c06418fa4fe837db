"""What the server does: the resource manager's decisions, in its order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tests.fakes.kfp import ir as irs
from tests.fakes.kfp.bodies import check
from tests.fakes.kfp.clock import Clock, shown
from tests.fakes.kfp.failure import Failure, absent, internal, invalid, taken
from tests.fakes.kfp.rows import Row, RunRow, ScheduleRow, new_id

LIMITS = {"experiments": 128, "pipelines": 128, "pipeline_versions": 127}


class Store:
    """Experiments, pipelines, versions and runs; `schedules` are fired by `Schedules`."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.multi_user = False
        self.namespaces = {"kubeflow"}
        """Those that exist in the cluster."""
        self.experiments: list[Row] = []
        self.pipelines: list[Row] = []
        self.versions: list[Row] = []
        self.runs: list[RunRow] = []
        self.schedules: list[ScheduleRow] = []
        self.script: Callable[[RunRow], list[str]] = lambda _: ["RUNNING", "SUCCEEDED"]
        """How a run goes on that nobody executes."""
        self.started: Callable[[RunRow], object] = lambda _: None
        self.create_experiment({"display_name": "Default"})

    def create_experiment(self, body: Row) -> Row:
        check(body, "V2beta1Experiment")
        name = _name(body, "Experiment")
        namespace = self._namespace(body)
        if any((e["display_name"], e["namespace"]) == (name, namespace) for e in self.experiments):
            raise taken(
                f"Failed to create a new experiment. The name {name} already exists. Please "
                "specify a new name"
            )
        row = {
            "experiment_id": new_id(),
            "display_name": name,
            "description": body.get("description", ""),
            "namespace": namespace,
            "created_at": shown(self.clock.now()),
            "last_run_created_at": shown(None),
            "storage_state": "AVAILABLE",
        }
        self.experiments.append(row)
        return row

    def create_pipeline(self, body: Row) -> Row:
        check(body, "V2beta1Pipeline")
        name = body.get("name") or body.get("display_name")
        if not name:
            raise invalid("name is required")
        _length("Pipeline", name, LIMITS["pipelines"])
        namespace = self._namespace(body)
        if any((p["name"], p.get("namespace", "")) == (name, namespace) for p in self.pipelines):
            raise taken(
                f"Failed to create a new pipeline. The name {name} already exist. Please specify "
                "a new name"
            )
        row = {
            "pipeline_id": new_id(),
            "name": name,
            "display_name": body.get("display_name") or name,
            "description": body.get("description", ""),
            "created_at": shown(self.clock.now()),
            **({"namespace": namespace} if namespace else {}),
        }
        self.pipelines.append(row)
        return row

    def add_version(self, pipeline_id: str, package: bytes, query: Mapping[str, str]) -> Row:
        """Keep an upload as a version."""
        if not any(p["pipeline_id"] == pipeline_id for p in self.pipelines):
            raise Failure(400, "Failed to create a pipeline version", upload=True)
        name = query.get("name") or query.get("display_name") or "pipeline"
        _length("PipelineVersion", name, LIMITS["pipeline_versions"])
        shown_ir = _readable(package)
        same = (v for v in self.versions if v["pipeline_id"] == pipeline_id and v["name"] == name)
        if any(same):
            raise Failure(409, "Failed to create a pipeline version", upload=True)
        row = {
            "pipeline_version_id": new_id(),
            "pipeline_id": pipeline_id,
            "name": name,
            "display_name": query.get("display_name") or name,
            "description": query.get("description", ""),
            "created_at": shown(self.clock.now()),
            "pipeline_spec": shown_ir,
        }
        self.versions.append(row)
        return row

    def upload(self, package: bytes, query: Mapping[str, str]) -> Row:
        """Keep an upload as a pipeline and its first version, of the same name."""
        _readable(package)
        name = query.get("name") or query.get("display_name") or "pipeline"
        body = {"name": name, "display_name": query.get("display_name", "")}
        body |= {k: query[k] for k in ("description", "namespace") if query.get(k)}
        try:
            made = self.create_pipeline(body)
        except Failure as problem:
            if problem.status != 409:
                raise
            told = "Failed to create a pipeline and a pipeline version"
            raise Failure(409, told, upload=True) from problem
        self.add_version(made["pipeline_id"], package, {**query, "name": name})
        return made

    def newest(self, pipeline_id: str) -> Row:
        """Return the newest version; of those of one second, the last."""
        self.find("Pipeline", self.pipelines, "pipeline_id", pipeline_id)
        found = [v for v in self.versions if v["pipeline_id"] == pipeline_id]
        if not found:
            raise absent("PipelineVersion", pipeline_id)
        return max(enumerate(found), key=lambda pair: (pair[1]["created_at"], pair[0]))[1]

    def source(self, body: Mapping[str, Any]) -> tuple[Mapping[str, Any], Row]:
        """Return the IR that is asked for, and what the run shows of where it is from."""
        reference = body.get("pipeline_version_reference") or {}
        version_id, pipeline_id = (
            reference.get("pipeline_version_id", ""),
            reference.get("pipeline_id", ""),
        )
        if version_id:
            version = self.find("PipelineVersion", self.versions, "pipeline_version_id", version_id)
            if pipeline_id and version["pipeline_id"] != pipeline_id:
                raise invalid(
                    f"Pipeline version {version_id} belongs to pipeline {version['pipeline_id']} "
                    f"(not {pipeline_id})"
                )
        elif pipeline_id:
            version = self.newest(pipeline_id)
        elif body.get("pipeline_spec"):
            return irs.read(irs.documents(body["pipeline_spec"])), {
                "pipeline_spec": body["pipeline_spec"]
            }
        else:
            raise invalid("Failed to fetch a template with an empty pipeline spec manifest")
        known = {k: version[k] for k in ("pipeline_id", "pipeline_version_id")}
        return version["pipeline_spec"], {"pipeline_version_reference": known}

    def create_run(self, body: Row, executed_with: Mapping[str, Any] | None = None) -> RunRow:
        """Create a run; `executed_with` are its parameters with macros expanded."""
        check(body, "V2beta1Run")
        name = body.get("display_name")
        if not name:
            raise internal("Failed to convert a API run detail: Run name cannot be empty")
        experiment = self.experiment(body.get("experiment_id", ""))
        try:
            compiled, where = self.source(body)
        except Failure as problem:
            if problem.status == 404:
                raise
            raise internal(
                f"Failed to create a run due to error fetching manifest: {problem.inside}"
            ) from problem
        parameters = (body.get("runtime_config") or {}).get("parameters") or {}
        irs.check_parameters(compiled, parameters)
        if self.multi_user and experiment["namespace"] not in self.namespaces:
            raise internal(
                f'Failed to create a workflow for ({name}): namespaces "{experiment["namespace"]}" '
                "not found"
            )
        now = self.clock.now()
        row = RunRow(
            {
                "run_id": new_id(),
                "experiment_id": experiment["experiment_id"],
                "display_name": name,
                "storage_state": "AVAILABLE",
                "created_at": shown(now),
                "scheduled_at": shown(now),
                "service_account": body.get("service_account", "pipeline-runner"),
                **where,
                **{
                    k: body[k]
                    for k in ("description", "runtime_config", "recurring_run_id")
                    if body.get(k)
                },
            },
            compiled,
            executed_with if executed_with is not None else parameters,
        )
        row.history.append(("PENDING", now))
        row.script = self.script(row)
        experiment["last_run_created_at"] = shown(now)
        self.runs.append(row)
        self.started(row)
        return row

    def run(self, run_id: str) -> RunRow:
        for row in self.runs:
            if row.body["run_id"] == run_id:
                return row
        raise absent("Run", run_id)

    def terminate(self, run_id: str) -> Row:
        row = self.run(run_id)
        if row.state not in ("PAUSED", "PENDING", "RUNNING", "RUNTIME_STATE_UNSPECIFIED"):
            raise invalid(f"Failed to terminate a run {run_id}. Row not found")
        row.become("CANCELING", self.clock.now())
        return {}

    def retry(self, run_id: str) -> Row:
        row = self.run(run_id)
        if row.state not in ("FAILED", "CANCELED"):
            raise internal(f"Failed to retry run {run_id} as it does not allow retries")
        row.attempt += 1
        row.become("PENDING", self.clock.now())
        row.tasks = [task for task in row.tasks if task["state"] == "SUCCEEDED"]
        row.script = self.script(row)
        self.started(row)
        return {}

    def experiment(self, experiment_id: str) -> Row:
        if experiment_id:
            return self.find("Experiment", self.experiments, "experiment_id", experiment_id)
        if self.multi_user:
            raise invalid("Experiment id can not be empty in multi-user mode")
        return self.experiments[0]

    def find(self, kind: str, rows: list[Row], key: str, value: str) -> Row:
        for row in rows:
            if row[key] == value:
                return row
        raise absent(kind, value)

    def _namespace(self, body: Mapping[str, Any]) -> str:
        if not self.multi_user:
            return ""
        if not body.get("namespace") and self.experiments:
            raise invalid("An experiment cannot have an empty namespace in multi-user mode")
        return str(body.get("namespace", ""))


def _name(body: Mapping[str, Any], kind: str) -> str:
    name = str(body.get("display_name", ""))
    if not name:
        raise invalid(f"{kind} name is empty. Please specify a valid name")
    _length(kind, name, LIMITS["experiments"])
    return name


def _length(kind: str, name: str, most: int) -> None:
    if len(name) > most:
        raise invalid(f"{kind}.Name length cannot exceed {most}")


def _readable(package: bytes) -> Mapping[str, Any]:
    try:
        return irs.parse(package)
    except Failure as problem:
        raise Failure(problem.status, problem.said, upload=True) from problem
