"""Memory that can be had on a machine, a container or a Slurm job, and a cache's share of it."""

from pathlib import Path

import pytest

from tests.model_folders import model_folder
from tests.specs import engine_spec
from vendomini.engines.memory import (
    LEAST_CACHE_BYTES,
    MOST_CACHE_BYTES,
    available_memory,
    cache_for,
    needs_of,
    share_out,
)
from vendomini.engines.vllm import cpu_cache
from vendomini.errors import EngineError, PlanError
from vendomini.hardware import GIB
from vendomini.models.lookup import model_spec
from vendomini.prepare.cpu_memory import CpuMemory, cpu_cache_reasons
from vendomini.serving import EngineSettings

MEMINFO = """\
MemTotal:       24627412 kB
MemFree:          204800 kB
MemAvailable:   23068672 kB
Buffers:          12 kB
"""
"""As after a day of copying files: 22 GiB can be had, and 0.2 are free."""

V1_UNLIMITED = "9223372036854771712\n"
STAT = "anon 1\ninactive_file 1073741824\ntotal_inactive_file 2147483648\n"


def machine(root: Path, files: dict[str, str], *, meminfo: str | None = MEMINFO) -> Path:
    """A folder with what the kernel would say."""
    for name, text in {**files, **({"proc/meminfo": meminfo} if meminfo else {})}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def v2(path: str, **files: str) -> dict[str, str]:
    folder = f"sys/fs/cgroup{path}"
    return {f"{folder}/memory.{name}": text for name, text in files.items()}


def v1(path: str, limit: str, used: str) -> dict[str, str]:
    folder = f"sys/fs/cgroup/memory{path}"
    return {
        f"{folder}/memory.limit_in_bytes": limit,
        f"{folder}/memory.usage_in_bytes": used,
        f"{folder}/memory.stat": STAT,
    }


OWN = "proc/self/cgroup"
JOB = "/system.slice/slurmstepd.scope/job_7/step_0"
PLACES: dict[str, tuple[dict[str, str], float, str]] = {
    "no cgroups": ({}, 22, "MemAvailable"),
    "a container without a limit": (
        {OWN: "0::/\n", **v2("", max="max\n", current="5\n", stat=STAT)},
        22,
        "MemAvailable",
    ),
    "a container with one, whose files can be dropped": (
        {OWN: "0::/\n", **v2("", max=f"{8 * GIB}\n", current=f"{3 * GIB}\n", stat=STAT)},
        6,
        "memory.max",
    ),
    "a Slurm job, limited two levels above its step": (
        {
            OWN: f"0::{JOB}/user/task_0\n",
            **v2(f"{JOB}/user/task_0", max="max\n", current="0\n", stat=STAT),
            **v2(JOB, max="max\n", current="0\n", stat=STAT),
            **v2(JOB.rpartition("/")[0], max=f"{4 * GIB}\n", current="0\n", stat=""),
        },
        4,
        "job_7",
    ),
    "a limit beyond which a process is slowed down": (
        {
            OWN: "0::/a\n",
            **v2("/a", max=f"{8 * GIB}\n", high=f"{5 * GIB}\n", current="0\n", stat=""),
        },
        5,
        "/a",
    ),
    "a limit above what the machine has": (
        {OWN: "0::/a\n", **v2("/a", max=f"{64 * GIB}\n", current="0\n", stat="")},
        22,
        "MemAvailable",
    ),
    "a limit that is used up": (
        {OWN: "0::/a\n", **v2("/a", max=f"{GIB}\n", current=f"{2 * GIB}\n", stat="")},
        0,
        "memory.max",
    ),
    "version 1 without a limit": (
        {OWN: "4:memory:/a\n0::/\n", **v1("/a", V1_UNLIMITED, "5\n")},
        22,
        "MemAvailable",
    ),
    "version 1 with one": (
        {OWN: "5:cpu,memory:/a/b\n", **v1("/a", f"{8 * GIB}\n", f"{4 * GIB}\n")},
        6,
        "memory.limit_in_bytes",
    ),
    "a container of version 1, whose path is the host's": (
        {OWN: "4:memory:/docker/abc\n", **v1("", f"{3 * GIB}\n", f"{2 * GIB}\n")},
        3,
        "memory.limit_in_bytes",
    ),
    "a group that says its limit and not its use": (
        {OWN: "0::/a\n", **v2("/a", max=f"{GIB}\n")},
        22,
        "MemAvailable",
    ),
}


@pytest.mark.parametrize("name", PLACES)
def test_what_is_available_is_the_least_that_machine_and_cgroups_say(
    tmp_path: Path, name: str
) -> None:
    files, gib, by = PLACES[name]
    found = available_memory(machine(tmp_path, files))
    assert found.bytes == gib * GIB
    assert by in found.by


@pytest.mark.parametrize("meminfo", [None, "MemTotal: 1 kB\n", "MemAvailable:\n"])
def test_a_kernel_that_does_not_say_is_an_error_that_names_the_setting(
    tmp_path: Path, meminfo: str | None
) -> None:
    with pytest.raises(EngineError, match="does not say how much memory") as caught:
        available_memory(machine(tmp_path, {}, meminfo=meminfo))
    assert "engine.kv_cache_memory_bytes" in caught.value.hint


