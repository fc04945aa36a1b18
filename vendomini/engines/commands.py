"""How an engine's process is started: the words of its command line. Pure.

Keys go by the environment: a command line can be read by everyone on the machine.
"""

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from vendomini.chat import EngineSpec
from vendomini.errors import EngineError
from vendomini.identity import absolute, is_local

KnownDevice: TypeAlias = Literal["cuda", "cpu"]

SERVED_NAME = "model"
"""What a server of ours calls its model in every request."""

CPU_KV_CACHE_BYTES = 1 << 30
"""Left to itself, vLLM on a CPU takes nearly all of the machine's memory."""

CPU_BLOCK_TOKENS = 32
"""vLLM's smallest on a CPU. Its default of 128 finds no shared prefix shorter than that."""

CPU_BATCH_TOKENS = 8192
"""Tokens computed in one step at most, where the window is no longer than that."""

MOST_SEQUENCES = 256
"""Running at once where nobody says; more wait in the engine's queue."""


PARSERS = {
    "qwen3": "qwen3",
    "gpt-oss": "openai_gptoss",
    "granite": "granite",
    "olmo-3": "olmo3",
    "deepseek-v3": "deepseek_v3",
}
"""vLLM's reasoning parsers by a part of the model's name, where its thoughts are marked apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """`environment` is added to the worker's own."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]


def engine_command(
    spec: EngineSpec,
    *,
    device: KnownDevice,
    socket: Path,
    key: str,
    is_cached: bool = False,
    cpus: str | None = None,
) -> Command:
    """How to start the server of a `vllm` or `hf` spec, which will listen on `socket`.

    `is_cached`: all of a hub's model is on this machine, so the hub need not be asked for it;
    nodes of a cluster often cannot. `cpus`: how many the job was given; None: outside one.
    Raises `EngineError` if a container is asked for and nothing here can run one.
    """
    command = _vllm(spec, device, socket, key) if spec.backend == "vllm" else _hf(spec, device, key)
    argv = (*command.argv, "--uds", str(socket))
    # Sockets and files that servers leave in a temporary folder go with ours.
    environment = {**command.environment, "TMPDIR": str(socket.parent)}
    if device == "cpu" and cpus is not None:
        # Where a site does not bind jobs to their CPUs, torch would take the whole node.
        environment["OMP_NUM_THREADS"] = cpus
    if is_cached or is_local(spec.model):
        environment["HF_HUB_OFFLINE"] = "1"
    if spec.container is not None:
        argv = (*_container(spec, device, socket), *argv)
    return Command(argv=argv, environment=environment)


def _vllm(spec: EngineSpec, device: KnownDevice, socket: Path, key: str) -> Command:
    on_cpu = device == "cpu"
    kv_cache = spec.kv_cache_memory_bytes or (CPU_KV_CACHE_BYTES if on_cpu else None)
    options: dict[str, object] = {
        "--model": _model(spec),
        "--served-model-name": SERVED_NAME,
        "--revision": spec.revision,
        "--dtype": spec.dtype,
        "--quantization": spec.quantization,
        "--tensor-parallel-size": spec.tensor_parallel_size,
        "--pipeline-parallel-size": spec.pipeline_parallel_size,
        "--max-model-len": spec.max_model_len,
        "--gpu-memory-utilization": spec.gpu_memory_utilization,
        "--kv-cache-memory-bytes": kv_cache,
        "--block-size": spec.block_size or (CPU_BLOCK_TOKENS if on_cpu else None),
        "--max-num-seqs": spec.concurrency or MOST_SEQUENCES,
        "--max-num-batched-tokens": _cpu_batch_tokens(spec) if on_cpu else None,
        # Sampling is the phase's: not what the model's own generation_config.json suggests.
        "--generation-config": "vllm",
        "--reasoning-parser": reasoning_parser(spec) if spec.thinking else None,
        # The same grammars as the hf engine's; white space without end would never close a reply.
        "--structured-outputs-config.backend": "xgrammar",
        "--structured-outputs-config.disable_any_whitespace": "true",
        "--uvicorn-log-level": "warning",
        "--seed": 0,
    }
    flags = [
        "--enable-prefix-caching" if spec.enable_prefix_caching else "--no-enable-prefix-caching",
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
    if spec.enforce_eager or on_cpu:
        flags.append("--enforce-eager")
    if on_cpu:
        # vLLM 0.32 dies of the first seeded request whose prompt it splits on a CPU ("CPU
        # Generator does not use offset"): none is split.
        flags.append("--no-enable-chunked-prefill")
        # Compiling its sampling operations makes the first request wait for many seconds.
        environment["TORCH_COMPILE_DISABLE"] = "1"
        ranks = spec.tensor_parallel_size * spec.pipeline_parallel_size
        if ranks > 1:
            environment["VLLM_CPU_OMP_THREADS_BIND"] = "|".join(str(rank) for rank in range(ranks))
    argv = (_python(spec), "-m", "vllm.entrypoints.openai.api_server", *_written(options), *flags)
    return Command(argv=argv, environment=environment)


def _cpu_batch_tokens(spec: EngineSpec) -> int | None:
    """Enough for the longest prompt in one piece; None: vLLM knows the model's window itself."""
    return None if spec.max_model_len is None else max(spec.max_model_len, CPU_BATCH_TOKENS)


def reasoning_parser(spec: EngineSpec) -> str:
    """vLLM's name for the way a model marks its thoughts. Only after them does a schema apply.

    Most models that think mark them as DeepSeek R1 does: ``<think>...</think>``.
    """
    if spec.reasoning_parser is not None:
        return spec.reasoning_parser
    name = spec.model.lower()
    return next((parser for part, parser in PARSERS.items() if part in name), "deepseek_r1")


def _hf(spec: EngineSpec, device: KnownDevice, key: str) -> Command:
    options: dict[str, object] = {
        "--model": _model(spec),
        "--served-model-name": SERVED_NAME,
        "--revision": spec.revision,
        "--device": device,
        "--dtype": spec.dtype,
        "--quantization": spec.quantization,
        "--attn-implementation": spec.attn_implementation,
        "--max-model-len": spec.max_model_len,
        "--kv-cache-memory-bytes": spec.kv_cache_memory_bytes,
        "--max-num-seqs": spec.concurrency or MOST_SEQUENCES,
        "--gpus": spec.gpus or None,
    }
    argv = (_python(spec), "-m", "vendomini.engines.hf", *_written(options))
    return Command(argv=argv, environment={"VENDOMINI_API_KEY": key})


def _written(options: Mapping[str, object]) -> list[str]:
    return [
        word for name, value in options.items() if value is not None for word in (name, str(value))
    ]


def _model(spec: EngineSpec) -> str:
    return absolute(spec.model) if is_local(spec.model) else spec.model


def _python(spec: EngineSpec) -> str:
    if spec.container is not None:
        return spec.python or "python3"
    return sys.executable if spec.python is None else absolute(spec.python)


def _container(spec: EngineSpec, device: KnownDevice, socket: Path) -> list[str]:
    """Run the rest inside an image, by whichever of the two clones is installed."""
    program = shutil.which("apptainer") or shutil.which("singularity")
    if program is None:
        raise EngineError(
            f"the engine's container `{spec.container}` needs apptainer or singularity, and "
            "neither is on PATH here",
            hint="load its module in the job, or use `engine.python` instead",
        )
    folders = [str(socket.parent)]
    if is_local(spec.model):
        folders.append(absolute(spec.model))
    gpus = ["--nv"] if device == "cuda" else []
    assert spec.container is not None
    return [program, "exec", *gpus, "--bind", ",".join(folders), spec.container]
