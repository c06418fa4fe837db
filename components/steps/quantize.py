"""Makes smaller checkpoints, judges each against its parent, and says which one to serve.

Nothing is taken on trust: what was made is inspected for silent damage, answers the evaluation set,
and is compared token by token with its parent, before it may replace it. What is not accepted
leaves nothing behind but its row in the report.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.guard import fixed
from components.guard.items import pair_up
from components.guard.measures import measures
from components.quantization.choice import Impossible, Target, recipes_for, smallest
from components.steps.context import Context, write_atomically
from components.steps.judging import sample
from components.steps.measuring import Asked, items_of, measured
from components.steps.memo import remembered
from components.steps.verbs import checkpoint_of, spec_of
from penstock.core.errors import (
    CheckpointBroken,
    DataRefused,
    EngineRefused,
    RecipeImpossible,
    StoreError,
)
from penstock.core.identity import Digest
from penstock.core.manifest import Manifest
from penstock.core.recipes import GROUP_SIZES, SHORT_NAMES, Fp8Dynamic, Recipe, parse_recipe
from penstock.core.spec import ModelSpec
from registry.datasets import read_rows
from registry.store import Store, hash_file
from serving.runtimes.catalog import runtime_of
from serving.runtimes.runtime import place

BUDGET = 6
"""Most checkpoints that a search makes."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Parent:
    """What is to be made smaller."""

    manifest: Manifest
    folder: Path
    found: Mapping[str, Any]
    """What `scoring.measure` found of it."""


def quantize(
    context: Context, spec: str, resolved: str, checkpoint_path: str, out_path: str
) -> dict[str, Any]:
    """Write the manifest of the checkpoint to serve to `out_path`: a smaller one, or the parent's.

    Returns what was decided, for the passport: outcome, reason, recipe and parent.
    """
    body, model = json.loads(resolved), spec_of(spec, resolved)
    manifest, folder = checkpoint_of(context.settings, checkpoint_path)
    chosen, decided = choose(context, model, body["data"], manifest, folder)
    if decided["outcome"] == "skipped" and "plan" in body:
        decided["reason"] = f"the checkpoint is served as it came ({body['plan']['told']})"
    elif body.get("plan", {}).get("made"):
        from components.steps import planning

        served = Store(context.settings.store).checkpoint(chosen.root)
        planning.require(model, spec_of(spec), served)
    write_atomically(Path(out_path), chosen.to_json())
    context.detail |= decided
    return {key: decided[key] for key in ("outcome", "reason", "recipe", "parent_root")}


def choose(
    context: Context, model: ModelSpec, data: Mapping[str, Any], manifest: Manifest, folder: Path
) -> tuple[Manifest, dict[str, Any]]:
    """Return the manifest to serve, and what was tried, for the report.

    Args:
        context: Of the step.
        model: The spec; its `precision` says what to try.
        data: Data sets as `resolve` pinned them.
        manifest: Of the checkpoint as it came.
        folder: Where that lies.
    """
    decided: dict[str, Any] = {"recipe": None, "parent_root": str(manifest.root), "tried": []}
    wanted, impossible = recipes_for(model.precision, target_of(model), _weights_of(folder))
    wanted = [fitting(recipe, folder) for recipe in wanted]
    if not wanted and not impossible:
        return manifest, {**decided, "outcome": "skipped", "reason": _nothing_asked(model)}
    rows = [_impossible(each) for each in impossible]
    if not wanted:
        return manifest, {**decided, "outcome": "kept", "reason": _kept(rows), "tried": rows}
    if "evaluate" not in data:
        raise DataRefused(
            "data.evaluate is not set: nothing could show that a quantized checkpoint may replace "
            "its parent",
            hint="set data.evaluate, or precision: bf16",
        )
    found, _ = measured(
        context, folder, str(manifest.root), Asked.of(model, data), _run(context, "parent")
    )
    parent = Parent(manifest, folder, found)
    work = Work(context, model, data, parent)
    rows += [work.tried(recipe) for recipe in wanted]
    refused = [row for row in rows if row["outcome"] == "refuse"]
    if smallest(rows) is None and refused:
        worst = min(refused, key=lambda row: row["size_bytes"])
        rows += work.searched(parse_recipe(worst["recipe"]))
    best = smallest(rows)
    decided |= {"tried": rows, "parent": work.point(parent.folder, parent.manifest, found)}
    if best is None:
        return manifest, {**decided, "outcome": "kept", "reason": _kept(rows)}
    reason = (
        f"{best['label']}: {best['size_bytes'] / manifest.size_bytes:.0%} of the size; "
        f"{best['reason']}"
    )
    decided |= {"outcome": "accept", "reason": reason, "recipe": best["recipe"]}
    return Store(context.settings.store).manifest(Digest.parse(best["root"])), decided


