"""Odd files, by name: what is done to a half-played experiment, and what is right to follow.

Each case damages one copy of a prepared experiment. Right is, unless the case says otherwise: no
traceback, no hang, an exit status of 0, 1 or 2, the file's name (or its run's) said by a command,
and every run done afterwards with the outcome and steps of an undisturbed play.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.chaos.playing import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Half:
    """A half-played experiment, and what the cases speak of.

    `ended` played `done` and left; `killed` finished `late` and died over `open`, which it had
    claimed and whose replies it had logged. `failed` is a run whose only attempt ended in an error,
    `free` one that nobody claimed.
    """

    folder: Path
    ended: str
    killed: str
    done: tuple[str, ...]
    late: tuple[str, ...]
    open: tuple[str, ...]
    failed: str
    free: str

    def path(self, *parts: str) -> Path:
        return self.folder.joinpath(*parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`damage` returns the path of the odd file. `names` is what may stand for it in words.

    `is_told`: a command must name it. `blocks`: one clear error is a right answer of all commands.
    `may_lose`: runs that cannot be played while the file is there. `patience_s` is added to what
    counts as a hang. `hides`: root has to give up its right to read all files.
    """

    name: str
    damage: Callable[[Half], Path]
    kind: Kind = "scripted"
    is_told: bool = True
    blocks: bool = False
    names: Callable[[Half], tuple[str, ...]] = lambda half: ()
    may_lose: Callable[[Half], tuple[str, ...]] = lambda half: ()
    patience_s: float = 0.0
    hides: bool = False


Target = Callable[[Half], Path]


# -- what is done to a file ------------------------------------------------------------------


def zero(path: Path) -> None:
    path.write_bytes(b"")


def half(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def nul(path: Path) -> None:
    path.write_bytes(bytes(max(len(path.read_bytes()), 64)))


def alien(path: Path) -> None:
    path.write_bytes(b"not ours: \xff\xfe\n")


def wrong(path: Path) -> None:
    path.write_bytes(b'{"another": [1, 2, "thing"]}\n')


def missing(path: Path) -> None:
    path.unlink()


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "something").write_text("else")


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nonexistent/of/nobody")


def hidden(path: Path) -> None:
    path.chmod(0)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


Damage = Callable[[Path], None]
CONTENT: tuple[Damage, ...] = (zero, half, nul, alien, wrong)
PLACE: tuple[Damage, ...] = (folder, dangling, hidden, pipe)
ALL: tuple[Damage, ...] = (*CONTENT, missing, *PLACE)


# -- which file ----------------------------------------------------------------------------


def experiment(half: Half) -> Path:
    return half.path("experiment.json")


def phase(half: Half) -> Path:
    return half.path("phase.yaml")


def runs(half: Half) -> Path:
    return half.path("runs.jsonl")


def plan(half: Half) -> Path:
    return half.path("plans", "1.json")


def job(half: Half) -> Path:
    return half.path("jobs", "1", "job.json")


def slurm(half: Half) -> Path:
    """There is none in an experiment that was played here: it is made before it is damaged."""
    path = half.path("jobs", "1", "slurm.json")
    path.write_text('{"group":"script","submission":"vendomini:x:0","ids":["4242"]}')
    return path


def pin(half: Half) -> Path:
    return next(half.path("pins").glob("[!.]*.json"))


def worker(half: Half) -> Path:
    """Of the worker that left: nobody waits for what it says."""
    return half.path("workers", f"{half.ended}.json")


def claim(half: Half) -> Path:
    return half.path("claims", f"{half.open[0]}.1")


def old_claim(half: Half) -> Path:
    return half.path("claims", f"{half.done[0]}.1")


def result(half: Half) -> Path:
    return half.path("results", f"{half.done[0]}.json")


def error(half: Half) -> Path:
    return half.path("errors", f"{half.failed}.1.json")


def measured(half: Half) -> Path:
    path = half.path("measurements.jsonl")
    if not path.exists():
        path.write_text("\n")
    return path


def steps(half: Half) -> Path:
    return half.path("logs", f"{half.ended}.steps.jsonl")


def late_steps(half: Half) -> Path:
    return half.path("logs", f"{half.killed}.steps.jsonl")


