"""What memory is available to a process here, and how much of it a KV cache on a CPU may take.

Free pages say little: a kernel uses nearly all of them for files that it can drop. What can be had
is ``MemAvailable``, or less where a cgroup (a container's, a Slurm job's) has a lower limit.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vendomini.errors import EngineError
from vendomini.hardware import GIB
from vendomini.models.spec import ModelSpec
from vendomini.serving import EngineSettings

CACHE_SHARE = 0.25
"""Of what is available beside the weights: other workers and other people want some, too."""

MOST_SHARE = 0.75
"""For one conversation that takes more than `CACHE_SHARE`: the rest is for computing."""

LEAST_CACHE_BYTES, MOST_CACHE_BYTES = 1 << 28, 32 << 30
"""Below the first few conversations fit; of more than the second a CPU makes no use."""

UNLIMITED = 1 << 60
"""A limit above is none: cgroup v1 writes 2**63 less a page, or less some more."""

MEMINFO = "proc/meminfo"
OWN_CGROUPS = "proc/self/cgroup"
CGROUPS = "sys/fs/cgroup"


@dataclass(frozen=True, slots=True, kw_only=True)
class Available:
    """Memory that a process can still get, and what sets it."""

    bytes: int
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuCache:
    """How memory is shared out, in bytes: the cache's, and what is left for everything else."""

    bytes: int
    left: int


def available_memory(root: Path = Path("/")) -> Available:
    """What is available here: the least that the machine and each cgroup above this process say.

    `root` is where ``proc`` and ``sys`` are. Raises `EngineError` where the kernel does not say.
    """
    meminfo = _read(root / MEMINFO)
    available = None if meminfo is None else of_meminfo(meminfo)
    if available is None:
        raise EngineError(
            f"`{root / MEMINFO}` does not say how much memory is available",
            hint="set engine.kv_cache_memory_bytes",
        )
    found = [Available(bytes=available, by="MemAvailable")]
    for version, path in own_cgroups(_read(root / OWN_CGROUPS) or ""):
        found += _limits(root / CGROUPS, version, path)
    return min(found, key=lambda each: each.bytes)


def share_out(
    available: int, *, asked: int | None = None, weight_bytes: int = 0, window_bytes: int = 0
) -> CpuCache:
    """What a KV cache on a CPU gets of the memory that is available.

    `asked` is `engine.kv_cache_memory_bytes`, `weight_bytes` what is still to be loaded, and
    `window_bytes` the cache of the longest conversation: it is held if there is any room for it.
    """
    free = max(0, available - weight_bytes)
    if asked is not None:
        return CpuCache(bytes=asked, left=max(0, free - asked))
    usual = min(max(int(free * CACHE_SHARE), LEAST_CACHE_BYTES), MOST_CACHE_BYTES)
    cache = min(max(usual, window_bytes), most_cache(free))
    return CpuCache(bytes=cache, left=free - cache)


def most_cache(free: int) -> int:
    """The most that a KV cache on a CPU takes of what is free beside the weights."""
    return int(max(0, free) * MOST_SHARE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a model takes on a CPU, in bytes: its weights, and each token of a conversation."""

    weight_bytes: int
    token_bytes: int


def needs_of(
    size: ModelSpec, settings: EngineSettings, *, planned_as: Literal["vllm", "hf"]
) -> Needs:
    """By the dtype that the engine computes in: vLLM makes 16 bits of float32 by itself,
    transformers does not, and keeps all of a sliding layer's tokens."""
    asked = None if settings.dtype == "auto" else settings.dtype
    stays = planned_as == "hf" and size.quantization is None
    is_float32 = (asked or (size.dtype if stays else None)) == "float32"
    element = 4 if is_float32 else 2
    weights = size.weight_bytes * (2 if is_float32 and size.quantization is None else 1)
    if planned_as == "vllm":
        return Needs(weight_bytes=weights, token_bytes=size.kv_bytes_per_token(element))
    each = sum(group.layers * group.kv_heads * group.width for group in size.cache)
    return Needs(weight_bytes=weights, token_bytes=each * element)


def cache_for(
    size: ModelSpec | None,
    settings: EngineSettings,
    *,
    planned_as: Literal["vllm", "hf"],
    available: int,
) -> CpuCache:
    """What an engine's KV cache gets before its model is loaded; `size` None: not known."""
    needs = None if size is None else needs_of(size, settings, planned_as=planned_as)
    window = settings.max_model_len or 0
    return share_out(
        available,
        asked=settings.kv_cache_memory_bytes,
        weight_bytes=0 if needs is None else needs.weight_bytes,
        window_bytes=0 if needs is None else window * needs.token_bytes,
    )


def told(cache: CpuCache, available: Available) -> str:
    """How memory was shared out, for a log."""
    return (
        f"{cache.bytes / GIB:.2f} GiB of the {available.bytes / GIB:.2f} GiB of memory that are "
        f"available ({available.by}); left for the system: {cache.left / GIB:.2f} GiB"
    )


def of_meminfo(text: str) -> int | None:
    """``MemAvailable`` of /proc/meminfo, in bytes; None: it is not in it."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        if name == "MemAvailable" and words and words[0].isdigit():
            return int(words[0]) * 1024
    return None


def own_cgroups(text: str) -> list[tuple[int, str]]:
    """Which version's cgroups a process is in that may limit memory, and their paths, of
    /proc/self/cgroup: ``4:memory:/a`` is of version 1, ``0::/a`` of version 2."""
    found = []
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "memory" in controllers.split(","):
            found.append((1, path))
        elif number == "0" and not controllers:
            found.append((2, path))
    return found


def left_of(limit: str | None, used: str | None, stat: str | None, *, files: str) -> int | None:
    """What a cgroup has left, in bytes; None: it has no limit, or does not say what is used.

    `files` is the line of `stat` that counts pages of files which can be dropped at once.
    """
    if limit is None or used is None or not limit.strip().isdigit():  # "max"
        return None
    if int(limit) >= UNLIMITED:
        return None
    dropped = dict(line.split() for line in (stat or "").splitlines() if len(line.split()) == 2)
    return max(0, int(limit) - int(used) + int(dropped.get(files, 0)))


# -- private -------------------------------------------------------------------------------


def _limits(mounted: Path, version: int, path: str) -> list[Available]:
    """What each cgroup from a process's own up to the mounted root has left.

    In a container the path may be the host's, which is not there: the root is the container's own.
    """
    found = []
    for folder in _folders(mounted, version, path):
        if version == 1:
            left = left_of(
                _read(folder / "memory.limit_in_bytes"),
                _read(folder / "memory.usage_in_bytes"),
                _read(folder / "memory.stat"),
                files="total_inactive_file",
            )
            names = "memory.limit_in_bytes"
            limits = [left]
        else:
            used, stat = _read(folder / "memory.current"), _read(folder / "memory.stat")
            names = "memory.max"
            # Beyond `memory.high` a process is slowed down until it is as good as stopped.
            limits = [
                left_of(_read(folder / name), used, stat, files="inactive_file")
                for name in ("memory.max", "memory.high")
            ]
        found += [
            Available(bytes=left, by=f"{names} of {folder}") for left in limits if left is not None
        ]
    return found


def _folders(mounted: Path, version: int, path: str) -> list[Path]:
    roots = [mounted / "memory"] if version == 1 else [mounted, mounted / "unified"]
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return [root.joinpath(*parts[:depth]) for root in roots for depth in range(len(parts) + 1)]


def _read(file: Path) -> str | None:
    """None for a file that is not there, or not to be read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
