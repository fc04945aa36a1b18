"""Which GPUs a process may use, as the driver names them."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

DRIVER = Path("/proc/driver/nvidia/gpus")

NVIDIA_S = 20.0
"""A machine with many GPUs whose driver sleeps takes seconds to list them."""


def gpu_name(environ: Mapping[str, str], driver: Path = DRIVER) -> str | None:
    """The name of the GPUs in use, such as ``NVIDIA A100-SXM4-80GB``.

    None where there are none, where the driver does not tell, and where they differ and
    CUDA_VISIBLE_DEVICES does not name them by UUID: numbers mean one order to the driver and
    another to CUDA.
    """
    told = [_told(path) for path in sorted(driver.glob("*/information"))]
    visible = [part for part in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part]
    chosen = [
        gpu for gpu in told if any(gpu.get("GPU UUID", "?").startswith(part) for part in visible)
    ]
    names = {gpu["Model"] for gpu in chosen or told if "Model" in gpu}
    return names.pop() if len(names) == 1 else None


def visible_gpus(environ: Mapping[str, str]) -> tuple[str, ...]:
    """What local workers may use of this machine, as CUDA_VISIBLE_DEVICES names it: what the
    caller was given, else all that there are."""
    given = environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        names = [name.strip() for name in given.split(",")]
        return () if names[0] in ("", "-1", "NoDevFiles") else tuple(names)
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=NVIDIA_S, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    count = sum(line.startswith("GPU ") for line in listed.splitlines())
    return tuple(str(number) for number in range(count))


def _told(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    parts = [line.partition(":") for line in lines]
    return {name.strip(): value.strip() for name, _, value in parts}
