"""vLLM: how its server is started, and what it needs."""

import re
from pathlib import Path

from vendomini.engines.commands import (
    MOST_SEQUENCES,
    ON_OWN_PROCESS,
    SERVED_NAME,
    Command,
    KnownDevice,
    OwnServer,
    model_of,
    python_of,
    written,
)
from vendomini.serving import EngineSpec

CPU_KV_CACHE_BYTES = 1 << 30
"""Left to itself, vLLM on a CPU takes nearly all of the machine's memory."""

CPU_BLOCK_TOKENS = 32
"""vLLM's smallest on a CPU. Its default of 128 finds no shared prefix shorter than that."""

CPU_BATCH_TOKENS = 8192
"""Tokens computed in one step at most, where the window is no longer than that."""

PARSERS = {
    "qwen3": "qwen3",
    "gpt-oss": "openai_gptoss",
    "granite": "granite",
    "olmo-3": "olmo3",
    "deepseek-v3": "deepseek_v3",
}
"""vLLM's reasoning parsers by a part of the model's name, where its thoughts are marked apart."""


class VLLM(OwnServer):
    """An environment of its own, usually: vLLM wants its own versions of everything."""

    takes = ON_OWN_PROCESS | {
        "tensor_parallel_size",
        "pipeline_parallel_size",
        "gpu_memory_utilization",
        "block_size",
        "enable_prefix_caching",
        "enforce_eager",
        "reasoning_parser",
    }
    planned_as = "vllm"
    dialect = "vllm"
    loading = "[*] Loading model with vLLM (optimized inference)"
    loaded = "[*] vLLM initialized successfully"
    says_attention = re.compile(r"Using (\w+)(?: attention)? backend out of potential backends")
    fallback = "hf"
    packages = ("vllm",)
    install = (
        "give vLLM an environment of its own, `pip install vllm` there, and name its "
        "interpreter with engine.python=PATH"
    )

    def falls_back(self, cause: str) -> tuple[str, ...]:
        return (
            f"[WARNING] vLLM initialization failed: {cause}",
            "[*] Falling back to standard HuggingFace Transformers",
        )

    def command(self, spec: EngineSpec, *, device: KnownDevice, socket: Path, key: str) -> Command:
        """vLLM's own server, without the socket that it listens on."""
        settings, on_cpu = spec.settings, device == "cpu"
        kv_cache = settings.kv_cache_memory_bytes or (CPU_KV_CACHE_BYTES if on_cpu else None)
        options: dict[str, object] = {
            "--model": model_of(spec),
            "--served-model-name": SERVED_NAME,
            "--revision": spec.revision,
            "--dtype": settings.dtype,
            "--quantization": settings.quantization,
            "--tensor-parallel-size": settings.tensor_parallel_size or 1,
            "--pipeline-parallel-size": settings.pipeline_parallel_size or 1,
            "--max-model-len": settings.max_model_len,
            "--gpu-memory-utilization": settings.gpu_memory_utilization,
            "--kv-cache-memory-bytes": kv_cache,
            "--block-size": settings.block_size or (CPU_BLOCK_TOKENS if on_cpu else None),
            "--max-num-seqs": settings.concurrency or MOST_SEQUENCES,
            "--max-num-batched-tokens": _cpu_batch_tokens(spec) if on_cpu else None,
            # Sampling is the phase's: not what the model's own generation_config.json suggests.
            "--generation-config": "vllm",
            "--reasoning-parser": reasoning_parser(spec) if spec.thinking else None,
            # The same grammars as the hf engine's; white space without end would never close a
            # reply.
            "--structured-outputs-config.backend": "xgrammar",
            "--structured-outputs-config.disable_any_whitespace": "true",
            "--uvicorn-log-level": "warning",
            "--seed": 0,
        }
        flags = [
            "--enable-prefix-caching"
            if settings.enable_prefix_caching
            else "--no-enable-prefix-caching",
            "--enable-prompt-tokens-details",
        ]
        environment = {
            "VLLM_API_KEY": key,
            "VLLM_RPC_BASE_PATH": str(socket.parent),
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
        }
        if spec.enable_expert_parallel:
            flags.append("--enable-expert-parallel")
        if settings.enforce_eager or on_cpu:
            flags.append("--enforce-eager")
        if on_cpu:
            # vLLM 0.32 dies of the first seeded request whose prompt it splits on a CPU ("CPU
            # Generator does not use offset"): none is split.
            flags.append("--no-enable-chunked-prefill")
            # Compiling its sampling operations makes the first request wait for many seconds.
            environment["TORCH_COMPILE_DISABLE"] = "1"
            ranks = (settings.tensor_parallel_size or 1) * (settings.pipeline_parallel_size or 1)
            if ranks > 1:
                environment["VLLM_CPU_OMP_THREADS_BIND"] = "|".join(
                    str(rank) for rank in range(ranks)
                )
        argv = (
            python_of(spec),
            "-m",
            "vllm.entrypoints.openai.api_server",
            *written(options),
            *flags,
        )
        return Command(argv=argv, environment=environment)


def _cpu_batch_tokens(spec: EngineSpec) -> int | None:
    """Enough for the longest prompt in one piece; None: vLLM knows the model's window itself."""
    return (
        None
        if spec.settings.max_model_len is None
        else max(spec.settings.max_model_len, CPU_BATCH_TOKENS)
    )


def reasoning_parser(spec: EngineSpec) -> str:
    """vLLM's name for the way a model marks its thoughts. Only after them does a schema apply.

    Most models that think mark them as DeepSeek R1 does: ``<think>...</think>``.
    """
    if spec.settings.reasoning_parser is not None:
        return spec.settings.reasoning_parser
    name = spec.model.lower()
    return next((parser for part, parser in PARSERS.items() if part in name), "deepseek_r1")
