"""What a producer runs through the model: conversations, or plain text for a base model."""

from __future__ import annotations

from pathlib import Path

from components.quantization.calibration import in_turns, rendered, tokens_of
from penstock.core.recipes import Calibration
from tests.unit.components.quantization.parents import make_parent

TURNS = [
    [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c"}],
    [
        {"role": "system", "content": "d"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
    ],
]


def test_conversations_are_written_by_the_template(tmp_path: Path) -> None:
    parent = make_parent(tmp_path / "parent")
    (parent / "chat_template.jinja").write_text(
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
    )
    assert in_turns(parent)
    assert rendered(parent, TURNS[:1]) == ["<|user|>a b<|assistant|>c"]


def test_without_a_template_prompts_and_answers_are_plain_text(tmp_path: Path) -> None:
    parent = make_parent(tmp_path / "parent")
    (parent / "chat_template.jinja").unlink()
    assert not in_turns(parent)
    texts = rendered(parent, TURNS)
    assert texts == ["a b\nc", "d\na\nb"]
    assert tokens_of(parent, texts, Calibration(samples=2, length=64)) == [[3, 4, 5], [6, 3, 4]]