class Work:
    """Makes and judges recipes for one parent."""

    def __init__(
        self, context: Context, model: ModelSpec, data: Mapping[str, Any], parent: Parent
    ) -> None:
        self._context, self._model, self._data, self._parent = context, model, data, parent
        self._store = Store(context.settings.store)
        self._asked = Asked.of(model, data)

    def searched(self, refused: Recipe) -> list[Row]:
        """Return what was tried in the neighbourhood of a recipe that loses too much.

        Smaller groups, and the layers that rounding hurts most spared: in at most `BUDGET` tries.
        """
        from components.quantization.produce import sensitivities
        from components.quantization.search import Judgement, candidates, search

        rows: list[Row] = []

        def attempt(recipe: Recipe) -> Judgement:
            row = self.tried(recipe)
            rows.append({**row, "searched": True})
            return Judgement(row["outcome"] == "accept", row.get("score", 0.0), row["reason"])

        ranked = sensitivities(
            self._parent.folder,
            self._prompts("calibrate") or self._prompts("evaluate"),
            lambda done, total, _what: self._context.progress(done, total, "layers"),
            group_size=getattr(refused, "group_size", 128),
        )
        target, sizes = target_of(self._model), group_sizes_of(self._parent.folder)
        mixed = bool(recipes_for([Fp8Dynamic()], target)[0])
        near = candidates(refused, ranked, group_sizes=sizes, mixed=mixed)
        runs = [each for each in near if recipes_for([each.recipe], target)[0]]
        search(runs, attempt, BUDGET)
        return rows

    def tried(self, recipe: Recipe) -> Row:
        """Make a recipe and judge what came of it; what cannot be made is a row as well."""
        row: Row = {"label": recipe.label, "recipe": recipe.model_dump(mode="json")}
        try:
            made = self._made(recipe)
            manifest = self._store.manifest(Digest.parse(made["root"]))
            folder = self._store.checkpoint(manifest.root)
            kept = _run(self._context, recipe.digest.short)
            found, _ = measured(self._context, folder, made["root"], self._asked, kept)
            verdict = self._verdict(folder, made["root"], found, kept / "guard")
        except (RecipeImpossible, CheckpointBroken, EngineRefused) as problem:
            return {**row, "outcome": "impossible", "reason": str(problem)}
        return {
            **row,
            **made,
            **self.point(folder, manifest, found),
            "outcome": verdict["outcome"],
            "reason": verdict["reason"],
            "verdict": verdict,
        }

    def point(self, folder: Path, manifest: Manifest, found: Mapping[str, Any]) -> dict[str, Any]:
        """Return size, score and speed of a checkpoint."""
        speed = found["speed"]
        return {
            "size_bytes": _weights_of(folder) or manifest.size_bytes,
            "score": found["exact_match"]["share"],
            "tokens_per_cpu_s": speed["tokens"] / max(speed["cpu_s"], 1e-3),
        }

    def _made(self, recipe: Recipe) -> dict[str, Any]:
        """Return the root of a recipe's checkpoint, in the store, and what it cost."""
        key = {
            "what": "quantized",
            "parent": str(self._parent.manifest.root),
            "recipe": str(recipe.digest),
            "calibrate": (self._data.get("calibrate") or {}).get("digest"),
        }
        kept = _run(self._context, f"made-{recipe.digest.short}")
        memo = self._context.settings.home / "memo"
        remembered(memo, key, kept, lambda target: self._make(recipe, target))
        body: dict[str, Any] = json.loads((kept / "made.json").read_text())
        try:
            self._store.checkpoint(Digest.parse(body["root"]))
        except StoreError:  # it was removed since: `penstock store gc`
            self._make(recipe, kept)
            body = json.loads((kept / "made.json").read_text())
        return body

    def _make(self, recipe: Recipe, target: Path) -> None:
        from components.quantization.produce import produce

        scratch = target / "checkpoint"
        made = produce(
            self._parent.folder,
            recipe,
            scratch,
            self._prompts("calibrate") if recipe.needs_calibration else (),
            lambda done, total, _what: self._context.progress(done, total, recipe.label),
        )
        manifest = self._store.add(scratch, self._parent.manifest.source, owned=True)
        shutil.rmtree(scratch)
        body = {
            "root": str(manifest.root),
            "wall_s": made.wall_s,
            "peak_bytes": made.peak_rss_bytes,
            "planned_bytes": made.planned_bytes,
            "layers": made.layers,
            "calibrated_on": self._calibrated_on() if recipe.needs_calibration else "nothing",
        }
        write_atomically(target / "made.json", json.dumps(body))

    def _calibrated_on(self) -> str:
        from components.quantization.calibration import in_turns

        if in_turns(self._parent.folder):
            return "conversations, by the chat template"
        return "prompts and answers as plain text: the model has no chat template"

    def _prompts(self, name: str) -> list[str]:
        """Return a data set as the model reads it, answers included; empty where there is none."""
        if name not in self._data:
            return []
        from components.quantization.calibration import rendered

        rows = read_rows(Path(self._data[name]["path"]))
        turns = [[*row.conversation, {"role": "assistant", "content": row.answer}] for row in rows]
        return rendered(self._parent.folder, turns)

    def _verdict(
        self, folder: Path, root: str, found: Mapping[str, Any], kept: Path
    ) -> dict[str, Any]:
        key = {
            "what": "guard",
            "parent": str(self._parent.manifest.root),
            "root": root,
            "data": self._asked.digest,
            "max_new_tokens": self._asked.max_new_tokens,
            "margin": self._model.evaluation.max_quality_loss,
        }

        def make(target: Path) -> None:
            verdict = self._judge(folder, found)
            write_atomically(target / "verdict.json", json.dumps(verdict))

        remembered(self._context.settings.home / "memo", key, kept, make)
        body: dict[str, Any] = json.loads((kept / "verdict.json").read_text())
        return body

    def _judge(self, folder: Path, found: Mapping[str, Any]) -> dict[str, Any]:
        from components.guard.inprocess import distances

        apart = distances(
            self._parent.folder,
            folder,
            [(item.conversation, item.answer) for item in sample(items_of(self._asked.path))],
            on_progress=lambda done, total: self._context.progress(done, total, "compared"),
        )
        verdict = fixed.judge(
            pair_up(self._parent.found["items"], found["items"]),
            margin=self._model.evaluation.max_quality_loss,
            measures=measures(apart),
        )
        return verdict.to_json()


