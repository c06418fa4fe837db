"""The work of the steps: registry and serving meet here, on values of the core.

Every function takes the step's context first and leaves in `context.detail` what the report shows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import penstock
from components.guard.comparison import compare, paired
from components.steps.context import Context, write_atomically
from components.steps.measuring import Asked, measured
from components.steps.memo import remembered
from components.steps.parameters import as_parameter
from components.steps.trained import trained_from
from penstock.core.documents import parse_spec
from penstock.core.errors import (
    ConfigurationError,
    DataRefused,
    EvaluationFailed,
)
from penstock.core.identity import Digest, ModelRef
from penstock.core.manifest import Manifest
from penstock.core.settings import Settings
from penstock.core.sources import DataRef
from penstock.core.spec import ModelSpec
from registry import datachecks, scans
from registry.catalog import CHAMPION, EVALUATION, PASSPORT, Candidate, Catalog
from registry.passport import Decision, Inputs, Made, Passport, Precision
from registry.pull import Hub
from registry.pull import pull as pull_checkpoint
from registry.pull import resolve as resolve_reference
from registry.sources.fetch import fetched
from registry.store import Store, hash_file, verify
from serving.runtimes.launch import launch
from serving.targets.choose import target_of

INPUTS = "inputs.json"
"""In a run's folder: what `detect_changes` saw, where the run trains."""

_ROWS_DETAIL = "items"


@dataclass(frozen=True, slots=True)
class Evidence:
    """Paths of what the checks found."""

    scans: str
    report: str
    evaluation: str
    precision: str


def resolve(context: Context, spec: str) -> str:
    """Pin the source to a commit and the data sets to their content."""
    model = spec_of(spec)
    if model.target == "local" and model.runtime not in ("auto", "cpu"):
        raise ConfigurationError(
            f"runtime: found {model.runtime!r}; allowed: cpu, which is what this machine serves "
            "with",
            hint="leave runtime out, or set target: kserve",
        )
    plans = model.target != "local" and model.undecided
    if not plans:
        _servable(context, model)
    source = resolve_reference(model.ref, hub_of(context.settings))
    planned: dict[str, Any] = {}
    if plans:
        from components.steps import planning

        model, told = planning.plan(model, source, hub_of(context.settings))
        _servable(context, model)
        planned = {"plan": told, "chosen": planning.chosen(model)}
    data = data_of(context, model)
    here = _fetched(model, data)
    if here:
        planned = {**planned, "chosen": {**planned.get("chosen", {}), "data": here}}
    body = {"source": str(source), "data": data, "runtime": model.engine_name, **planned}
    context.detail |= {**body, "beware": _unprovable(model, data)}
    return as_parameter(json.dumps(body))


def _unprovable(model: ModelSpec, data: Mapping[str, Any]) -> str:
    """Return that a later version would not be proven by these rows; empty: it may be.

    On a laptop requests of users are replayed too, so nothing is refused for it.
    """
    from serving.rollout.judge import Judge

    if "evaluate" not in data or not (path := Path(data["evaluate"]["path"])).is_file():
        return ""
    rows = sum(1 for line in path.read_text().splitlines() if line.strip())
    needed, metric = Judge(model.rollout).fewest_pairs()
    if rows >= needed:
        return ""
    return (
        f"data.evaluate has {rows:,} rows; to prove {metric} of a later version in shadow takes "
        f"{needed:,}, if it is perfect: more rows, or a wider rollout.metrics.{metric}.reject"
    )


def _servable(context: Context, model: ModelSpec) -> None:
    """Raise what keeps a spec from being served, before anything is pulled: that can take a day."""
    if model.target != "local" or model.engine_name == "cpu":
        launch(model)  # refuses what its engine cannot do
    if model.target != "local":
        target_of(context.settings, model.target).require(model)


def pull(context: Context, spec: str, resolved: str, path: str) -> dict[str, Any]:
    """Bring the checkpoint into the store; the manifest goes to `path`."""
    source = ModelRef.parse(json.loads(resolved)["source"])
    pulled = pull_checkpoint(
        source,
        hub_of(context.settings),
        Store(context.settings.store),
        spec_of(spec).policy,
        lambda done, total: context.progress(done, total, "bytes"),
    )
    manifest = pulled.manifest
    _write(path, json.loads(manifest.to_json()))
    context.reused = source.scheme == "hf" and pulled.downloaded_bytes == 0
    context.detail |= {
        "root": str(manifest.root),
        "size_bytes": manifest.size_bytes,
        "downloaded_bytes": pulled.downloaded_bytes,
        "files": json.loads(manifest.to_json())["files"],
    }
    return {"root": str(manifest.root), "size_bytes": manifest.size_bytes}


