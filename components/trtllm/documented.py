"""Names of options and keys as TensorRT-LLM documents them; every name we write is one of these.

NVIDIA/TensorRT-LLM, read at the commits named below. The tag v1.2.1 itself could not be read: a
name counts as known for 1.2 and 1.3 when sources from before and after the release agree on it.
Only names were taken.
"""

from __future__ import annotations

from dataclasses import dataclass

from serving.runtimes.known import known


@dataclass(frozen=True, slots=True)
class Documented:
    """The options of one program, or the keys of one document."""

    source: str
    """File and commit in NVIDIA/TensorRT-LLM."""

    names: frozenset[str]


def _names(text: str, prefix: str = "") -> frozenset[str]:
    return frozenset(prefix + word for word in text.split())


BUILD = Documented(
    "tensorrt_llm/commands/build.py @65f1d15; cli_plugin_args of tensorrt_llm/plugin/plugin.py, "
    "pydantic version (the same list stands in the dataclass version before it)",
    _names(
        "checkpoint_dir model_config build_config model_cls_file model_cls_name output_dir "
        "max_batch_size max_input_len max_seq_len max_decoder_seq_len max_beam_width "
        "max_num_tokens opt_num_tokens max_encoder_input_len max_prompt_embedding_table_size "
        "max_multimodal_len kv_cache_type paged_kv_cache input_timing_cache output_timing_cache "
        "profiling_verbosity strip_plan weight_sparsity weight_streaming fast_build workers "
        "log_level enable_debug_output visualize_network dry_run monitor_memory logits_dtype "
        "gather_context_logits gather_generation_logits gather_all_token_logits lora_dir "
        "lora_ckpt_source lora_target_modules max_lora_rank speculative_decoding_mode "
        "max_draft_len "
        "bert_attention_plugin gpt_attention_plugin gemm_plugin gemm_swiglu_plugin "
        "fp8_rowwise_gemm_plugin lora_plugin dora_plugin moe_plugin mamba_conv1d_plugin "
        "nccl_plugin low_latency_gemm_plugin low_latency_gemm_swiglu_plugin "
        "gemm_allreduce_plugin context_fmha bert_context_fmha_fp32_acc remove_input_padding "
        "tokens_per_block use_paged_context_fmha use_fp8_context_fmha fuse_fp4_quant "
        "multiple_profiles paged_state streamingllm norm_quant_fusion reduce_fusion user_buffer "
        "use_fused_mlp pp_reduce_scatter",
        "--",
    ),
)

QUANTIZE = Documented(
    "examples/quantization/quantize.py @059c97c",
    _names(
        "model_dir nemo_ckpt_path decoder_type device device_map calib_dataset calib_tp_size "
        "calib_pp_size dtype qformat seed tokenizer_max_seq_length batch_size calib_size "
        "calib_max_seq_length output_dir tp_size pp_size cp_size awq_block_size kv_cache_dtype "
        "quantize_lm_head num_medusa_heads num_medusa_layers max_draft_len medusa_hidden_act "
        "medusa_model_dir quant_medusa_head autoq_format auto_quantize_bits export_format",
        "--",
    ),
)
QFORMATS = _names("nvfp4 fp8 int8_sq int4_awq w4a8_awq int8_wo int4_wo full_prec")
"""Values of `--qformat`, from the same file."""

_KNOWN = known("trtllm-serve-1.2")
SERVE = Documented(_KNOWN.source, frozenset(_KNOWN.spellings))

_BASE = (
    "tokenizer tokenizer_mode trust_remote_code tensor_parallel_size pipeline_parallel_size "
    "gpus_per_node kv_cache_config enable_chunked_prefill guided_decoding_backend "
    "iter_stats_max_iterations scheduler_config speculative_config max_batch_size max_input_len "
    "max_seq_len max_beam_width max_num_tokens gather_generation_logits num_postprocess_workers "
    "postprocess_tokenizer_dir reasoning_parser return_perf_metrics"
)
_LLM_ARGS = (
    "tensorrt_llm/llmapi/llm_args.py of late 2025 (unknown keys are refused there: extra=forbid)"
)
TORCH_ARGS = Documented(
    f"{_LLM_ARGS}, TorchLlmArgs with BaseLlmArgs",
    _names(
        f"{_BASE} cuda_graph_config attention_dp_config disable_overlap_scheduler moe_config "
        "attn_backend sampler_type enable_iter_perf_stats enable_iter_req_stats print_iter_log "
        "torch_compile_config enable_autotuner load_format stream_interval allreduce_strategy"
    ),
)
TRT_ARGS = Documented(
    f"{_LLM_ARGS}, TrtLlmArgs with BaseLlmArgs",
    _names(
        f"{_BASE} enable_tqdm workspace enable_build_cache extended_runtime_perf_knob_config "
        "calib_config quant_config embedding_parallel_mode fast_build build_config batching_type "
        "normalize_log_probs"
    ),
)
KV_CACHE = Documented(
    f"{_LLM_ARGS}, KvCacheConfig; `dtype` only with the PyTorch backend",
    _names(
        "enable_block_reuse max_tokens max_attention_window sink_token_length "
        "free_gpu_memory_fraction host_cache_size onboard_blocks cross_kv_cache_fraction "
        "secondary_offload_min_priority event_buffer_max_size enable_partial_reuse "
        "copy_on_partial_reuse use_uvm max_gpu_total_bytes dtype tokens_per_block"
    ),
)

LAST_WITH_ENGINES = (1, 2)
"""`docs/source/legacy/tensorrt-backend-removal.md @335107a`: trtllm-build is gone from 1.3 on."""

KNOWN_LINES = frozenset({(1, 2), (1, 3)})
"""Release lines whose names stand above."""

ENGINE_IMAGE = "nvcr.io/nvidia/tensorrt-llm/release:1.2.1"
"""The newest release that still builds engines."""

CUDA = 13
"""Major version of CUDA in the images of 1.2 and 1.3."""
