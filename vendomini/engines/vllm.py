"""vLLM: how its server is started, and what it needs."""

import os
import re
from pathlib import Path

from vendomini.chat import Engine
from vendomini.engines.backend import Say
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
from vendomini.engines.memory import CpuCache, available_memory, cache_for, told
from vendomini.errors import ConfigError
from vendomini.serving import EngineSpec

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

    def open(self, spec: EngineSpec, *, log: Path, said: Say) -> Engine:
        from vendomini.engines.process import device_of, gpu_is_here

        is_open = spec.settings.kv_cache_memory_bytes is None
        if is_open and device_of(spec, has_gpu=gpu_is_here(os.environ)) == "cpu":
            available = available_memory()
            cache = cpu_cache(spec, available.bytes)
            said(f"[*] KV cache: {told(cache, available)}")
        return super().open(spec, log=log, said=said)

    def falls_back(self, cause: str) -> tuple[str, ...]:
        return (
            f"[WARNING] vLLM initialization failed: {cause}",
            "[*] Falling back to standard HuggingFace Transformers",
        )

    def command(self, spec: EngineSpec, *, device: KnownDevice, socket: Path, key: str) -> Command:
        """vLLM's own server, without the socket that it listens on."""
        settings, on_cpu = spec.settings, device == "cpu"
        ranks = (settings.tensor_parallel_size or 1) * (settings.pipeline_parallel_size or 1)
        kv_cache = settings.kv_cache_memory_bytes
        if on_cpu and kv_cache is None:
            kv_cache = cpu_cache(spec, available_memory().bytes).bytes // ranks
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


def cpu_cache(spec: EngineSpec, available: int) -> CpuCache:
    """What the KV cache on a CPU gets of the memory that is available, in bytes.

    Left to itself, vLLM takes nearly all of the machine's.
    """
    from vendomini.models.lookup import model_spec

    try:
        size = model_spec(spec.model, spec.revision)
    except ConfigError:  # of a model that only its engine can read
        size = None
    return cache_for(size, spec.settings, planned_as="vllm", available=available)


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
