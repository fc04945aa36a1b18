"""How long a command takes to start: `python -m bench.startup [--tries N] [--write]`.

Whole processes, told as ratios to what nobody could go below, measured in turns in one run:

- `vendomini --help` over the same of a Typer app with as many commands that do nothing;
- `vendomini status demo` over a process that imports typer and rich and prints one table;
- `vendomini plan` of 660 runs of three models over that process, too.

Each ratio is the median of those of neighbours in time. The package is compiled first, as an
installed one is. Exit code 1 if a goal is missed.
"""

import argparse
import compileall
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import vendomini
from vendomini.cli.main import app

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
PHASE = ROOT / "configs" / "phases" / "phase1_large_models.yaml"  # 660 runs of three models
PROFILE = ROOT / "slurm" / "h100.yaml"
PROGRAM = (sys.executable, "-m", "vendomini.cli.main")
GOALS = {"--help": 1.3, "status": 2.0, "plan": 5.0}

EMPTY = '''
import typer
app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
{commands}
@app.callback()
def callback() -> None:
    """A program."""
app()
'''
COMMAND = '''
@app.command()
def {name}() -> None:
    """Do nothing."""
'''
TABLE = """
import typer
from rich.console import Console
from rich.table import Table
table = Table("group", "total", "done")
table.add_row("no engine", "30", "30")
Console().print(table)
"""


def commands() -> int:
    """How many commands the program has, and groups of them."""
    return len(app.registered_commands) + len(app.registered_groups)


def seconds(words: Sequence[str], folder: Path) -> float:
    """One process from its start to its end. Raises if it fails."""
    environment = {**os.environ, "HF_HOME": str(folder / "hub"), "COLUMNS": "200"}
    started = time.perf_counter()
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, check=False)
    took = time.perf_counter() - started
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr.decode()}")
    return took


def measured(tries: int) -> dict[str, Any]:
    """Medians in seconds, and the ratios."""
    package = Path(vendomini.__file__).parent
    compileall.compile_dir(package, quiet=1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        empty, table = folder / "empty.py", folder / "table.py"
        named = (COMMAND.format(name=f"command_{number}") for number in range(commands()))
        empty.write_text(EMPTY.format(commands="".join(named)))
        table.write_text(TABLE)
        seconds([*PROGRAM, "run", "--config", str(ROOT / "configs" / "demo.yaml")], folder)
        empty_help = [sys.executable, str(empty), "--help"]
        one_table = [sys.executable, str(table)]
        planned = ["plan", "--config", str(PHASE), "--profile", str(PROFILE)]
        pairs = {
            "--help": ([*PROGRAM, "--help"], empty_help),
            "status": ([*PROGRAM, "status", "demo"], one_table),
            "plan": ([*PROGRAM, *planned], one_table),
        }
        took: dict[str, list[tuple[float, float]]] = {each: [] for each in pairs}
        for _ in range(tries + 1):
            for each, (ours, floor) in pairs.items():
                took[each].append((seconds(ours, folder), seconds(floor, folder)))
    figures = {}
    for each, rows in took.items():
        kept = rows[1:]  # the first has warmed the disk's cache
        figures[each] = {
            "seconds": round(median(ours for ours, _ in kept), 3),
            "floor_seconds": round(median(floor for _, floor in kept), 3),
            "ratio": round(median(ours / floor for ours, floor in kept), 2),
            "goal": GOALS[each],
        }
    return figures


def main() -> int:
    """Print the ratios; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--tries", type=int, default=15, help="of each command")
    parser.add_argument("--write", action="store_true", help="to bench/results, too")
    arguments = parser.parse_args()
    figures = measured(arguments.tries)
    for each, row in figures.items():
        print(
            f"{each:<7} {row['seconds']:.3f} s, {row['ratio']:.2f} times {row['floor_seconds']:.3f}"
            f" s (goal: at most {row['goal']:g})",
            flush=True,
        )
    if arguments.write:
        now = datetime.now(UTC)
        result = {
            "date": now.date().isoformat(),
            "cpus": os.cpu_count(),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "typer": version("typer"),
            "rich": version("rich"),
            "commands": commands(),
            "tries": arguments.tries,
            "figures": figures,
        }
        path = RESULTS / f"startup-{result['date']}.json"
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(path.relative_to(ROOT))
    return int(any(row["ratio"] > row["goal"] for row in figures.values()))


if __name__ == "__main__":
    sys.exit(main())