def test_this_machine_says_what_it_has() -> None:
    assert available_memory().bytes > 0


@pytest.mark.parametrize(
    ("available", "given", "cache"),
    [
        (20 * GIB, {}, 5 * GIB),
        (20 * GIB, {"weight_bytes": 4 * GIB}, 4 * GIB),
        (20 * GIB, {"window_bytes": 8 * GIB}, 8 * GIB),  # one conversation is held if it can be
        (20 * GIB, {"window_bytes": 18 * GIB}, 15 * GIB),
        (20 * GIB, {"asked": 7}, 7),
        (GIB // 2, {}, LEAST_CACHE_BYTES),
        (GIB // 4, {}, 3 * GIB // 16),
        (1000 * GIB, {}, MOST_CACHE_BYTES),
        (1000 * GIB, {"window_bytes": 40 * GIB}, 40 * GIB),
        (GIB, {"weight_bytes": 2 * GIB}, 0),
    ],
)
def test_a_cache_takes_a_quarter_and_leaves_the_rest(
    available: int, given: dict[str, int], cache: int
) -> None:
    shared = share_out(available, **given)
    assert shared.bytes == cache
    assert shared.left == max(0, available - given.get("weight_bytes", 0) - cache)


@pytest.mark.parametrize(
    ("planned_as", "dtype", "element"),
    [
        ("hf", None, 4),
        ("hf", "auto", 4),
        ("hf", "bfloat16", 2),
        ("vllm", None, 2),
        ("vllm", "float32", 4),
    ],
)
def test_only_transformers_keeps_float32_by_itself(
    tmp_path: Path, planned_as: str, dtype: str | None, element: int
) -> None:
    size = model_spec(str(model_folder(tmp_path / "m", torch_dtype="float32")))
    assert planned_as in ("hf", "vllm")
    needs = needs_of(size, EngineSettings(dtype=dtype), planned_as=planned_as)  # type: ignore[arg-type]
    assert needs.token_bytes == 4 * 2 * 128 * element  # layers, KV heads, keys and values
    assert needs.weight_bytes == size.weight_bytes * element // 2


def test_vllm_gets_a_share_also_for_a_model_of_which_nothing_is_known(tmp_path: Path) -> None:
    spec = engine_spec(backend="vllm", model=str(tmp_path / "nowhere"), max_model_len=4096)
    assert cpu_cache(spec, 8 * GIB).bytes == 2 * GIB
    known = engine_spec(backend="vllm", model=str(model_folder(tmp_path / "m")))
    assert cpu_cache(known, 8 * GIB).bytes < 2 * GIB  # less the weights


def reasons(folder: Path, memory: CpuMemory | None, **settings: object) -> list[str]:
    given = EngineSettings(backend="hf", **settings)  # type: ignore[arg-type]
    return cpu_cache_reasons("m", model_spec(str(folder)), given, planned_as="hf", memory=memory)


def test_a_plan_says_how_memory_will_be_shared_out(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    here = CpuMemory(bytes=8 * GIB, of="this machine has")
    (said,) = reasons(folder, here, max_model_len=4096)
    assert said == (
        "memory on the CPU, each worker: 0 MiB of weights and 2.0 GiB for conversations, of the "
        "8.0 GiB that this machine has available; 6.0 GiB are left for the system"
    )
    assert reasons(folder, None) == []


def test_a_window_that_memory_cannot_hold_is_refused_with_what_would_fit(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    small = CpuMemory(bytes=12 << 20, of="each job makes")
    with pytest.raises(PlanError) as caught:
        reasons(folder, small, max_model_len=8192)
    assert str(caught.value) == (
        "`agent.model.context_length` is `8192`: one conversation of model `m` takes 16 MiB of "
        "KV cache, but each job makes 12 MiB of memory available: at most 9 MiB for it"
    )
    fits = int(caught.value.hint.partition("context_length=")[2].partition(";")[0])
    assert 4600 < fits < 4608
    assert reasons(folder, small, max_model_len=fits)
    with pytest.raises(PlanError, match=r"`engine\.kv_cache_memory_bytes` is `1000000`"):
        reasons(folder, small, max_model_len=8192, kv_cache_memory_bytes=1_000_000)


def test_weights_that_available_memory_cannot_hold_are_refused(tmp_path: Path) -> None:
    tiny = CpuMemory(bytes=16, of="this machine has")
    with pytest.raises(PlanError, match="of weights, and this machine has only"):
        reasons(model_folder(tmp_path / "m"), tiny)


def test_the_plan_and_the_engine_share_out_by_one_rule(tmp_path: Path) -> None:
    size = model_spec(str(model_folder(tmp_path / "m")))
    settings = EngineSettings(backend="vllm", max_model_len=4096)
    planned = cache_for(size, settings, planned_as="vllm", available=8 * GIB)
    spec = engine_spec(backend="vllm", model=str(tmp_path / "m"), max_model_len=4096)
    assert cpu_cache(spec, 8 * GIB) == planned