def find(context: Context, spec: str, resolved: str, version: str, path: str) -> dict[str, Any]:
    """Bring a registered version's checkpoint, or the spec's source where none is named.

    Args:
        context: Of the step.
        spec: The document `model.yaml`, as JSON.
        resolved: What `resolve` returned.
        version: Number or alias; empty: the source.
        path: Where the manifest goes.
    """
    if not version:
        return pull(context, spec, resolved, path)
    model, catalog = spec_of(spec), catalog_of(context.settings)
    if version.isdigit():
        found = catalog.version(model.name, int(version))
    else:
        aliased = catalog.by_alias(model.name, version)
        if aliased is None:
            raise ConfigurationError(
                f"{model.name}: no version has the alias {version!r}",
                hint="a number, or an alias such as champion, challenger or previous",
            )
        found = aliased
    manifest = Store(context.settings.store).manifest(Digest.parse(found.root))
    _write(path, json.loads(manifest.to_json()))
    context.reused = True
    context.detail |= {
        "root": str(manifest.root),
        "size_bytes": manifest.size_bytes,
        "downloaded_bytes": 0,
        "files": json.loads(manifest.to_json())["files"],
        "version": found.number,
    }
    return {"root": str(manifest.root), "size_bytes": manifest.size_bytes}


def scan(context: Context, spec: str, checkpoint_path: str, out_path: str) -> None:
    """Check the files against the policy; every gate goes to `out_path`."""
    manifest, folder = checkpoint_of(context.settings, checkpoint_path)
    verify(folder, manifest)
    gates = scans.scan(folder, spec_of(spec).policy)
    body = {"gates": [asdict(gate) for gate in gates], "licence": scans.licence_of(folder)}
    context.detail |= body
    _write(out_path, body)
    scans.require(gates, str(manifest.source))


def check_data(context: Context, resolved: str, checkpoint_path: str, out_path: str) -> None:
    """Check the data sets; every expectation goes to `out_path`."""
    manifest, folder = checkpoint_of(context.settings, checkpoint_path)
    data: Mapping[str, Any] = json.loads(resolved)["data"]
    _same_data(data)
    config = json.loads((folder / "config.json").read_text())
    context_length = int(config.get("max_position_embeddings", 2048))
    key = {
        "what": "data checks",
        "data": {name: each["digest"] for name, each in data.items()},
        "tokenizer": {f.path: str(f.digest) for f in manifest.files}["tokenizer.json"],
        "context_length": context_length,
    }

    def make(target: Path) -> None:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        sets = datachecks.Sets(
            paths={name: Path(each["path"]) for name, each in data.items()},
            context_length=context_length,
            count_tokens=lambda row: len(tokenizer.encode(f"{row.prompt}\n{row.answer}").ids),
        )
        report = datachecks.check(sets, target / "docs")
        report["docs"] = "docs/index.html" if report["suites"] else ""
        _write(str(target / "report.json"), report)

    kept = context.settings.run_dir / "data-checks"
    context.reused = remembered(context.settings.home / "memo", key, kept, make)
    report = json.loads((kept / "report.json").read_text())
    if report["docs"]:
        report["docs"] = str(kept / report["docs"])
    context.detail |= report
    _write(out_path, report)
    datachecks.require(report)


def evaluate(
    context: Context, spec: str, resolved: str, checkpoint_path: str, out_path: str
) -> None:
    """Measure, compare with the champion, and decide; everything goes to `out_path`."""
    model = spec_of(spec)
    manifest, folder = checkpoint_of(context.settings, checkpoint_path)
    data: Mapping[str, Any] = json.loads(resolved)["data"]
    if "evaluate" not in data:
        verdict = {"outcome": "skipped", "reason": "data.evaluate is not set: nothing is proven"}
        context.detail |= {"verdict": verdict}
        _write(out_path, {"verdict": verdict})
        return
    _same_data(data)
    kept = context.settings.run_dir / "evaluation"
    found, context.reused = measured(
        context, folder, str(manifest.root), Asked.of(model, data), kept
    )
    comparison = _against_champion(context.settings, model, found, str(manifest.root))
    verdict = _verdict(model, found, comparison)
    result = {**found, "comparison": comparison, "verdict": verdict}
    context.detail |= {k: v for k, v in result.items() if k != _ROWS_DETAIL}
    context.detail["wrong"] = [r for r in found["items"] if not r["correct"]][:12]
    _write(out_path, result)
    if verdict["outcome"] != "pass":
        raise EvaluationFailed(
            verdict["reason"],
            hint="the report shows every skill; improve the model, or change evaluation in "
            "model.yaml",
        )


