"""transformers, behind a server of ours: how it is started, and what it needs. Loads no torch."""

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


class Transformers(OwnServer):
    """Spreads a model's layers over its GPUs by itself, which then compute in turn."""

    takes = ON_OWN_PROCESS | {"attn_implementation", "enable_prefix_caching"}
    planned_as = "hf"
    dialect = "hf"
    packages = ("torch", "transformers", "xgrammar", "vendomini")
    install = 'pip install "vendomini[hf]"'

    def instead(self, setting: str) -> str | None:
        if setting not in ("tensor_parallel_size", "pipeline_parallel_size"):
            return None
        return (
            "remove it: `hf` spreads a model's layers over its GPUs by itself; "
            "or use engine.backend=vllm"
        )

    def stages(self, spec: EngineSpec) -> int:
        return max(spec.gpus, 1)

    def command(self, spec: EngineSpec, *, device: KnownDevice, socket: Path, key: str) -> Command:
        """Our own server, without the socket that it listens on."""
        options: dict[str, object] = {
            "--model": model_of(spec),
            "--served-model-name": SERVED_NAME,
            "--revision": spec.revision,
            "--device": device,
            "--dtype": spec.settings.dtype,
            "--quantization": spec.settings.quantization,
            "--attn-implementation": spec.settings.attn_implementation,
            "--max-model-len": spec.settings.max_model_len,
            "--kv-cache-memory-bytes": spec.settings.kv_cache_memory_bytes,
            "--max-num-seqs": spec.settings.concurrency or MOST_SEQUENCES,
            "--gpus": spec.gpus or None,
        }
        flags = [] if spec.settings.enable_prefix_caching else ["--no-enable-prefix-caching"]
        argv = (python_of(spec), "-m", "vendomini.engines.hf", *written(options), *flags)
        return Command(argv=argv, environment={"VENDOMINI_API_KEY": key})
