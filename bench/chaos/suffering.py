"""A phase played while its file operations fail, finished without faults, and judged."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from bench.chaos import injected
from bench.chaos.playing import Kind, Phase, Program, Said, last_line_of, run_command, tracebacks_in
from bench.chaos.verdict import Played, compare, read

WORKERS = 4
WORKERS_SHORT = 2
TRIES = 3
"""How often the command is given again, without faults, until all is done."""
TIMEOUT_S = 240.0
SHIM = (
    "import importlib.util, sys\n"
    "spec = importlib.util.spec_from_file_location('vendomini_chaos_injected', {path!r})\n"
    "module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)\n"
    "spec.loader.exec_module(module)\n"
    "module.install()\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Undisturbed:
    """A phase that nothing happened to, to judge others by, and how long it took."""

    phase: Phase
    played: Played
    seconds: float
    workers: int


def write_shim(folder: Path) -> Path:
    """A folder for PYTHONPATH whose `sitecustomize` loads `injected`, whatever the checkout."""
    shim = folder / "shim"
    shim.mkdir(exist_ok=True)
    (shim / "sitecustomize.py").write_text(SHIM.format(path=injected.__file__), encoding="utf-8")
    return shim


def undisturbed(phase: Phase, *, workers: int = WORKERS) -> Undisturbed:
    with TemporaryDirectory(prefix="chaos.") as name, Program(Path(name)) as program:
        file = phase.write(Path(name))
        said = program(*run_command(file, Path(name), workers=workers), timeout_s=900)
        folder = Path(name) / phase.kind
        collected = program("collect", folder)
        if said.exit or collected.exit:
            raise RuntimeError(f"undisturbed, it failed: {said.text[-800:]}{collected.text[-800:]}")
        return Undisturbed(phase=phase, played=read(folder), seconds=said.seconds, workers=workers)


def finish(program: Program, file: Path, root: Path, folder: Path, *, workers: int) -> list[Said]:
    """Give the command again until it ends well, then collect; what all of them said."""
    said = []
    for _ in range(TRIES):
        said.append(program(*run_command(file, root, workers=workers), timeout_s=TIMEOUT_S))
        if said[-1].exit == 0:
            break
    said.append(program("collect", folder, timeout_s=TIMEOUT_S))
    return said


@contextmanager
def somewhere() -> Iterator[Path]:
    """A temporary folder whose experiment and notes lie apart."""
    with TemporaryDirectory(prefix="chaos.") as name:
        folder = Path(name)
        for part in ("root", "notes"):
            (folder / part).mkdir()
        yield folder


def suffer(
    whole: Undisturbed,
    faults: Mapping[str, Any] | None,
    *,
    prefix: Sequence[str] = (),
    injected_by_strace: Path | None = None,
) -> dict[str, Any]:
    """Play a phase with faults, then without; its figures. `faults` are those of `Faults`."""
    with somewhere() as place, Program(place) as program:
        root, notes = place / "root", place / "notes"
        phase, workers = whole.phase, whole.workers
        file, folder = phase.write(place), root / phase.kind
        env = {}
        if faults is not None:
            env = injected.Faults(folder=str(folder), noted=str(notes), **faults).variable()
        first = program(
            *run_command(file, root, workers=workers),
            env=env,
            shim=write_shim(place) if faults is not None else None,
            prefix=prefix,
            timeout_s=TIMEOUT_S,
        )
        program.end_all()  # of a command that ended by itself, workers may be left
        ended = workers_ended(folder)
        done = len(read(folder).outcomes)
        tracebacks = first.tracebacks + tracebacks_in(folder)
        rest = finish(program, file, root, folder, workers=workers)
        if injected_by_strace is not None and injected_by_strace.exists():
            count = injected_by_strace.read_text(errors="replace").count("(INJECTED)")
        else:
            count = noted_faults(notes)
        verdict = compare(read(folder), whole.played)
        return {
            "engine": phase.kind,
            "faults": count,
            "exit": first.exit,
            "seconds": first.seconds,
            "seconds undisturbed": whole.seconds,
            "workers": workers,
            "workers ended": ended,
            "done at first": done,
            "runs": verdict.runs,
            **verdict.figures(),
            "tracebacks": tracebacks + sum(each.tracebacks for each in rest),
            "hung": sum(each.exit is None for each in (first, *rest)),
            "exits after": [each.exit for each in rest],
            "last words": last_line_of(first.text)[:300],
            # Of what passes, a loaded engine is not to end.
            "good": verdict.is_good
            and not ended
            and rest[-1].exit == 0
            and not tracebacks + sum(each.tracebacks for each in rest)
            and first.exit is not None,
        }


def workers_ended(folder: Path) -> int:
    """Workers that say a problem, or that say nothing of their end."""
    count = 0
    for path in (folder / "workers").glob("[!.]*.json"):
        try:
            record = msgspec.json.decode(path.read_bytes())
        except (OSError, msgspec.DecodeError):
            count += 1
            continue
        count += bool(record.get("problem")) or record.get("state") != "ended"
    return count


def noted_faults(notes: Path) -> int:
    path = notes / "faults"
    return len(path.read_bytes().splitlines()) if path.exists() else 0


FAULTY: dict[Kind, Phase] = {
    "heuristic": Phase(kind="heuristic", runs=300, steps=20),
    "scripted": Phase(kind="scripted", runs=300, steps=8, latency_s=0.02, under_way=16),
}
SHORT: dict[Kind, Phase] = {
    "heuristic": Phase(kind="heuristic", runs=50, steps=10),
    "scripted": Phase(kind="scripted", runs=50, steps=8, latency_s=0.02, under_way=16),
}
