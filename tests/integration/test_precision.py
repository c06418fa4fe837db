"""The step that quantizes: real recipes on the example model, judged, stored and remembered."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from components.steps import quantize
from components.steps.context import Context
from penstock.cli.app import app
from penstock.core.documents import parse_spec
from penstock.core.errors import DataRefused, PrecisionRefused
from penstock.core.manifest import Manifest
from penstock.core.recipes import W4A16, parse_recipe
from penstock.core.settings import Settings
from penstock.core.spec import ModelSpec
from registry.store import Store
from tests.fakes.outliers import with_outliers

pytestmark = pytest.mark.integration
EXAMPLE = Path("examples/skills").absolute()


def _spec(tmp_path: Path, precision: str, *, data: bool = True) -> Path:
    items = (EXAMPLE / "data" / "evaluate.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "few.jsonl").write_text("".join(itertools.islice(items, 0, None, 7)))
    calibrate = EXAMPLE / "data" / "calibrate.jsonl"
    sets = f"data: {{evaluate: few.jsonl, calibrate: {calibrate}}}\n" if data else ""
    path = tmp_path / "model.yaml"
    path.write_text(
        f"name: skills\nsource: file://{EXAMPLE}/model\nruntime: cpu\n{sets}"
        f"evaluation: {{max_new_tokens: 24}}\nprecision: {precision}\n"
    )
    return path


def _choose(
    tmp_path: Path, spec: Path, run_id: str = "one", source: Path = EXAMPLE / "model"
) -> tuple[Manifest, dict[str, Any]]:
    model: ModelSpec = parse_spec(spec.read_text(), folder=str(tmp_path))
    home = str(tmp_path / "home")
    settings = Settings.from_env({"PENSTOCK_HOME": home, "PENSTOCK_RUN_ID": run_id})
    folder = settings.run_dir / "steps"
    folder.mkdir(parents=True)
    store = Store(settings.store)
    parent = store.add(source, model.ref)
    context = Context(settings, folder, "quantize")
    where = store.checkpoint(parent.root)
    return quantize.choose(context, model, quantize.pinned(model), parent, where)


def test_the_smallest_that_loses_nothing_is_served_and_made_once(tmp_path: Path) -> None:
    spec = _spec(tmp_path, "[modelopt-fp8, int4]")
    chosen, decided = _choose(tmp_path, spec)
    impossible, made = decided["tried"]
    assert impossible["outcome"] == "impossible"
    assert made["outcome"] == "accept", made["reason"]
    assert str(chosen.root) == made["root"] != decided["parent_root"]
    assert made["size_bytes"] < decided["parent"]["size_bytes"] / 2
    assert {m["name"] for m in made["verdict"]["measures"]} >= {"mean KL", "perplexity ratio"}
    folder = Store(tmp_path / "home" / "store").checkpoint(chosen.root)
    config = json.loads((folder / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "compressed-tensors"
    again, later = _choose(tmp_path, spec, "two")
    assert again.root == chosen.root
    assert later["tried"][1]["wall_s"] == made["wall_s"]  # remembered, not made again


@pytest.mark.soak
def test_what_four_bits_ruin_is_refused_and_a_mixture_is_found(tmp_path: Path) -> None:
    """The same function with outlier channels: INT4 loses skills, and they are named."""
    spec = _spec(tmp_path, "int4")
    spec.write_text(spec.read_text().replace(f"{EXAMPLE}/model", f"{tmp_path}/outliers"))
    with_outliers(EXAMPLE / "model", tmp_path / "outliers")
    chosen, decided = _choose(tmp_path, spec, source=tmp_path / "outliers")
    plain, *searched = decided["tried"]
    assert plain["outcome"] == "refuse"
    assert "it lost skill 'add'" in plain["reason"]
    assert 1 <= len(searched) <= quantize.BUDGET
    best = parse_recipe(decided["recipe"])
    assert isinstance(best, W4A16)
    assert any(name.endswith("down_proj") for name in best.fp8_layers)
    assert str(chosen.root) != decided["parent_root"]


def test_without_items_nothing_may_replace_the_parent(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match=r"data\.evaluate is not set"):
        _choose(tmp_path, _spec(tmp_path, "int4", data=False))


def test_auto_on_a_cpu_serves_the_checkpoint_as_it_came(tmp_path: Path) -> None:
    chosen, decided = _choose(tmp_path, _spec(tmp_path, "auto"))
    assert decided["outcome"] == "skipped"
    assert str(chosen.root) == decided["parent_root"]
    assert "computes no smaller precision natively" in decided["reason"]


def test_the_command_line_says_what_could_not_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "home"))
    spec = str(_spec(tmp_path, "auto"))
    result = CliRunner().invoke(app, ["quantize", spec, "--recipe", "modelopt-nvfp4"])
    assert isinstance(result.exception, PrecisionRefused)
    assert "modelopt-nvfp4  " in result.output
    assert not list((tmp_path / "home" / "store" / "checkpoints").glob(".new-*"))
