"""How a model lies on GPUs, and what that takes: values only."""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from vendomini.hardware import GpuSpec

Backend: TypeAlias = Literal["vllm", "hf"]
"""Whose memory and speed a deployment has. Engines of others say which they are like."""

VLLM: Final = "vllm"
HF: Final = "hf"
BACKENDS: Final[tuple[Backend, ...]] = (VLLM, HF)
"""What `engine.backend: auto` chooses among."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One replica of a model: one engine on `tensor_parallel_size * pipeline_parallel_size` GPUs.

    With `hf` the layers are spread over `pipeline_parallel_size` GPUs, which work in turn.
    With `data_parallel_size` above 1 so many groups of these GPUs each hold the attention and
    what is not routed, and share the routed experts of one model among all of them.
    `max_model_len` is the longest conversation in tokens that has to fit.
    """

    backend: Backend
    gpu: GpuSpec
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    nodes: int = 1
    enable_expert_parallel: bool = False
    data_parallel_size: int = 1
    max_model_len: int
    dtype: str | None = None  # as asked for; None: what the model and the GPU make of it
    kv_cache_dtype: Literal["auto", "fp8"] = "auto"
    gpu_memory_utilization: float | None = None  # None: the engine's default
    max_num_seqs: int | None = None  # None, as the next: the engine's default on this GPU
    max_num_batched_tokens: int | None = None
    enforce_eager: bool = False
    flash_attention: bool = True  # hf: flash_attention_2 rather than sdpa or eager

    @property
    def gpus(self) -> int:
        return self.tensor_parallel_size * self.pipeline_parallel_size * self.data_parallel_size


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUse:
    """The memory of the fullest GPU of a deployment, in bytes.

    ``total = weights + activations + overhead + graphs + reserve + kv + free`` when it is not
    short: `reserve` is what the engine leaves alone, `overhead` the CUDA context and NCCL, `kv`
    what is left for the cache (negative: by how much the rest alone is too large).
    `kv_bytes_per_sequence` is what one conversation of `max_model_len` takes of it on that GPU;
    `margin` is ``kv - kv_bytes_per_sequence``, so negative where it does not fit.
    """

    total: int
    weights: int
    activations: int
    overhead: int
    graphs: int
    reserve: int
    kv: int
    kv_bytes_per_sequence: int

    @property
    def margin(self) -> int:
        return self.kv - self.kv_bytes_per_sequence

    @property
    def fits(self) -> bool:
        return self.margin >= 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What one replica does, in seconds and tokens a second.

    `step_s` is one decode step of the whole batch, so the time of each reply's next token;
    `decode_tokens_s` is of all sequences under way. `source` says whether it was computed or
    measured, and on what.
    """

    step_s: float
    decode_tokens_s: float
    prefill_tokens_s: float
    source: str
    is_measured: bool = False
