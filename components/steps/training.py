"""Trains the base checkpoint on the spec's training data, once: the same inputs are found again.

What is trained follows from base, data, strategy and Penstock's version; a memory keeps its root
under their digest. A training that was killed leaves its checkpoints, and the next run goes on.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import penstock
from components import images
from components.child import Body, Ran
from components.steps import trained
from components.steps.context import Context, write_atomically
from components.steps.memo import remembered
from components.steps.verbs import INPUTS, catalog_of, checkpoint_of, spec_of
from components.training import remote
from components.training.produce import VOICE, Made, Runner, Work, produce
from components.training.train_job import Job, name_of
from penstock.core.errors import ConfigurationError, DataRefused, StoreError
from penstock.core.identity import Digest
from penstock.core.manifest import Manifest
from penstock.core.spec import KServeTarget, ModelSpec
from registry.catalog import Followed
from registry.store import Store, hash_file, locked
from serving import kube

_MEAN_OVER = 10
"""Points of the curve whose mean is the loss that is told."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Where the step reads and writes."""

    checkpoint: str
    """Manifest of the base."""

    trained: str
    """Manifest of what came of it."""


def train(context: Context, spec: str, resolved: str, paths: Paths) -> dict[str, float]:
    """Write the manifest of the trained checkpoint; return the headline numbers.

    Args:
        context: Of the step.
        spec: The document `model.yaml`, as JSON.
        resolved: What `resolve` returned: its training set is read.
        paths: Inputs and outputs.

    Raises:
        DataRefused: There is no training set, it changed, or its rows cannot be trained on.
        TrainingFailed: Nothing came of it; a rerun resumes where that helps.
    """
    model = spec_of(spec, resolved)
    data = _training_set(json.loads(resolved)["data"])
    manifest, folder = checkpoint_of(context.settings, paths.checkpoint)
    job = Training(context, model, data, manifest)
    catalog = catalog_of(context.settings)
    tracking = catalog.follow(model.name, job.digest, job.params)
    made = job.made(folder, tracking)
    figures = _figures(made)
    tracking.finish(made["curve"], figures)
    found = {**_described(made), **job.inputs, **figures, "found": context.reused}
    found |= {"eval_loss": figures.get("eval_loss"), "tracking_run": tracking.run_id}
    root = Digest.parse(made["root"])
    _write(paths.trained, Store(context.settings.store).manifest(root).to_json())
    trained.remember(context.settings, found)
    context.detail |= found
    return figures


