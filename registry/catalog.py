"""The model registry: MLflow, behind the few operations Penstock needs. The only file with mlflow.

Weights are referenced by their store URI, not copied.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from penstock.core.errors import RegistryError, RegistryUnreachable

CHAMPION = "champion"
CHALLENGER = "challenger"
PREVIOUS = "previous"
_ROOT_TAG = "penstock.root"
_EVIDENCE_TAG = "penstock.evidence"
_WORK_TAG = "penstock.work"
_BATCH = 1000  # most metrics that MLflow takes at once
PASSPORT = "passport.json"
EVALUATION = "evaluation.json"


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a registered model."""

    name: str
    number: int
    run_id: str
    source_uri: str
    root: str
    """Digest of the checkpoint."""

    aliases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is registered."""

    root: str
    """Digest of the checkpoint."""

    source_uri: str
    """Where its files are; they are not copied."""

    evidence: str
    """Digest of the evaluation: the same checkpoint with the same evidence is one version."""

    metrics: Mapping[str, float]
    params: Mapping[str, str]
    documents: Mapping[str, Mapping[str, Any]]
    """JSON artifacts by file name: the passport and the evaluation."""


class Catalog:
    """Registered models, their versions and aliases.

    Args:
        tracking_uri: Of the MLflow server, or a SQLite database.
        joined_run_id: A run somebody else opened; it is used instead of a new one.
        experiment: What new runs stand under: `EXPERIMENT/MODEL`.
    """

    def __init__(
        self, tracking_uri: str, *, joined_run_id: str | None = None, experiment: str = "penstock"
    ) -> None:
        self._uri = tracking_uri
        self._experiment = experiment
        self._joined = joined_run_id
        _probe(tracking_uri)
        if tracking_uri.startswith("sqlite:///"):
            Path(tracking_uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        for noisy in ("alembic", "mlflow.store.db.utils"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)

    def register(self, name: str, candidate: Candidate) -> Version:
        """Return the version of this checkpoint and evidence, new or as registered before.

        It becomes `challenger`, unless it is already served as `champion`.
        """
        with _refusals(name):
            found = self._find(name, candidate)
            version = found or self._create(name, candidate)
            if CHAMPION not in version.aliases:
                self._client.set_registered_model_alias(name, CHALLENGER, str(version.number))
            return self.version(name, version.number)

    def promote(self, name: str, number: int) -> Version:
        """Make a version `champion`; the one before becomes `previous`. Doing it twice is fine."""
        with _refusals(name):
            champion = self.by_alias(name, CHAMPION)
            if champion is None or champion.number != number:
                if champion is not None:
                    self._client.set_registered_model_alias(name, PREVIOUS, str(champion.number))
                self._client.set_registered_model_alias(name, CHAMPION, str(number))
            challenger = self.by_alias(name, CHALLENGER)
            if challenger is not None and challenger.number == number:
                self._client.delete_registered_model_alias(name, CHALLENGER)
            return self.version(name, number)

    def follow(self, name: str, work: str, params: Mapping[str, str]) -> Followed:
        """Return the run that a piece of work is logged to: the one from before, or a new one.

        Args:
            name: Of the model.
            work: Digest of what goes in: interrupted and done again, it is one run.
            params: Logged when the run is new.
        """
        with _refusals(name):
            if self._joined is not None:
                return Followed(self._client, self._joined, owned=False)
            experiment = self._experiment_of(name)
            found = self._client.search_runs([experiment], f"tags.`{_WORK_TAG}` = '{work}'")
            if found:
                run_id = found[0].info.run_id
            else:
                made = self._client.create_run(experiment, tags={_WORK_TAG: work})
                run_id = made.info.run_id
                for key, value in params.items():
                    self._client.log_param(run_id, key, value)
            return Followed(self._client, str(run_id), owned=True)

    def aliased(self) -> list[Version]:
        """Return every version of ours, of any model, that an alias points at."""
        names, token = [], None
        with _refusals("registered models"):
            while True:
                page = self._client.search_registered_models(page_token=token)
                names += [model.name for model in page]
                token = page.token
                if not token:
                    break
        return [v for name in sorted(names) for v in self.versions(name) if v.aliases and v.root]

    def by_alias(self, name: str, alias: str) -> Version | None:
        """Return the version an alias points at."""
        return next((v for v in self.versions(name) if alias in v.aliases), None)

    def version(self, name: str, number: int) -> Version:
        """Return one version; `RegistryError` if there is none."""
        for version in self.versions(name):
            if version.number == number:
                return version
        raise RegistryError(f"{name}: no version {number}", hint="list them in MLflow's UI")

    def versions(self, name: str) -> list[Version]:
        """Return every version, the first one first."""
        from mlflow.exceptions import MlflowException

        try:
            model = self._client.get_registered_model(name)
        except MlflowException as problem:
            if problem.error_code == "RESOURCE_DOES_NOT_EXIST":
                return []
            raise RegistryError(f"{name}: MLflow refused: {problem}") from problem
        aliases: dict[str, list[str]] = {}
        for alias, number in model.aliases.items():
            aliases.setdefault(str(number), []).append(alias)
        found = self._client.search_model_versions(f"name = '{name}'")
        return sorted(
            (
                Version(
                    name=name,
                    number=int(v.version),
                    run_id=v.run_id,
                    source_uri=v.source,
                    root=v.tags.get(_ROOT_TAG, ""),
                    aliases=tuple(sorted(aliases.get(str(v.version), []))),
                )
                for v in found
            ),
            key=lambda version: version.number,
        )

    def document(self, version: Version, file: str) -> dict[str, Any]:
        """Return a JSON artifact of a version's run: `passport.json`, `evaluation.json`."""
        import mlflow.artifacts

        with _refusals(version.name):
            text = mlflow.artifacts.load_text(
                f"{self._client.get_run(version.run_id).info.artifact_uri}/{file}"
            )
        body: dict[str, Any] = json.loads(text)
        return body

    def _find(self, name: str, candidate: Candidate) -> Version | None:
        for found in self._client.search_model_versions(f"name = '{name}'"):
            tags = found.tags
            if (tags.get(_ROOT_TAG), tags.get(_EVIDENCE_TAG)) == (
                candidate.root,
                candidate.evidence,
            ):
                return self.version(name, int(found.version))
        return None

    def _create(self, name: str, candidate: Candidate) -> Version:
        from mlflow.exceptions import MlflowException

        run_id = self._joined or self._open_run(name)
        for key, value in candidate.params.items():
            self._client.log_param(run_id, key, value)
        for key, number in candidate.metrics.items():
            self._client.log_metric(run_id, key, number)
        for file, content in candidate.documents.items():
            self._client.log_text(run_id, json.dumps(content, indent=1), file)
        try:
            self._client.create_registered_model(name)
        except MlflowException as problem:
            if problem.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        created = self._client.create_model_version(
            name,
            source=candidate.source_uri,
            run_id=run_id,
            tags={_ROOT_TAG: candidate.root, _EVIDENCE_TAG: candidate.evidence},
        )
        if self._joined is None:  # whoever opened a run closes it
            self._client.set_terminated(run_id)
        return self.version(name, int(created.version))

    def _open_run(self, name: str) -> str:
        return str(self._client.create_run(self._experiment_of(name)).info.run_id)

    def _experiment_of(self, name: str) -> str:
        experiment_name = f"{self._experiment}/{name}"
        experiment = self._client.get_experiment_by_name(experiment_name)
        if experiment is None:
            location = None
            if self._uri.startswith("sqlite:///"):  # else MLflow writes into the current folder
                base = Path(self._uri.removeprefix("sqlite:///")).parent / "mlartifacts"
                location = base.as_uri()
            return str(self._client.create_experiment(experiment_name, location))
        return str(experiment.experiment_id)