def register(
    context: Context, spec: str, resolved: str, checkpoint_path: str, evidence: Evidence
) -> str:
    """Register the version with its passport; return its number."""
    model = spec_of(spec, resolved)
    manifest, folder = checkpoint_of(context.settings, checkpoint_path)
    evaluation = json.loads(Path(evidence.evaluation).read_text())
    scanned = json.loads(Path(evidence.scans).read_text())
    pinned = json.loads(resolved)
    checked = json.loads(Path(evidence.report).read_text())
    precision = Precision.model_validate_json(Path(evidence.precision).read_text())
    scores = {k: v for k, v in evaluation.items() if k not in (_ROWS_DETAIL, "latency", "speed")}
    passport = Passport(
        name=model.name,
        source=str(manifest.source),
        root=str(manifest.root),
        files={f.path: str(f.digest) for f in manifest.files},
        licence=scanned["licence"],
        data={name: each["digest"] for name, each in pinned["data"].items()},
        runtime_args=model.runtime_args,
        precision=precision,
        training=trained_from(context.settings, precision.parent_root),
        inputs=_inputs(context.settings, pinned),
        evaluation=scores,
        decisions=_decisions(scanned, checked, evaluation),
        made=Made(
            penstock=penstock.__version__,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            run_id=context.settings.run_id,
        ),
    )
    metrics = {"exact_match": evaluation["exact_match"]["share"]} if "items" in evaluation else {}
    kept = {k: v for k, v in evaluation.items() if k in ("exact_match", "skills", "items")}
    candidate = Candidate(
        root=str(manifest.root),
        source_uri=folder.as_uri(),
        evidence=_digest([kept, passport.data, _told(model), *_made_from(passport)]),
        metrics=metrics,
        params={"source": str(manifest.source), "root": str(manifest.root)},
        documents={PASSPORT: passport.model_dump(), EVALUATION: evaluation},
    )
    version = catalog_of(context.settings).register(model.name, candidate)
    context.detail |= {
        "model": model.name,
        "version": version.number,
        "run_id": version.run_id,
        "source_uri": version.source_uri,
        "aliases": list(version.aliases),
    }
    return str(version.number)


def _made_from(passport: Passport) -> list[str]:
    """Return what tells two trainings apart that came to the same weights.

    Without it what is new, such as Penstock's version, would stay new for ever.
    """
    return [passport.inputs.digest] if passport.inputs is not None else []


def _inputs(settings: Settings, pinned: Mapping[str, Any]) -> Inputs | None:
    """Return what a version was trained from; None where it was not trained in this run."""
    path = settings.run_dir / INPUTS
    if not path.exists():
        return None
    seen = Inputs.model_validate_json(path.read_text())
    source = str(pinned["source"])
    return seen.model_copy(
        update={
            "data": {name: each["digest"] for name, each in pinned["data"].items()},
            "base": source if source.startswith("hf:") else seen.base,
        }
    )


def _against_champion(
    settings: Settings, model: ModelSpec, measured: Mapping[str, Any], root: str
) -> dict[str, Any] | None:
    catalog = catalog_of(settings)
    served = catalog.by_alias(model.name, CHAMPION)
    if served is None or served.root == root:
        return None  # nothing to lose against oneself, however few the items
    before = catalog.document(served, EVALUATION).get("items")
    if not before:
        return None
    return {
        **against(before, measured["items"], model.evaluation.max_quality_loss),
        "against": f"version {served.number}",
    }


def against(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], margin: float
) -> dict[str, Any]:
    """Return how a version did beside the champion: in total, and in every skill.

    A skill that regressed decides, whatever the total says.
    """
    from components.guard import champion

    total = compare(paired(before, after), margin).to_json()
    found = champion.skills(before, after, margin)
    told = {"skills": champion.to_json(found)}
    lost = champion.reason(found)
    return {**total, **told, "outcome": "fail", "reason": lost} if lost else {**total, **told}