class Training:
    """One training, known by what goes into it."""

    def __init__(
        self, context: Context, model: ModelSpec, data: Mapping[str, str], base: Manifest
    ) -> None:
        self._context, self._model, self._data, self._base = context, model, data, base
        self._store = Store(context.settings.store)
        self.key = {
            "what": "trained",
            "base": str(base.root),
            "data": data["digest"],
            "strategy": model.training.digest,
        }
        text = json.dumps({**self.key, "penstock": penstock.__version__}, sort_keys=True)
        self.digest = hashlib.sha256(text.encode()).hexdigest()

    @property
    def inputs(self) -> dict[str, Any]:
        """What it is made from, for report and passport."""
        return {
            "base_root": str(self._base.root),
            "data": self._data["digest"],
            "strategy": self._model.training.model_dump(mode="json"),
            "rate": self._model.training.rate,
        }

    @property
    def params(self) -> dict[str, str]:
        """What MLflow shows beside the curves."""
        training = self._model.training
        return {
            "base_root": str(self._base.root),
            "data": self._data["digest"],
            "method": training.method,
            "learning_rate": f"{training.rate:g}",
            "batch_rows": str(training.batch_rows),
            "seed": str(training.seed),
            "strategy": training.digest,
        }

    def made(self, folder: Path, tracking: Followed) -> dict[str, Any]:
        """Return what came of it, by an earlier run or by this one.

        Two runs that want the same: the second waits for the first, then finds it.
        """
        settings, place = self._context.settings, self._place
        kept = settings.run_dir / "training"
        with locked(place.with_suffix(".lock")):
            self._context.reused = remembered(
                settings.home / "memo", self.key, kept, lambda t: self._make(folder, t, tracking)
            )
            made = _made(kept)
            try:
                self._store.checkpoint(Digest.parse(made["root"]))
            except StoreError:  # it was removed since: `penstock store gc`
                self._context.reused = False
                self._make(folder, kept, tracking)
                made = _made(kept)
            shutil.rmtree(place, ignore_errors=True)
        return made

    def _make(self, folder: Path, target: Path, tracking: Followed) -> None:
        work = Work(
            base=folder,
            data=Path(self._data["path"]),
            training=self._model.training,
            progress=self._place / "progress",
        )
        scratch = self._place / "made"
        shutil.rmtree(scratch, ignore_errors=True)
        runner = self._runner()
        try:
            made = produce(work, scratch, self._context.progress, tracking.point, runner=runner)
        except Exception:
            tracking.fail()
            raise
        manifest = self._store.add(scratch, self._base.source, owned=True)
        shutil.rmtree(scratch)
        write_atomically(target / "made.json", _told(made, manifest))

    @property
    def _place(self) -> Path:
        return self._context.settings.home / "trainings" / self.digest

    def _image(self, registry: str | None) -> str:
        """Return the image that trains: as the compiled pipeline has it, or of the registry."""
        found = self._context.settings.run_dir / INPUTS
        pinned = json.loads(found.read_text())["image"] if found.exists() else ""
        if "/" in pinned:
            return str(pinned)
        return f"{registry}/{images.TRAIN}" if registry else images.TRAIN

    def _runner(self) -> Runner | None:
        """Return where it is computed: on a cluster, or in a process of this machine (None)."""
        where, target = self._model.training.distributed, self._model.target
        if where is None:
            return None
        if not isinstance(target, KServeTarget):
            raise ConfigurationError(
                "training.distributed: a TrainJob needs a cluster, and target is local",
                hint="set target: kserve, or leave training.distributed out",
            )
        place = target.kserve
        job = Job(
            name=name_of(self._model.name, self.digest),
            namespace=place.namespace,
            image=self._image(place.images),
            folder=str(self._place),
            where=where,
        )

        def compute(request: Mapping[str, Any], on_line: Callable[[Body], None]) -> Ran:
            with kube.connect(place.context or "", place.namespace) as cluster:
                pause = threading.Event().wait
                return remote.run(cluster, job, request, on_line, VOICE, pause=pause)

        return compute


def _told(made: Made, manifest: Manifest) -> str:
    body = {**made.found, "root": str(manifest.root)}
    body |= {"wall_s": made.wall_s, "peak_bytes": made.peak_rss_bytes}
    return json.dumps(body, indent=1)


def _made(folder: Path) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((folder / "made.json").read_text())
    return body


def _training_set(data: Mapping[str, Any]) -> Mapping[str, str]:
    if "train" not in data:
        raise DataRefused(
            "data.train is not set: there is nothing to train on",
            hint="set data.train in model.yaml: JSONL, one question with its answer per line",
        )
    found: Mapping[str, str] = data["train"]
    if str(hash_file(Path(found["path"]))) != found["digest"]:
        raise DataRefused(
            f"data.train: {found['path']} changed while the run was going on", hint="run again"
        )
    return found


def _figures(made: Mapping[str, Any]) -> dict[str, float]:
    """Return the headline numbers, under names that stay."""
    losses = [point["loss"] for point in made["curve"] if "loss" in point]
    evals = [point["eval_loss"] for point in made["curve"] if "eval_loss" in point]
    last = losses[-_MEAN_OVER:]
    figures = {
        "train_loss": sum(last) / max(1, len(last)),
        "train_steps": float(made["steps"]),
        "tokens_per_s": float(made["tokens_per_s"]),
    }
    return {**figures, "eval_loss": evals[-1]} if evals else figures


def _described(made: Mapping[str, Any]) -> dict[str, Any]:
    losses = [point["loss"] for point in made["curve"] if "loss" in point]
    last = losses[-_MEAN_OVER:]
    return {
        **made,
        "first_loss": losses[0] if losses else 0.0,
        "loss": sum(last) / max(1, len(last)),
    }


def _write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(Path(path), text)
