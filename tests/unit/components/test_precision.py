"""What the report says of quantization, and which recipes are tried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from components.quantization.choice import Target, recipes_for, smallest
from components.steps import precision
from penstock.core.recipes import W4A16, recipe_of

CPU = Target("cpu", "cpu")


def test_auto_takes_one_recipe_per_width_that_the_engine_computes_natively() -> None:
    found, impossible = recipes_for("auto", Target("vllm", "nvidia-h100-80gb"))
    assert [recipe.label for recipe in found] == ["fp8-dynamic", "w4a16 rtn g128"]
    assert impossible == []
    on_blackwell, _ = recipes_for("auto", Target("tensorrt-llm", "nvidia-b200-180gb"))
    assert [recipe.label for recipe in on_blackwell] == ["modelopt-fp8", "modelopt-nvfp4"]


def test_auto_makes_nothing_where_a_smaller_precision_would_only_be_unpacked() -> None:
    assert recipes_for("auto", CPU) == ([], [])


def test_what_was_asked_for_is_tried_unless_it_could_not_be_run() -> None:
    wanted = [recipe_of("int4"), recipe_of("modelopt-fp8")]
    found, impossible = recipes_for(wanted, CPU)
    assert found == [recipe_of("int4")]
    assert [each.recipe for each in impossible] == [recipe_of("modelopt-fp8")]
    assert "nearest: fp8-dynamic" in impossible[0].reason


def test_a_mixture_needs_every_one_of_its_formats() -> None:
    mixed = W4A16(fp8_layers=("*.down_proj",))
    assert recipes_for([mixed], Target("vllm", "nvidia-h100-80gb"))[0] == [mixed]
    _, impossible = recipes_for([mixed], Target("tensorrt-llm", "nvidia-h100-80gb", "1.2.1"))
    assert impossible[0].reason.startswith(
        "w4a16 does not run in the engine tensorrt-llm on nvidia-h100-80gb: "
    )


def test_weights_that_would_not_fit_are_not_made() -> None:
    target = Target("vllm", "nvidia-a10", memory_bytes=24 << 30)
    found, impossible = recipes_for("auto", target, weights_bytes=64 * 10**9)
    assert [recipe.label for recipe in found] == ["w4a16 rtn g128"]
    assert "w8a8 leaves about 32 GB of weights" in impossible[0].reason
    assert "26 GB of memory" in impossible[0].reason


def _row(label: str, outcome: str, size: int, score: float) -> dict[str, Any]:
    return {"label": label, "outcome": outcome, "size_bytes": size, "score": score}


def test_the_smallest_that_was_accepted_wins_and_of_two_as_small_the_better() -> None:
    rows = [
        _row("a", "refuse", 1, 0.9),
        _row("b", "accept", 3, 0.8),
        _row("c", "accept", 3, 0.9),
        _row("d", "accept", 4, 1.0),
    ]
    best = smallest(rows)
    assert best is not None
    assert best["label"] == "c"
    assert smallest(rows[:1]) is None


def _table(head: Sequence[str] | None, rows: Sequence[Sequence[str]]) -> str:
    return f"[{'|'.join(head or ())}]" + "".join(f"({'|'.join(row)})" for row in rows)


VERDICT = {
    "difference": -0.01,
    "low": -0.02,
    "high": 0.001,
    "margin": 0.015,
    "smallest_margin": 0.02,
    "power": 0.87,
    "measures": [{"name": "mean KL", "value": 0.0123}],
}


def test_the_report_draws_what_was_made_and_tells_what_was_not() -> None:
    made = {**_row("w4a16 rtn g64", "refuse", 500_000, 0.91), "reason": "it lost skill 'copy'"}
    made |= {"wall_s": 12.3, "peak_bytes": 900e6, "tokens_per_cpu_s": 1234.5, "verdict": VERDICT}
    other = {"label": "modelopt-fp8", "outcome": "impossible", "reason": "does not run <there>"}
    found = {
        "outcome": "kept",
        "reason": "served as it came",
        "parent": {"size_bytes": 1_000_000, "score": 0.98, "tokens_per_cpu_s": 1000.0},
        "tried": [made, other],
    }
    page = precision.section(found, _table)
    assert page.count('class="dot refuse"') == 2  # in the picture and in its legend
    assert "0.5 MB, 91.0%, 1,234 tok/CPU-s" in page
    assert "(modelopt-fp8|impossible|does not run <there>|-|-)" in page
    assert "(w4a16 rtn g64|-1.00% (-2.00% to +0.10%)|2.00% of 1.50%|87%|0.0123|-|-|-)" in page


@pytest.mark.parametrize("outcome", ["skipped", "kept"])
def test_nothing_made_has_no_picture(outcome: str) -> None:
    page = precision.section({"outcome": outcome, "reason": "as it <came>"}, _table)
    badge = f'<span class="badge {outcome}">{outcome}</span>'
    assert page == f'<p class="lead">{badge} as it &lt;came&gt;</p>'
