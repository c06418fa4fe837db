"""Looks whether there is anything new to train a model from; writes down what."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

import penstock
from components.steps import attempts
from components.steps.changes import Attempt, Limits, Place, changes, decide
from components.steps.context import Context, write_atomically
from components.steps.fitting import markdown
from components.steps.links import tracked
from components.steps.verbs import INPUTS, catalog_of, data_of, hub_of, spec_of
from penstock.core.errors import ConfigurationError
from penstock.core.identity import ModelRef
from penstock.core.manifest import FileEntry, Manifest
from penstock.core.settings import Settings
from penstock.core.spec import ModelSpec, Policy
from registry.catalog import CHAMPION, PASSPORT
from registry.passport import Inputs, Passport
from registry.pull import resolve as resolve_reference
from registry.pull import select
from registry.store import files_of, hash_files
from serving import controller as acting
from serving import lease
from serving.targets.choose import target_of


def detect(
    context: Context, spec: str, limits: Limits, image: str, because: str, report: str
) -> bool:
    """Return whether to train now; the reason goes into the record and to `report`.

    Args:
        context: Of the step.
        spec: The document `model.yaml`, as JSON.
        limits: When not to.
        image: That trains.
        because: What asked for this look: `clock`, or a trigger's words.
        report: Where a page for KFP's UI goes.
    """
    model, settings, now = spec_of(spec), context.settings, time.time()
    if not model.data.train:
        raise ConfigurationError(
            "data.train is not set: there is nothing to train on",
            hint="name the training data in model.yaml",
        )
    inputs = inputs_of(context, model, image)
    catalog = catalog_of(settings)
    version = catalog.by_alias(model.name, CHAMPION)
    passport = None
    if version is not None:
        passport = Passport.model_validate(catalog.document(version, PASSPORT))
    found = changes(passport, inputs)
    past = attempts.read(settings, model.name)
    decided = decide(found, inputs, past, place_of(settings, model, now), limits, now)
    context.detail |= {
        "outcome": decided.outcome,
        "reason": decided.reason,
        "changes": [asdict(change) for change in found],
        "champion": version.number if version is not None else None,
        "inputs": inputs.model_dump(),
        "because": because,
    }
    told = [(change.what, change.told) for change in found]
    link = tracked(settings.tracking_uri, model.name, context.detail)
    _page(report, f"**{decided.outcome}**: {decided.reason}\n{_linked(link)}", told)
    if decided.go:
        attempts.begin(settings, model.name, Attempt(inputs.digest, settings.run_id, now))
        write_atomically(settings.run_dir / INPUTS, inputs.model_dump_json())
    return decided.go


def inputs_of(context: Context, model: ModelSpec, image: str) -> Inputs:
    """Return what a training would start from now: revisions and digests."""
    data = data_of(context, model)
    return Inputs(
        base=_base(resolve_reference(model.ref, hub_of(context.settings)), model.policy),
        data={name: each["digest"] for name, each in data.items()},
        strategy=model.training.digest,
        code=penstock.__version__,
        image=image,
    )


def place_of(settings: Settings, model: ModelSpec, now: float) -> Place:
    """Return what goes on where a model is served, without changing it."""
    target = target_of(settings, model.target)
    if not target.began:
        return Place()
    obj = target.cluster.get(target.traffic.carrier, model.name)
    record = acting.record_of(obj) if obj is not None else None
    going = record.candidate if record is not None and not record.over else ""
    return Place(going, lease.holder(target.cluster, model.name, now))


def _base(source: ModelRef, policy: Policy) -> str:
    """Return a pinned reference; a folder has no revision, so its content's digest pins it."""
    if source.scheme != "file":
        return str(source)
    folder = Path(source.path)
    names = select(files_of(folder), policy, str(source))
    digests = hash_files([folder / name for name in names])
    files = [
        FileEntry(name, (folder / name).stat().st_size, digest)
        for name, digest in zip(names, digests, strict=True)
    ]
    return f"{source}@{Manifest(source, tuple(files)).root.hex}"


def _linked(address: str) -> str:
    return f"\nMLflow, the champion: [{address}]({address})\n" if address else ""


def _page(path: str, lead: str, rows: list[tuple[str, str]]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(markdown(lead, ("new", "what"), rows))