def target_of(model: ModelSpec) -> Target:
    """Return what a spec's checkpoints are made for."""
    engine, version = runtime_of(model).matrix[place(model)]
    memory = model.hardware.device.memory_gib * model.hardware.count << 30
    return Target(engine, model.hardware.accelerator, version, memory)


def fitting(recipe: Recipe, folder: Path) -> Recipe:
    """Return a recipe that was named, with the sizes that suit the model.

    Group size: the largest that divides its layers. Calibration: no longer than its context. A
    recipe in which a person wrote something else is left as it is.
    """
    from components.quantization.fit import fitting_group_size
    from registry.conformance.reading import read

    if recipe not in SHORT_NAMES.values():
        return recipe
    checkpoint, changes = read(folder), dict[str, object]()
    size = getattr(recipe, "group_size", None)
    if size and (fitted := fitting_group_size(checkpoint, size)):
        changes["group_size"] = fitted
    wanted = getattr(recipe, "calibration", None)
    longest = checkpoint.text.get("max_position_embeddings")
    if wanted and longest and wanted.length > longest:
        changes["calibration"] = wanted.model_copy(update={"length": longest})
    return recipe.model_copy(update=changes)


def group_sizes_of(folder: Path) -> list[int]:
    """Return the group sizes that divide every layer of a checkpoint."""
    from components.quantization.fit import fitting_group_size
    from registry.conformance.reading import read

    checkpoint = read(folder)
    return [size for size in GROUP_SIZES if fitting_group_size(checkpoint, size) == size]


def pinned(model: ModelSpec) -> dict[str, Any]:
    """Return a spec's data sets with their digests, as `resolve` pins them."""
    return {
        name: {"path": path, "digest": str(hash_file(Path(path)))}
        for name, path in model.data.model_dump().items()
        if path is not None
    }


def _weights_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _impossible(each: Impossible) -> Row:
    recipe = each.recipe
    return {
        "label": recipe.label,
        "recipe": recipe.model_dump(mode="json"),
        "outcome": "impossible",
        "reason": each.reason,
    }


def _nothing_asked(model: ModelSpec) -> str:
    if model.precision != "auto":
        return "precision: bf16, so the checkpoint is served as it came"
    return f"{target_of(model)} computes no smaller precision natively"


def _kept(rows: Sequence[Row]) -> str:
    told = "; ".join(f"{row['label']}: {row['outcome']}, {row['reason']}" for row in rows)
    return f"the checkpoint is served as it came ({told})"


def _run(context: Context, name: str) -> Path:
    return context.settings.run_dir / "precision" / name
