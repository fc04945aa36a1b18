"""The shape of the package, kept by a test: which module may know which."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vendomini

PACKAGE = Path(vendomini.__file__).parent
LAYERS = [
    {"errors"},
    {"chat", "hardware", "cluster"},
    {"phase", "yamlfile", "schema", "identity", "interpolation"},
    {"config", "profile", "partitions", "models", "slurm", "store"},
    {"planner", "workloads", "engines"},
    {"prepare", "worker"},
    {"submit", "status"},
    {"collect"},
    {"predecessor"},
    {"report"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
HEAVY = ("torch", "vllm", "submitit", "polars", "pyarrow", "matplotlib", "pandas")
FILES = sorted(PACKAGE.rglob("*.py"))


def imported_modules(path: Path) -> set[str]:
    """Names of the package's top-level modules that a file imports; absolute imports only."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "vendomini":
                names = [f"vendomini.{alias.name}" for alias in node.names]
            else:
                names = [node.module or ""]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package == "vendomini" and rest and rest != "__version__":
                found.add(rest.split(".")[0])
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    module = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if module.startswith("__"):
        return
    upwards = {name for name in imported_modules(path) - {module} if LEVEL[name] >= LEVEL[module]}
    assert not upwards, f"{path.name} must not import {sorted(upwards)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_stays_small_enough_to_be_read(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 420


def test_only_the_slurm_package_runs_slurm_commands() -> None:
    commands = ('"sinfo"', '"scontrol"', '"squeue"', '"sacct"', '"scancel"')
    for path in FILES:
        if "slurm" in path.relative_to(PACKAGE).parts:
            continue
        text = path.read_text(encoding="utf-8")
        asks = [name for name in commands if name in text and f"which({name})" not in text]
        assert not asks, f"{path.name} names {asks}"


@pytest.mark.parametrize("module", ["vendomini.cli.main", "vendomini.worker.entry"])
def test_starting_the_program_loads_nothing_heavy(module: str) -> None:
    probe = f"import sys, {module}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []


def test_a_worker_does_not_load_what_only_reading_phases_needs() -> None:
    probe = "import sys, vendomini.worker.entry; print('omegaconf' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["False"]
