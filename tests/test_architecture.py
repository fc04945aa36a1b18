"""The shape of the package, kept by a test: which module may know which."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vendomini

PACKAGE = Path(vendomini.__file__).parent
LAYERS = [
    {"errors"},
    {"entrypoints"},
    {"chat", "serving", "hardware", "cluster", "shipped", "schema"},
    {"phase", "yamlfile", "identity", "interpolation", "transcript"},
    {"config", "profile", "partitions", "models", "slurm", "store"},
    {"tables"},
    {"planner", "workloads", "engines"},
    {"prepare", "worker"},
    {"submit", "standing"},
    {"collect", "looking"},
    {"running"},
    {"api", "cli"},
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


LEAKS = re.compile(r"warehouse|predecessor|simulation\.|max_steps|AgentKind")
"""Words of one workload."""

MODEL_KEY = re.compile(r"agent\.model|[\"']agent[\"']|agent\.kind")
"""Where a workload keeps its model: `chat.MODEL` says it, once."""

ALLOWED = {
    ("workloads/registry.py", 'USUAL = "warehouse"'),  # of files from before there was a choice
    ("chat.py", 'MODEL = "agent.model"'),
    ("chat.py", 'AGENT = "agent"'),  # the role, whose model that is
    ("cli/play.py", 'title["agent"] = who'),  # and who has it
}
OWN_ROOM = "workloads/warehouse/"


def leaks(path: str, text: str) -> list[str]:
    """Lines of a general room in which it knows the warehouse, comments and docstrings too."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        known = LEAKS.search(line) or (MODEL_KEY.search(line) and "``" not in line)
        if known and (path, line.strip().partition("  #")[0]) not in ALLOWED:
            found.append(f"{path}:{number}: {line.strip()}")
    return found


def test_general_rooms_know_no_workload() -> None:
    found = []
    for path in FILES:
        room = path.relative_to(PACKAGE).as_posix()
        if not room.startswith(OWN_ROOM):
            found += leaks(room, path.read_text(encoding="utf-8"))
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "from vendomini.workloads.warehouse.settings import WarehouseSettings",
        'STEPS = "simulation.max_steps"',
        'kind = run.settings["agent"]["kind"]',
        'hint="see `agent.model.name`"',
        "# only a warehouse has days",
    ],
)
def test_a_planted_leak_is_found(line: str) -> None:
    assert leaks("collect.py", f"import os\n\n{line}\n") == [f"collect.py:3: {line}"]


OWN_BACKENDS = re.compile(r"""(?<!\[)["'](vllm|hf|openai|scripted)["']""")
"""A backend by its name: one is found by the registry, and asked what it is."""

NAMES_BACKENDS = (
    "engines/",  # themselves, and how their servers are talked to
    "planner/",  # the memory and speed of the two that it has figures of
    "cli/fit",  # which asks about those two
    "entrypoints.py",
    "serving.py",
    "models/naming.py",  # `hf` is part of models' names
    "models/support.py",  # what the two have code for is data by their names
)


def test_a_backend_is_known_by_its_name_in_few_rooms() -> None:
    found = []
    for path in FILES:
        room = path.relative_to(PACKAGE).as_posix()
        if room.startswith((*NAMES_BACKENDS, OWN_ROOM)):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if OWN_BACKENDS.search(line):
                found.append(f"{room}:{number}: {line.strip()}")
    assert found == []


def test_a_workload_is_loaded_by_its_entry_point_alone() -> None:
    """No module outside imports the warehouse, not inside a function either."""
    for path in FILES:
        room = path.relative_to(PACKAGE).as_posix()
        if room.startswith(OWN_ROOM):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if "workloads.warehouse" in name], room


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
