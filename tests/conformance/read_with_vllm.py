"""Says how vLLM's configuration classes read checkpoints: JSON on the last line, by folder.

An answer is the class that is chosen and the compute capability it needs, or the refusal.
"""

import json
import sys
from pathlib import Path
from typing import Any


def _nothing(*_: object, **__: object) -> None:
    pass


def main(folders: list[str]) -> None:
    import vllm  # type: ignore[import-not-found]  # an environment of its own
    from vllm.config import (  # type: ignore[import-not-found]
        DeviceConfig,
        VllmConfig,
        set_current_vllm_config,
    )
    from vllm.model_executor.layers.quantization import modelopt  # type: ignore[import-not-found]
    from vllm.model_executor.layers.quantization.compressed_tensors import (  # type: ignore[import-not-found]
        compressed_tensors,
    )

    # these choose a kernel when they are made, which needs a GPU: only the choice is recorded
    for name in ("CompressedTensorsW8A8Fp8", "CompressedTensorsW4A4Fp4"):
        kind = getattr(compressed_tensors, name)
        members = {"__init__": _nothing, "get_min_capability": kind.get_min_capability}
        setattr(compressed_tensors, name, type(name, (), members))

    def compressed(config: dict[str, Any]) -> str:
        read = compressed_tensors.CompressedTensorsConfig.from_config(config)
        (scheme,) = read.target_scheme_map.values()
        # without a GPU: which scheme would be taken on one that can do everything
        read._check_scheme_supported = lambda *_, **__: True
        with set_current_vllm_config(VllmConfig(device_config=DeviceConfig("cpu"))):
            made = read._get_scheme_from_parts(
                scheme["weights"], scheme["input_activations"], format=scheme.get("format")
            )
        return f"{type(made).__name__} {made.get_min_capability()}"

    def optimized(config: dict[str, Any]) -> str:
        algorithm = config["quantization"]["quant_algo"]
        kind = modelopt.ModelOptNvFp4Config if "FP4" in algorithm else modelopt.ModelOptFp8Config
        return f"{type(kind.from_config(config)).__name__} {kind.get_min_capability()}"

    found = {}
    for folder in folders:
        config = json.loads((Path(folder) / "config.json").read_text())["quantization_config"]
        try:
            if config["quant_method"] == "modelopt":
                file = json.loads((Path(folder) / "hf_quant_config.json").read_text())
                found[folder] = optimized(file)
            else:
                found[folder] = compressed(config)
        except Exception as problem:  # noqa: BLE001 - whatever it is, it is the answer
            found[folder] = f"refused: {type(problem).__name__}: {problem}"
    sys.stdout.write("\n" + json.dumps({"version": vllm.__version__, "schemes": found}))


if __name__ == "__main__":
    main(sys.argv[1:])