class Followed:
    """A run whose curves grow while somebody works; a point that is there is not logged twice."""

    def __init__(self, client: Any, run_id: str, *, owned: bool) -> None:
        self.run_id = run_id
        self._client = client
        self._owned = owned
        self._known: dict[str, set[int]] = {}
        """Steps by name: a run that resumes may have told of a later one than it was killed at."""

        self._lost = False

    def point(self, point: Mapping[str, float]) -> None:
        """Log a point, if MLflow answers: `finish` brings what it missed."""
        if self._lost:
            return
        try:
            self._log([point])
        except RegistryError:
            self._lost = True  # its client waits for minutes: the work must not, at every point

    def finish(self, points: Sequence[Mapping[str, float]], figures: Mapping[str, float]) -> None:
        """Log every point that is not there yet, and figures; `RegistryError` if that fails.

        Args:
            points: All of them, in order.
            figures: Logged once each; one that is a curve's name already is not.
        """
        curves = {name for point in points for name in point}
        self._log([*points, {"step": 0.0, **_without(figures, curves)}])
        if self._owned:
            with _refusals(self.run_id):
                self._client.set_terminated(self.run_id)

    def fail(self) -> None:
        """Say that the work failed, if MLflow answers."""
        if self._owned and not self._lost:
            with suppress(RegistryError), _refusals(self.run_id):
                self._client.set_terminated(self.run_id, "FAILED")

    def _log(self, points: Sequence[Mapping[str, float]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        with _refusals(self.run_id):
            new = [
                Metric(key, value, now, int(point["step"]))
                for point in points
                for key, value in point.items()
                if key != "step" and int(point["step"]) not in self._steps(key)
            ]
            for start in range(0, len(new), _BATCH):
                self._client.log_batch(self.run_id, metrics=new[start : start + _BATCH])
        for metric in new:
            self._known[metric.key].add(metric.step)

    def _steps(self, key: str) -> set[int]:
        if key not in self._known:
            history = self._client.get_metric_history(self.run_id, key)
            self._known[key] = {metric.step for metric in history}
        return self._known[key]


def _without(figures: Mapping[str, float], names: Collection[str]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if name not in names}


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    """Turn MLflow's errors into ours."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as problem:
        raise RegistryError(f"{what}: MLflow refused: {problem}") from problem


def _probe(tracking_uri: str) -> None:
    """Fail within seconds when nobody answers: MLflow itself retries for minutes."""
    if not tracking_uri.startswith(("http://", "https://")):
        return
    import httpx

    try:
        httpx.get(f"{tracking_uri.rstrip('/')}/health", timeout=5)
    except httpx.HTTPError as problem:
        where = urlsplit(tracking_uri)
        raise RegistryUnreachable(
            f"MLflow at {where.scheme}://{where.hostname}:{where.port or ''} does not answer "
            f"({type(problem).__name__})",
            hint="start it, or correct MLFLOW_TRACKING_URI; then run again: done steps are reused",
        ) from problem
