"""quantize.py, trtllm-build, trtllm-serve and nvidia-smi that keep their contracts without a GPU.

Their options are those that TensorRT-LLM documents, unknown ones are refused as argparse does,
and files have the names and keys of the real ones. `FAKE_TRTLLM` in the environment makes them
misbehave: `crash`, `kill`, `full`, `hang`, `lie`, each optionally as `BEHAVIOUR:PROGRAM`. What is
served, `tests.fakes.trtllm_serve` says.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from components.trtllm.documented import BUILD, QFORMATS, QUANTIZE, SERVE
from tests.fakes.trtllm_serve import serve

H100 = "NVIDIA H100 80GB HBM3, 9.0, 580.65.06"
_ENV = os.environ  # noqa: TID251 - a process of its own
_ALGORITHMS = {
    "fp8": "FP8",
    "int4_awq": "W4A16_AWQ",
    "w4a8_awq": "W4A8_AWQ",
    "nvfp4": "NVFP4",
    "full_prec": None,
}


def install(folder: Path) -> dict[str, str]:
    """Put the programs into a folder; returns the environment that finds them.

    `<folder>/examples` is what `Places.examples` must be, `<folder>/ran` has a line per command.
    """
    programs = folder / "bin"
    scripts = folder / "examples" / "quantization"
    programs.mkdir(parents=True)
    scripts.mkdir(parents=True)
    names = ("trtllm-build", "trtllm-serve", "nvidia-smi")
    for path in (*(programs / name for name in names), scripts / "quantize.py"):
        path.write_text(
            f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(_ROOT)!r})\n"
            f"from tests.fakes import trtllm\ntrtllm.main({path.stem!r}, {str(folder)!r})\n"
        )
        path.chmod(0o755)
    return {"PATH": f"{programs}:/usr/bin:/bin", "FAKE_GPUS": H100}


_ROOT = Path(__file__).resolve().parents[2]


def main(program: str, folder: str) -> None:
    """Be one of the programs."""
    if program == "nvidia-smi":
        sys.stdout.write(_ENV["FAKE_GPUS"] + "\n")
        return
    with (Path(folder) / "ran").open("a") as ran:
        ran.write(f"{program} {os.getpid()}\n")
    behaviour, _, whose = _ENV.get("FAKE_TRTLLM", "").partition(":")
    behaviour = behaviour if whose in ("", program) else ""
    match program:
        case "quantize":
            _quantize(_options(sys.argv[1:], QUANTIZE.names), behaviour)
        case "trtllm-build":
            _build(_options(sys.argv[1:], BUILD.names), behaviour)
        case _:
            serve(Path(sys.argv[1]), _options(sys.argv[2:], SERVE.names), behaviour)


def _options(words: list[str], documented: frozenset[str]) -> dict[str, str]:
    found = dict(zip(words[::2], words[1::2], strict=True))
    if unknown := found.keys() - documented:
        sys.exit(f"error: unrecognized arguments: {' '.join(sorted(unknown))}")
    return {name.removeprefix("--"): value for name, value in found.items()}


def _quantize(options: dict[str, str], behaviour: str) -> None:
    if options["qformat"] not in QFORMATS:
        sys.exit(f"error: argument --qformat: invalid choice: {options['qformat']!r}")
    parent, target = Path(options["model_dir"]), Path(options["output_dir"])
    model = json.loads((parent / "config.json").read_text())
    quantization = {
        "quant_algo": _ALGORITHMS[options["qformat"]],
        "kv_cache_quant_algo": "FP8" if options.get("kv_cache_dtype") == "fp8" else None,
    }
    target.mkdir(parents=True, exist_ok=True)
    _say("Inserted 147 quantizers")
    if options["export_format"] == "hf":
        _write(target / "model.safetensors", b"\x08" * 4096, behaviour)
        _dump(target / "config.json", model)
        _dump(target / "hf_quant_config.json", {"quantization": quantization})
        return
    mapping = {"tp_size": int(options["tp_size"]), "pp_size": int(options["pp_size"])}
    for rank in range(mapping["tp_size"] * mapping["pp_size"]):
        _write(target / f"rank{rank}.safetensors", bytes([rank]) * 4096, behaviour)
    pretrained = _pretrained(model, options, mapping, quantization)
    _dump(target / "config.json", pretrained)


def _pretrained(
    model: dict[str, Any],
    options: dict[str, str],
    mapping: dict[str, int],
    quantization: dict[str, Any],
) -> dict[str, Any]:
    same = ("hidden_size", "num_attention_heads", "num_key_value_heads", "num_hidden_layers")
    return {
        "architecture": model["architectures"][0],
        "dtype": options["dtype"],
        **{name: model[name] for name in same},
        "mapping": {"world_size": mapping["tp_size"] * mapping["pp_size"], **mapping},
        "quantization": quantization,
    }


def _build(options: dict[str, str], behaviour: str) -> None:
    source, target = Path(options["checkpoint_dir"]), Path(options["output_dir"])
    pretrained = json.loads((source / "config.json").read_text())
    target.mkdir(parents=True, exist_ok=True)
    for rank in range(pretrained["mapping"]["world_size"]):
        _say(f"[TRT-LLM] [I] Total time of building Unnamed Network {rank}")
        _write(target / f"rank{rank}.engine", bytes([rank]) * 8192, behaviour)
    sizes = ("max_batch_size", "max_input_len", "max_seq_len", "max_num_tokens", "max_beam_width")
    if behaviour == "lie":
        options["max_seq_len"] = "128"
    plugins = {name: value for name, value in options.items() if name.endswith(("plugin", "fmha"))}
    built: dict[str, Any] = {name: int(options[name]) for name in sizes}
    built |= {"kv_cache_type": options["kv_cache_type"].upper(), "plugin_config": plugins}
    body = {"version": "1.2.1", "pretrained_config": pretrained, "build_config": built}
    _dump(target / "config.json", body)


def _write(path: Path, content: bytes, behaviour: str) -> None:
    path.write_bytes(content[: len(content) // 2])
    match behaviour:
        case "crash":
            _say(f"using token {_ENV.get('HF_TOKEN', '')}")
            raise RuntimeError("[TRT-LLM] [E] Engine building failed, please check error log.")
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "full":
            _say("OSError: [Errno 28] No space left on device")
            sys.exit(1)
        case "hang":
            _say("building")
            threading.Event().wait(60)
        case _:
            pass
    path.write_bytes(content)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _dump(path: Path, body: dict[str, Any]) -> None:
    path.write_text(json.dumps(body, indent=1))