def replies(half: Half) -> Path:
    return half.path("logs", f"{half.killed}.replies.jsonl")


# -- what is done to a log -----------------------------------------------------------------


def _rewritten(change: Callable[[bytes], bytes]) -> Damage:
    def damage(path: Path) -> None:
        path.write_bytes(change(path.read_bytes()))

    return damage


def _without_a_line(content: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    middle = len(lines) // 2
    return b"".join(lines[:middle] + lines[middle + 1 :])


def _with_a_line_twice(content: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    middle = len(lines) // 2
    return b"".join(lines[: middle + 1] + lines[middle:])


def _middle_nul(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(512) + content[middle + 512 :]


HASH = re.compile(rb'"hash":"[0-9a-f]')
LOGS: dict[str, Damage] = {
    "torn": _rewritten(lambda content: content[:-20]),
    "last line lost": _rewritten(lambda content: b"".join(content.splitlines(keepends=True)[:-1])),
    "last 4 kB lost": _rewritten(lambda content: content[:-4096]),
    "head lost": _rewritten(lambda content: content[1000:]),
    "line lost": _rewritten(_without_a_line),
    "line twice": _rewritten(_with_a_line_twice),
    "NUL in the middle": _rewritten(_middle_nul),
    "NUL at the end": _rewritten(lambda content: content[:-300] + bytes(300)),
    "NUL added": _rewritten(lambda content: content + bytes(4096)),
    "alien line added": _rewritten(lambda content: content + b"Killed\n"),
    "torn line added": _rewritten(lambda content: content + b'{"run":"0123'),
    "blank line added": _rewritten(lambda content: content + b"\n\n"),
}
HARMLESS = {"NUL added", "alien line added", "torn line added", "blank line added"}
"""To steps: no step is lost, so that nothing has to be said."""


# -- the cases -----------------------------------------------------------------------------


def cases() -> list[Case]:
    found = [
        *_of_records(),
        *_of_logs(),
        *_of_locks(),
        *_of_names(),
        *_of_folders(),
        *_of_contents(),
    ]
    assert len({case.name for case in found}) == len(found)
    return found


SAMPLE = (
    "result zero",
    "claim zero",
    "worker half",
    "runs.jsonl zero",
    "slurm.json zero",
    "steps last line lost",
    "replies NUL in the middle",
    "name claims/RUN.bak",
)
"""The cases of --short."""


def _of_records() -> Iterator[Case]:
    def told(name: str, target: Target, damages: tuple[Damage, ...], **how: Any) -> Iterator[Case]:
        for damage in damages:
            case = _case(name, target, damage, **how)
            # What is not there, or leads nowhere, cannot be told from what never was.
            yield replace(case, is_told=case.is_told and damage not in (missing, dangling))

    def run_of(which: str) -> Callable[[Half], tuple[str, ...]]:
        return lambda half: getattr(half, which)[:1]

    yield from told("experiment.json", experiment, (zero, half, wrong, folder, pipe), blocks=True)
    # Then it is any folder: what is said of it need not name a file that it never had.
    yield _case("experiment.json", experiment, missing, blocks=True, is_told=False)
    yield from told("runs.jsonl", runs, (*CONTENT, missing))
    yield from told("runs.jsonl", runs, PLACE, blocks=True)
    yield from told("phase.yaml", phase, (zero, alien, missing), is_told=False)
    yield from told("phase.yaml", phase, (pipe,), blocks=True, is_told=False)
    yield from told("plans/1.json", plan, (zero, missing, folder, pipe), is_told=False)
    yield from told("job.json", job, (zero, missing, pipe), is_told=False)
    yield from told("slurm.json", slurm, (zero, half, wrong, folder, pipe))
    yield from told("pin", pin, (zero, half, folder, pipe), blocks=True)
    yield from told("pin", pin, (missing,))
    yield from told("worker", worker, ALL)
    yield from told("claim", claim, (*CONTENT, missing))
    yield from told("claim", claim, PLACE, may_lose=run_of("open"), names=run_of("open"))
    yield from told("claim of a done run", old_claim, (zero, folder, pipe), is_told=False)
    yield from told("result", result, (*CONTENT, missing))
    yield from told("result", result, PLACE, may_lose=run_of("done"), names=run_of("done"))
    yield from told("error", error, (zero, half, alien, missing, *PLACE))
    yield from told("measurements", measured, (nul, folder, pipe), is_told=False)


def _of_logs() -> Iterator[Case]:
    for name, damage in LOGS.items():
        told = name not in HARMLESS
        names = _runs_of("done")
        yield _case(f"steps {name}", steps, damage, is_told=told, names=names, named=True)
        # What is read of replies is what is asked again: nobody needs to be told.
        yield _case(f"replies {name}", replies, damage, is_told=False, named=True)
    for name in ("last line lost", "head lost", "NUL in the middle"):
        names = _runs_of("done")
        case = _case(f"heuristic steps {name}", steps, LOGS[name], names=names, named=True)
        yield replace(case, kind="heuristic")
    for damage in (zero, missing, folder, hidden, pipe):
        names = _runs_of("done")
        # What may not be read may be there whole: one error is right as well.
        yield _case("steps", steps, damage, names=names, blocks=damage is hidden)
        yield _case("replies", replies, damage, is_told=False, blocks=damage is hidden)
    wrong_hash = _rewritten(lambda content: HASH.sub(b'"hash":"x', content))
    # Another question than the logged one stops its run, until `--restart-run` plays it anew.
    stopped = _case("replies wrong hash", replies, wrong_hash, is_told=False, named=True)
    yield replace(stopped, may_lose=_runs_of("open"))
    wrong_ask = _rewritten(lambda content: content.replace(b'"ask":', b'"ask":1'))
    yield _case("replies wrong ask", replies, wrong_ask, is_told=False, named=True)
    yield _case("late steps zero", late_steps, zero, names=_runs_of("late"), named=True)


def _of_locks() -> Iterator[Case]:
    def put(name: str, content: str | None) -> Callable[[Half], Path]:
        def damage(half: Half) -> Path:
            path = half.path(name)
            path.parent.mkdir(exist_ok=True)
            path.unlink(missing_ok=True)
            if content is None:
                path.mkdir()
            else:
                path.write_text(content)
            return path

        return damage

    here = {
        "host": os.uname().nodename,
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "namespace": os.readlink("/proc/self/ns/pid"),
        "pid": 4_000_000,
        "started": 1,
    }
    dead, foreign = json.dumps(here), json.dumps({**here, "host": "elsewhere", "boot": "another"})
    contents = {"zero": "", "alien": "not ours", "of a dead process": dead, "as a folder": None}
    for lock in (".lock", "locks/1.json"):
        for what, content in contents.items():
            yield Case(
                name=f"{lock} {what}",
                damage=put(lock, content),
                is_told=False,
                blocks=what == "as a folder",
                patience_s=15,
            )
        yield Case(
            name=f"{lock} of another host",
            damage=put(lock, foreign),
            is_told=False,
            blocks=True,
            patience_s=15,  # as long as another may hold it
        )


NAMES = (
    "claims/RUN.bak",
    "claims/RUN.1~",
    "claims/RUN.1.bak",
    "claims/RUN",
    "claims/RUN.-1",
    "claims/RUN.1.released~",
    "claims/notes.txt",
    "errors/RUN.old.json",
    "errors/RUN.1.json.bak",
    "errors/readme",
    "results/notes.txt",
    "results/RUN.json.bak",
    "results/.nfs000001",
    "workers/x.json.swp",
    "workers/x.json.bak",
    "plans/old.json",
    "archive/readme",
    "jobs/old",
    "jobs/readme.1",
    "logs/notes.txt",
    "logs/WORKER.steps.jsonl.bak",
    "runs.jsonl.bak",
    "collected",
)


def _of_names() -> Iterator[Case]:
    """Names that are not ours, of an unfinished run where they name one."""

    def put(name: str) -> Callable[[Half], Path]:
        def damage(half: Half) -> Path:
            path = half.path(name.replace("RUN", half.open[0]).replace("WORKER", half.ended))
            path.parent.mkdir(exist_ok=True)
            path.write_text("somebody's\n")
            return path

        return damage

    for name in NAMES:
        blocks = name == "collected"  # tables cannot be written
        yield Case(name=f"name {name}", damage=put(name), is_told=blocks, blocks=blocks)


def _of_folders() -> Iterator[Case]:
    def lose(name: str) -> Callable[[Half], Path]:
        def damage(half: Half) -> Path:
            path = half.path(name)
            if path.is_dir():
                shutil.rmtree(path)
            return path

        return damage

    def block(name: str) -> Callable[[Half], Path]:
        def damage(half: Half) -> Path:
            path = lose(name)(half)
            path.write_text("in the way\n")
            return path

        return damage

    for name in ("claims", "errors", "pins", "plans", "jobs"):
        yield Case(name=f"folder {name} missing", damage=lose(name), is_told=False)
    yield Case(name="folder results missing", damage=lose("results"), is_told=False)
    yield Case(
        name="folder logs missing", damage=lose("logs"), names=lambda half: (half.ended, *half.done)
    )
    for name in ("claims", "results", "logs", "workers"):
        yield Case(name=f"folder {name} is a file", damage=block(name), blocks=True)


def _of_contents() -> Iterator[Case]:
    """Records that can be read, and are not what their names say."""

    def times(seconds: float) -> Callable[[Half], Path]:
        def damage(half: Half) -> Path:
            for path in half.folder.rglob("*"):
                os.utime(path, (seconds, seconds))
            return half.folder

        return damage

    def another_run(half: Half) -> Path:
        shutil.copy(half.path("results", f"{half.done[1]}.json"), result(half))
        return result(half)

    def no_such_worker(half: Half) -> Path:
        record = json.loads(result(half).read_bytes())
        record["served"]["incarnation"] = "20200101T000000-00000000"
        result(half).write_text(json.dumps(record, separators=(",", ":")))
        return result(half)

    def orphan(half: Half) -> Path:
        path = half.path("results", "f" * 16 + ".json")
        path.write_bytes(result(half).read_bytes().replace(half.done[0].encode(), b"f" * 16))
        return path

    def gap(half: Half) -> Path:
        path = half.path("claims", f"{half.open[0]}.4")
        path.write_text(json.dumps({"incarnation": half.ended}))
        return path

    def unknown(half: Half) -> Path:
        """As after a crash that took the worker's file."""
        path = half.path("claims", f"{half.open[0]}.2")
        path.write_text(json.dumps({"incarnation": "20200101T000000-00000000"}))
        return path

    def leads_nowhere(half: Half) -> Path:
        path = half.path("claims", f"{half.free}.1")
        path.symlink_to("/nonexistent/of/nobody")
        return path

    def far(half: Half) -> Path:
        path = half.path("claims", f"{half.open[0]}.{1000}")
        path.write_text(json.dumps({"incarnation": half.ended}))
        return path

    def another_worker(half: Half) -> Path:
        shutil.copy(half.path("workers", f"{half.killed}.json"), worker(half))
        return worker(half)

    def newer(half: Half) -> Path:
        experiment(half).write_text('{"store_format": 999, "made_by": "9.9"}')
        return half.folder

    plain = {
        "all times in the future": times(time.time() + 10 * 365 * 86400),
        "all times in 1971": times(40_000_000.0),
        "result of a run that is not in the grid": orphan,
        "claim with a gap": gap,
        "claim of an unknown worker": unknown,
        "claim of a far attempt": far,
        "claim of a free run dangling": leads_nowhere,
        "worker of another worker": another_worker,
    }
    for name, damage in plain.items():
        yield Case(name=name, damage=damage, is_told=False)
    first = _runs_of("done")
    yield Case(name="result of another run", damage=another_run, names=first)
    yield Case(name="result of no worker", damage=no_such_worker, names=first)
    yield Case(name="experiment.json of a newer store", damage=newer, blocks=True)


def _runs_of(which: str) -> Callable[[Half], tuple[str, ...]]:
    return lambda half: getattr(half, which)


def _case(name: str, target: Target, damage: Damage, *, named: bool = False, **how: Any) -> Case:
    """`named`: the name says already what is done."""

    def carry_out(half: Half) -> Path:
        path = target(half)
        damage(path)
        return path

    what = name if named else f"{name} {damage.__name__}"
    return Case(name=what, damage=carry_out, hides=damage is hidden, **how)
