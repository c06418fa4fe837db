"""Are the weights all there? The index, the tied head, the vocabulary, the types."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from registry.conformance.findings import Finding, error, some, warning
from registry.conformance.reading import Checkpoint

_EMBEDDING = "model.embed_tokens.weight"
_HEAD = "lm_head.weight"
_TYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
_SCALES = ("scale", "scale_inv", "scale_2", "zero_point", "weight_shape", "g_idx")
_AGAIN = "pull or write the checkpoint again"


def shards(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Compare the index with the files."""
    name = "model.safetensors.index.json"
    listed: dict[str, str] = dict(checkpoint.index.get("weight_map") or {})
    if not checkpoint.tensors and not checkpoint.damaged:
        yield error("no-weights", "*.safetensors", "no weights in the folder", _AGAIN)
    if not listed:
        return
    files = {t.name: t.file.name for t in checkpoint.tensors.values()}
    lost = sorted(file for file in set(listed.values()) if not (checkpoint.folder / file).exists())
    if lost:
        yield error("missing-shard", name, f"names {some(lost)}, which is not there", _AGAIN)
    absent = sorted(tensor for tensor in listed if files.get(tensor) != listed[tensor])
    if absent and not lost:
        told = f"{some(absent)} is not in the file it names: filled with random numbers"
        yield error("missing-tensor", name, told, _AGAIN)
    extra = sorted(set(files) - set(listed))
    if extra:
        told = f"does not name {some(extra)}: engines that go by it never load them"
        yield warning("unlisted-tensor", name, told, "write the index again")
    total = (checkpoint.index.get("metadata") or {}).get("total_size")
    size = sum(t.size for t in checkpoint.tensors.values())
    if isinstance(total, int) and size != total:
        told = f"total_size is {total} bytes, the tensors have {size}"
        report = error if size < total else warning
        yield report("total-size", name, told, _AGAIN)


def types(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Compare the type in the configuration with the tensors'."""
    told = {k: checkpoint.text.get(k) for k in ("dtype", "torch_dtype") if checkpoint.text.get(k)}
    if len(set(told.values())) > 1:
        yield error(
            "dtype",
            "config.json",
            f"dtype is {told['dtype']}, torch_dtype is {told['torch_dtype']}: transformers 4 and 5"
            " load other numbers",
            "write one value in both",
        )
        return
    wanted = _TYPES.get(str(next(iter(told.values()), "")).removeprefix("torch."))
    counted = Counter(
        t.dtype
        for t in checkpoint.tensors.values()
        if t.dtype in _TYPES.values() and not t.name.endswith(_SCALES)
    )
    if not wanted or not counted:
        return
    if wanted not in counted:
        found = counted.most_common(1)[0][0]
        yield error(
            "dtype",
            "config.json",
            f"says {next(iter(told.values()))}, the weights are {found}: cast on loading, without"
            " a word",
            f"write the type that is stored ({found}), or cast the weights to what is said",
        )


def tied_head(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Compare `tie_word_embeddings` with the head that is stored."""
    tied = checkpoint.text.get("tie_word_embeddings", checkpoint.config.get("tie_word_embeddings"))
    embedding, head = checkpoint.tensors.get(_EMBEDDING), checkpoint.tensors.get(_HEAD)
    if tied is None or embedding is None:
        return
    packed = any(name.startswith("lm_head.") for name in checkpoint.tensors)
    if not tied and not packed:
        yield error(
            "tied-head",
            "config.json: tie_word_embeddings",
            f"false, but there is no {_HEAD}: filled with random numbers",
            "set it to true if the parent's is, or write the head",
        )
    elif tied and packed and (head is None or not _equal(checkpoint)):
        yield error(
            "tied-head",
            "config.json: tie_word_embeddings",
            f"true, but another {_HEAD} is stored: engines ignore it",
            "set it to false, or remove the head",
        )


def _equal(checkpoint: Checkpoint) -> bool:
    one, two = checkpoint.tensors[_EMBEDDING], checkpoint.tensors[_HEAD]
    if (one.dtype, one.shape) != (two.dtype, two.shape):
        return False
    return all(a == b for a, b in zip(one.chunks(), two.chunks(), strict=True))


def vocabulary(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Compare `vocab_size` with the rows of the embedding."""
    size = checkpoint.text.get("vocab_size")
    for name in (_EMBEDDING, _HEAD):
        tensor = checkpoint.tensors.get(name)
        if tensor is not None and isinstance(size, int) and tensor.shape[0] != size:
            yield error(
                "vocabulary",
                name,
                f"has {tensor.shape[0]} rows, vocab_size is {size}",
                "take the configuration of the model whose weights these are",
            )
