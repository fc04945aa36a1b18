"""GPUs: what each has. Facts only; what they permit an engine is in `planner.gates`.

The numbers are data (`data/gpus.toml`), each with its source.
"""

import difflib
import functools
import re
import tomllib
from dataclasses import dataclass, fields
from importlib import resources
from typing import Any, Literal, NoReturn, TypeAlias

from vendomini.errors import ConfigError

Vendor: TypeAlias = Literal["nvidia", "amd", "cpu"]

GIB = 1024**3
MIB_PER_GIB = 1024

# nvidia-smi counts what the driver keeps for itself, 0.5 to 5 % of the table's cards; what a card
# hides beyond that makes it another one: a virtual GPU, or a variant nobody listed.
DRIVER_SHARE = 0.015
LARGEST_DRIVER_SHARE = 0.08

MIG = re.compile(r"\b(\d+c\.)?\d+g[._]\d+gb\b|\bmig\b")
_WORDS = re.compile(r"[a-z0-9.]+")
# Makers, families and kinds of memory: they tell no two GPUs of the table apart.
_NOISE = frozenset({
    "nvidia", "amd", "radeon", "tesla", "geforce", "instinct", "corporation", "gpu", "graphics",
    "card", "oam", "vf", "hbm2", "hbm2e", "hbm3", "hbm3e", "generation",
})  # fmt: skip
_FORMS = re.compile(r"(sxm|pcie|pci|nvl)\d?")
_MEMORY = re.compile(r"^(\d+)g$|(\d)gi?b$")  # 80G, 80GB; not A10G
_FORM_NAMES = {"pci": "pcie"}


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
    gfx: str | None = None  # AMD's name for what its compilers aim at, such as gfx942
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


def known_gpus() -> tuple[GpuSpec, ...]:
    """Every GPU of the table, older ones first."""
    return _table().gpus


USUAL = ("L40S", "A100-80", "H100", "H200")
"""What most clusters have: who names no GPU is told of these."""

NEAREST = 3


def gpu_named(name: str) -> GpuSpec:
    """The GPU that a person means by `name`: case, separators, makers and ``GB`` do not matter.

    Raises `ConfigError` with the choices where the name fits several (`A100`), is a slice of
    one (MIG), or is unknown.
    """
    table = _table()
    found = table.by_key.get(_key(name))
    if found is not None:
        return found
    several = ambiguous(name)
    if several:
        sizes = ", ".join(f"{gpu.name} ({gpu.memory_gib:g} GiB)" for gpu in several)
        raise ConfigError(f"GPU `{name}` may be one of several", hint=f"name one: {sizes}")
    if is_slice(name):
        raise ConfigError(
            f"GPU `{name}` is a slice of one (MIG), and an engine is planned on whole GPUs",
            hint="name the whole GPU, or plan for one that is not divided",
        )
    _refuse_unknown(name)


def ambiguous(name: str) -> tuple[GpuSpec, ...]:
    """The GPUs that `name` may mean, the smallest first; empty where it means one, or none."""
    key = _key(name)
    return () if key in _table().by_key else _table().families.get(key, ())


def is_slice(name: str) -> bool:
    """Whether a site's or driver's name is of a part of a GPU (MIG), such as ``a100_1g.10gb``."""
    return MIG.search(name.lower().replace("_", " ")) is not None


def gpu_of_site(name: str, memory_mib: int | None = None) -> GpuSpec | None:
    """The GPU behind a Slurm type (``nvidia_a100-sxm4-80gb``) or nvidia-smi's name; None: unknown.

    `memory_mib`, nvidia-smi's total, decides between variants. Without it a name that fits
    several means the smallest of them: ask `ambiguous` whether that was so. A slice (MIG) is None,
    and so is a GPU whose memory is not that of any it may be.
    """
    if is_slice(name):
        return None
    table, key = _table(), _key(name)
    own = table.by_key.get(key)
    family = table.families.get(key, ())
    if memory_mib is None:
        return own or (family[0] if family else None)
    fitting = [
        gpu for gpu in dict.fromkeys([*([own] if own else []), *family]) if _has(gpu, memory_mib)
    ]
    return min(fitting, key=lambda gpu: _distance(gpu, memory_mib), default=None)


def usable_gib(memory_mib: int) -> float:
    """About what a process sees of a GPU for which nvidia-smi prints `memory_mib`, in GiB."""
    return memory_mib / MIB_PER_GIB * (1 - DRIVER_SHARE)


def _has(gpu: GpuSpec, memory_mib: int) -> bool:
    share = 1 - gpu.memory_gib * MIB_PER_GIB / memory_mib
    # ECC takes a sixteenth of a card with GDDR6; the table has some cards without.
    return -LARGEST_DRIVER_SHARE <= share <= LARGEST_DRIVER_SHARE


def _distance(gpu: GpuSpec, memory_mib: int) -> float:
    return abs(usable_gib(memory_mib) - gpu.memory_gib)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    gpus: tuple[GpuSpec, ...]
    by_key: dict[str, GpuSpec]
    families: dict[str, tuple[GpuSpec, ...]]


@functools.cache
def _table() -> _Table:
    text = resources.files("vendomini").joinpath("data/gpus.toml").read_text(encoding="utf-8")
    data = tomllib.loads(text)
    gpus = tuple(_spec(entry) for entry in data["gpu"])
    by_key: dict[str, GpuSpec] = {}
    for gpu in gpus:
        for name in (gpu.name, *gpu.aliases):
            other = by_key.setdefault(_key(name), gpu)
            assert other is gpu, f"`{name}` is an alias of {other.name} and of {gpu.name}"
    families = {
        _key(name): tuple(sorted((by_key[_key(n)] for n in names), key=lambda g: g.memory_gib))
        for name, names in data["families"].items()
    }
    return _Table(gpus=gpus, by_key=by_key, families=families)


def _spec(entry: dict[str, Any]) -> GpuSpec:
    assert entry.keys() <= {field.name for field in fields(GpuSpec)}, entry
    aliases = tuple(entry.pop("aliases"))
    return GpuSpec(**{"compute_capability": None, **entry}, aliases=aliases)


def _key(name: str) -> str:
    """What tells a GPU's name from others: ``NVIDIA A100-SXM4-80GB`` is ``a10080+sxm``."""
    text = name.strip().lower().removeprefix("gres/").removeprefix("gpu:")
    text = re.sub(r":\d+$", "", text)  # gpu:a100:4
    words = [word for word in _WORDS.findall(text) if word not in _NOISE]
    forms = sorted(
        _FORM_NAMES.get(match[1], match[1]) for word in words if (match := _FORMS.fullmatch(word))
    )
    rest = [_MEMORY.sub(r"\1\2", word) for word in words if not _FORMS.fullmatch(word)]
    return "+".join(["".join(rest), *forms])


def _refuse_unknown(name: str) -> NoReturn:
    keys = _table().by_key
    near = difflib.get_close_matches(_key(name), keys, n=2 * NEAREST, cutoff=0.3)
    meant = list(dict.fromkeys(keys[key].name for key in near))[:NEAREST] or [*USUAL]
    others = len(known_gpus()) - len(meant)
    raise ConfigError(
        f"no GPU `{name}` is known",
        hint=f"did you mean {', '.join(f'`{other}`' for other in meant)}? docs/planner.md has the "
        f"{others} others",
    )
