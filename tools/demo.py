"""The part of `make demo` that plays a real model: what it needs, the phase, its table.

    python tools/demo.py --project --extra hf --cpu-torch torch==2.13.0

The words are those by which `tools/environment.py` makes the environment. It follows on the
heuristic demo, and is left out, without an error, where torch can only be had as a build for CUDA
of some GB. Runs on a bare Python 3.11 or later.
"""

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
MODEL = ROOT / "models" / "SmolLM2-135M-Instruct-Q4_1"
PHASE = "demo_model"

PACKAGES_MB, MODEL_MB = 250, 93
"""Megabytes of wheels: transformers, torch for the CPU and what they need; and the model's."""

NO_CPU_STATUS = 3
"""How `tools/environment.py` ends where torch would be a build for CUDA."""

COLUMNS = {
    "replication": "replication",
    "shocks": "arm.pe_induction.p_shock",
    "days": "outcome.steps",
    "replies": "served.replies",
    "unreadable": "outcome.format_failures",
    "calls failed": "outcome.measures.calls_failed",
    "shipped": "outcome.measures.orders_shipped",
    "breakdown": "outcome.crash.type",
    "on day": "outcome.crash.onset",
    "tokens read": "served.tokens_in",
    "written": "served.tokens_out",
}
"""Columns of the table of runs that are shown, by what they are called here."""

GOES_ON = """
The demo ends here: the real model needs torch's CPU build, which was not found (see above).
With it, this goes on: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo"""

WHERE = """
SmolLM2 has 135 million parameters: enough to keep to the form of a call, and far too few to run a
warehouse. That is what the table shows: calls that fail, and the day on which it breaks down.
  all columns:         experiments/demo_model/collected/runs.csv
  one run, day by day: .venv/bin/vendomini play demo_model
  a model of yours:    .venv/bin/vendomini run demo_model agent.model.name=FOLDER
                       experiment.name=mine"""


def downloads(*, has_packages: bool, has_model: bool) -> str:
    """What is going to be downloaded, in one line; empty: nothing."""
    parts = []
    if not has_packages:
        parts.append(f"transformers and torch for the CPU ({PACKAGES_MB} MB)")
    if not has_model:
        parts.append(f"SmolLM2-135M ({MODEL_MB} MB)")
    return f"A real model: this downloads {' and '.join(parts)}." if parts else ""


def table(rows: Sequence[dict[str, str]]) -> str:
    """The columns of `COLUMNS`, one row a run."""
    lines = [list(COLUMNS), *([row[name] or "-" for name in COLUMNS.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )


def main(environment: Sequence[str]) -> int:
    """Prepare, play, and show; the exit status is that of what failed."""
    if said := downloads(has_packages=_has_packages(), has_model=MODEL.is_dir()):
        print(f"\n{said}", flush=True)
    status = _run(sys.executable, "tools/environment.py", ".venv", *environment, quiet=True)
    if status == NO_CPU_STATUS:
        print(GOES_ON)
        return 0
    program = str(ENVIRONMENT / "bin" / "vendomini")
    status = (
        status
        or _run(str(ENVIRONMENT / "bin" / "python"), "tools/make_smollm2.py", quiet=True)
        or _run(program, "run", PHASE)
        or _run(program, "collect", PHASE)
    )
    if status:
        return status
    file = ROOT / "experiments" / PHASE / "collected" / "runs.csv"
    with file.open(encoding="utf-8", newline="") as opened:
        print(f"\n{table(list(csv.DictReader(opened)))}\n{WHERE}")
    return 0


# -- private -------------------------------------------------------------------------------


def _has_packages() -> bool:
    try:
        kept = json.loads((ENVIRONMENT / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return "[hf]" in kept["packages"]


def _run(*command: str, quiet: bool = False) -> int:
    """The exit status of a command, given in the clone's folder."""
    if not quiet:
        print(f"\n$ {' '.join(['vendomini', *command[1:]])}", flush=True)
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
