"""One engine: as a phase file asks for it, and as a plan has decided it."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from vendomini.entrypoints import AUTO, ENGINES, Names

Device: TypeAlias = Literal["auto", "cuda", "cpu"]
Policy: TypeAlias = Literal["auto", "guide"]
OnFailure: TypeAlias = Literal["fallback", "fail"]

SCRIPTED = "scripted"
"""The backend of runs that are content with a script, where nothing else is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """How replies are computed: never part of a run's id, unless it is an axis of the grid.

    Lengths are in tokens. `None` leaves the choice to the planner or the engine.
    """

    backend: str = field(default=AUTO, metadata={"choices": Names(ENGINES)})
    policy: Policy = "auto"  # guide: the guide's table alone decides between vllm and hf
    dtype: str | None = None
    quantization: str | None = None
    gpu: str | None = None  # type of GPU, such as A100-80
    gpus: int | None = field(default=None, metadata={"ge": 1})  # of one engine
    tensor_parallel_size: int | None = field(default=None, metadata={"ge": 1})
    pipeline_parallel_size: int | None = field(default=None, metadata={"ge": 1})
    max_model_len: int | None = field(default=None, metadata={"ge": 1})
    concurrency: int | None = field(default=None, metadata={"ge": 1})  # most requests at a time
    device: Device = "auto"  # auto: cuda where a GPU is there, else cpu, and the worker says so
    gpu_memory_utilization: float | None = field(default=None, metadata={"gt": 0, "le": 1})
    kv_cache_memory_bytes: int | None = field(default=None, metadata={"ge": 1})
    block_size: int | None = field(default=None, metadata={"ge": 1})  # tokens a KV block
    enable_prefix_caching: bool = True
    enforce_eager: bool = False  # vllm: no graphs and no compilation
    attn_implementation: str | None = None  # hf: sdpa, flash_attention_2, eager
    reasoning_parser: str | None = None  # vllm, for thinking; None: by the model's name
    # Where it cannot start before the group's first reply: another takes its place, or the worker
    # ends. None: fail where the phase names a preregistration, else fallback.
    on_failure: OnFailure | None = None
    python: str | None = None  # interpreter of the engine's own environment
    container: str | None = None  # image the engine runs in, by apptainer
    base_url: str | None = None  # openai: such as http://127.0.0.1:8000/v1
    start_timeout_s: float = field(default=1800.0, metadata={"gt": 0})
    request_timeout_s: float = field(default=600.0, metadata={"gt": 0})
    script: str | None = None  # scripted engine: path of a recorded reply log
    latency_s: float = field(default=0.0, metadata={"ge": 0})  # scripted engine: seconds a reply


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """All that is needed to open one engine.

    `settings` are those of the phase file, with what they leave open decided: they are all there
    is of it, and are held by whatever passes them on. `model` is a hub id or a local folder.
    """

    settings: EngineSettings
    model: str
    revision: str | None = None  # None: the model's default branch
    thinking: bool = False  # whether requests will ask for thinking
    enable_expert_parallel: bool = False  # experts stay whole, each on one GPU

    @property
    def backend(self) -> str:
        return self.settings.backend

    @property
    def is_decided(self) -> bool:
        """Whether it can be opened: its backend is known."""
        return self.settings.backend != AUTO

    @property
    def gpus(self) -> int:
        """On all its nodes; 0: it runs on the CPU, or elsewhere."""
        return self.settings.gpus or 0
