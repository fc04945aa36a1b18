"""GPUs: what each has. Facts only; what they permit an engine is in `planner.gates`.

The numbers are data (`data/gpus.toml`), each with its source.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Vendor: TypeAlias = Literal["nvidia", "amd", "cpu"]

GIB = 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSpec:
    """One type of GPU.

    `memory_gib` is what a process sees as its total (``torch.cuda.mem_get_info``), less than the
    figure in the name. `bandwidth_gb_s` is the memory's, `link_gb_s` that between two GPUs of one
    node in each direction, both in 10**9 bytes a second; `tflops` are dense 16-bit, in 10**12
    operations a second. `compute_capability` is NVIDIA's, such as 8.0; None: it has none.
    """

    name: str
    vendor: Vendor = "nvidia"
    compute_capability: float | None
    memory_gib: float
    bandwidth_gb_s: float
    tflops: float
    fp8_tflops: float | None = None  # None, as the next: no such units
    fp4_tflops: float | None = None
    link_gb_s: float
    has_nvlink: bool = False  # or the like: a link that tensor parallelism may use freely
    gpus_per_node: int = 8  # as it is usually built in
    aliases: tuple[str, ...] = ()
    source: str = ""

    @property
    def memory_bytes(self) -> int:
        return int(self.memory_gib * GIB)