def _verdict(
    model: ModelSpec, measured: Mapping[str, Any], comparison: Mapping[str, Any] | None
) -> dict[str, str]:
    score, wanted = measured["exact_match"], model.evaluation.min_exact_match
    if score["share"] < wanted:
        reason = (
            f"exact match {score['share']:.1%} (95 %: {score['low']:.1%} to {score['high']:.1%}) "
            f"is below evaluation.min_exact_match {wanted:.1%}"
        )
        return {"outcome": "fail", "reason": reason}
    if comparison is not None and comparison["outcome"] != "pass":
        return {
            "outcome": comparison["outcome"],
            "reason": f"compared with {comparison['against']}: {comparison['reason']}",
        }
    beside = f", and {comparison['reason']}" if comparison else ""
    return {"outcome": "pass", "reason": f"exact match {score['share']:.1%}{beside}"}


def _told(model: ModelSpec) -> list[str]:
    """Return what tells one way to serve the same weights from another: it is another version."""
    if model.target == "local" or model.engine_name == "cpu":
        return model.runtime_args
    made = launch(model)
    return [made.runtime.key, *made.args]


def _digest(body: object) -> str:
    return str(Digest.of(json.dumps(body, sort_keys=True).encode()))


def _decisions(
    scanned: Mapping[str, Any], checked: Mapping[str, Any], evaluation: Mapping[str, Any]
) -> list[Decision]:
    gates = [
        Decision(step=f"scan {g['name']}", outcome=g["outcome"], reason=g["reason"])
        for g in scanned["gates"]
    ]
    suites = [
        Decision(
            step=f"data {s['name']}",
            outcome="passed" if s["passed"] else "failed",
            reason=f"{s['rows']} rows, {len(s['expectations'])} expectations",
        )
        for s in checked["suites"]
    ]
    verdict = evaluation["verdict"]
    return [
        *gates,
        *suites,
        Decision(step="evaluate", outcome=verdict["outcome"], reason=verdict["reason"]),
    ]


def spec_of(text: str, resolved: str = "{}") -> ModelSpec:
    """Return the spec in a step's parameter, with what `resolve` chose where that was left open."""
    chosen = json.loads(resolved).get("chosen", {})
    return parse_spec(json.dumps({**json.loads(text), **chosen}) if chosen else text, where="spec")


def hub_of(settings: Settings) -> Hub:
    """Return the Hub that the settings name."""
    return Hub(settings.hub_endpoint, settings.hub_token)


def catalog_of(settings: Settings) -> Catalog:
    """Return the registry that the settings name."""
    return Catalog(
        settings.tracking_uri,
        joined_run_id=settings.joined_run_id,
        experiment=settings.experiment,
    )


def checkpoint_of(settings: Settings, path: str) -> tuple[Manifest, Path]:
    """Return a checkpoint's manifest and its folder in the store."""
    manifest = Manifest.from_json(Path(path).read_text())
    return manifest, Store(settings.store).checkpoint(manifest.root)


def data_of(context: Context, model: ModelSpec) -> dict[str, dict[str, str]]:
    """Return the data sets of a spec, brought here: path, digest and source of each."""
    found = {}
    for name, text in model.data.model_dump().items():
        if text:
            ref = DataRef.parse(text)
            each = fetched(f"data.{name}", ref, context.settings, context.env)
            found[name] = {
                "path": str(each.path),
                "digest": str(each.digest),
                **({"source": each.source} if ref.kind != "file" else {}),
            }
    return found


def _fetched(model: ModelSpec, data: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Return the spec's data with the files that were fetched; empty where all were files."""
    if all("source" not in each for each in data.values()):
        return {}
    return {**model.data.model_dump(), **{name: each["path"] for name, each in data.items()}}


def _same_data(data: Mapping[str, Any]) -> None:
    for name, each in data.items():
        if str(hash_file(Path(each["path"]))) != each["digest"]:
            raise DataRefused(
                f"data.{name}: {each['path']} changed while the run was going on",
                hint="run again",
            )


def _write(path: str, content: Mapping[str, Any]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(Path(path), json.dumps(content, indent=1))
