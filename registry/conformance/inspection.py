"""Every check, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from penstock.core.errors import CheckpointBroken
from registry.conformance import configs, layout, quantized, scales
from registry.conformance.findings import Finding
from registry.conformance.lineage import against_parent
from registry.conformance.reading import Checkpoint, read

_CHECKS: tuple[Callable[[Checkpoint], Iterator[Finding]], ...] = (
    configs.rope,
    configs.tokenizer_class,
    configs.endings,
    configs.chat_template,
    layout.types,
    layout.tied_head,
    layout.vocabulary,
    quantized.modelopt,
    quantized.sources,
    quantized.declared,
    quantized.companions,
    quantized.shapes,
    scales.values,
)


def inspect(folder: Path, parent: Path | None = None) -> list[Finding]:
    """Return everything that some engine would read wrongly; weights are not loaded.

    Args:
        folder: Of a Hugging Face checkpoint.
        parent: Folder of the checkpoint it was quantized from.

    Raises:
        ConfigurationError: There is no such folder.
        CheckpointBroken: A folder without a readable config.json.
    """
    checkpoint = read(folder)
    found = [*checkpoint.damaged, *layout.shards(checkpoint)]
    if found and any(f.severity == "error" for f in found):
        return found  # what is not there cannot be judged further
    found += [finding for check in _CHECKS for finding in check(checkpoint)]
    if parent is not None:
        found += against_parent(checkpoint, read(parent))
    return found


def broken(findings: Iterable[Finding], engine: str = "") -> list[Finding]:
    """Return the findings that refuse a checkpoint.

    Without an engine those are the errors. With one they are what this engine reads wrongly,
    warnings included, for they are warnings only because other engines do not.
    """
    if not engine:
        return [f for f in findings if f.severity == "error"]
    name = "vllm" if engine == "triton" else engine
    return [f for f in findings if name in f.engines]


def require(findings: Iterable[Finding], where: str = "", engine: str = "") -> None:
    """Raise `CheckpointBroken` with every finding that refuses the checkpoint."""
    found = broken(findings, engine)
    if found:
        told = "; ".join(str(f) for f in found)
        raise CheckpointBroken(f"{where or 'checkpoint'}: {told}", hint=found[0].fix)
