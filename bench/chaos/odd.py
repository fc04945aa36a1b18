"""Odd files: each case on a copy of a half-played experiment, by `status`, `run` and `collect`."""

import json
import os
import shutil
import time
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.chaos.injected import Faults
from bench.chaos.odd_cases import SAMPLE, Case, Half, cases
from bench.chaos.playing import Kind, Phase, Program, Said, run_command, tracebacks_in
from bench.chaos.suffering import undisturbed, write_shim
from bench.chaos.verdict import Played, compare, read

PHASES: dict[Kind, Phase] = {
    "scripted": Phase(kind="scripted", runs=16, steps=50, latency_s=0.02, under_way=4),
    "heuristic": Phase(kind="heuristic", runs=16, steps=60),
}
FIRST = 5
"""How many runs the worker plays that leaves in order."""
AT_ONCE = 2
DEAD_AFTER_S = 6.0
"""Six beats of a local worker's heart: three minutes would be too long to wait a hundred times."""
UNHIDDEN = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
"""Without these rights root reads no file that it may not."""


def play(
    *, short: bool, only: str, timeout_s: float, not_done: list[str]
) -> Generator[dict[str, Any], None, None]:
    """The figures of each case, as they come."""
    wanted = [case for case in cases() if only in case.name and (not short or case.name in SAMPLE)]
    hiding = os.geteuid() != 0 or shutil.which(UNHIDDEN[0]) is not None
    if not hiding and any(case.hides for case in wanted):
        not_done.append("files that may not be read: root needs setpriv (util-linux) for them")
        wanted = [case for case in wanted if not case.hides]
    with ExitStack() as stack:
        place = Path(stack.enter_context(TemporaryDirectory(prefix="chaos.odd.")))
        shim = write_shim(place)
        kinds = {case.kind for case in wanted}
        programs: list[Program] = []
        pool = stack.enter_context(ThreadPoolExecutor(AT_ONCE))
        playing = {kind: pool.submit(undisturbed, PHASES[kind], workers=1) for kind in kinds}
        prepared = {kind: prepare(place, kind) for kind in kinds}
        wholes = {kind: whole.result().played for kind, whole in playing.items()}
        futures: list[Future[dict[str, Any]]] = []
        try:
            for number, case in enumerate(wanted):
                folder = place / f"case{number}"
                folder.mkdir()
                program = Program(folder, env={"COLUMNS": "1000"})
                programs.append(program)
                futures.append(
                    pool.submit(
                        survive,
                        case,
                        prepared[case.kind],
                        wholes[case.kind],
                        program,
                        shim,
                        timeout_s,
                    )
                )
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for program in programs:
                program.end_all()
            raise


def survive(
    case: Case, prepared: Half, whole: Played, program: Program, shim: Path, timeout_s: float
) -> dict[str, Any]:
    """One case: damage a copy, give the three commands, judge."""
    root = program.folder / "root"
    folder = root / prepared.folder.name
    shutil.copytree(prepared.folder, folder)
    half = Half(
        folder=folder,
        **{name: getattr(prepared, name) for name in Half.__slots__ if name != "folder"},
    )
    path = case.damage(half)
    notes = program.folder / "notes"
    notes.mkdir()
    faults = Faults(folder=str(root), noted=str(notes), dead_after_s=DEAD_AFTER_S)
    how: dict[str, Any] = {
        "env": faults.variable(),
        "shim": shim,
        "timeout_s": timeout_s + case.patience_s,
        "prefix": UNHIDDEN if case.hides and os.geteuid() == 0 else (),
    }
    before = tracebacks_in(folder)
    with program:
        phase = PHASES[case.kind].write(program.folder)
        said = {
            "status": program("status", folder, **how),
            "run": program(*run_command(phase, root, workers=1), **how),
            "collect": program("collect", folder, **how),
        }
    judged = judge(case, half, path, said, read(folder), whole)
    tracebacks = sum(each.tracebacks for each in said.values()) + tracebacks_in(folder) - before
    if tracebacks and not any("traceback" in each for each in judged["wrong"]):
        judged["wrong"].append("a worker's log has a traceback")
    shutil.rmtree(program.folder)
    return {**judged, "tracebacks": tracebacks, "good": not judged["wrong"]}


def judge(
    case: Case, half: Half, path: Path, said: dict[str, Said], after: Played, whole: Played
) -> dict[str, Any]:
    """What is wrong with what came of a case, in words."""
    verdict = compare(after, whole)
    spared = set(case.may_lose(half))
    wrong = []
    for name, each in said.items():
        if each.exit is None:
            wrong.append(f"{name} hung")
        elif each.exit not in ((0, 1, 2, 3) if case.blocks else (0, 1, 2)):
            wrong.append(f"{name} ended with {each.exit}")
        if each.tracebacks:
            wrong.append(f"{name}: a traceback, {each.text.strip().splitlines()[-1].strip()[:160]}")
    text = "".join("".join(each.text.split()) for each in said.values())
    names = (path.name, *case.names(half))
    is_named = any(name in text for name in names)
    if case.is_told and not is_named:
        wrong.append("nobody named it")
    if not case.blocks or said["run"].exit == 0:
        for what in ("lost", "doubled", "different", "short"):
            if found := set(getattr(verdict, what)) - spared:
                wrong.append(f"{len(found)} runs {what}")
        tables = {verdict.runs_table, verdict.steps_table}
        if not spared and not case.blocks and not tables <= {"bytes", "rows"}:
            wrong.append(f"tables: {verdict.runs_table}, {verdict.steps_table}")
    return {
        "kind": f"odd: {case.name}",
        "exits": {name: each.exit for name, each in said.items()},
        "named": is_named,
        **verdict.figures(),
        "hung": sum(each.exit is None for each in said.values()),
        "seconds": round(sum(each.seconds for each in said.values()), 1),
        "wrong": wrong,
        "said": {name: each.text.strip()[-400:] for name, each in said.items()} if wrong else {},
    }


def prepare(place: Path, kind: Kind) -> Half:
    """Play a part, then kill the players in the middle of the rest."""
    for number in range(5):
        root = place / f"prepared.{kind}.{number}"
        root.mkdir()
        half = _prepared(root, kind)
        if half is not None:
            return half
    raise RuntimeError("no play could be killed with runs under way")


def _prepared(root: Path, kind: Kind) -> Half | None:
    with Program(root) as program:
        phase = PHASES[kind].write(root)
        folder = root / kind
        command = run_command(phase, root, workers=1)
        first = program(*command, "--limit", FIRST)
        if first.exit != 0:
            raise RuntimeError(first.text)
        (ended,) = (path.stem for path in (folder / "workers").glob("[!.]*.json"))
        done = tuple(sorted(path.stem for path in (folder / "results").glob("[!.]*.json")))
        late: tuple[str, ...] = ()
        if kind == "heuristic":
            # Its runs take milliseconds: what is left is not begun.
            killed = ended
        else:
            process = program.start(*command)
            killed = _wait_for_an_open_run(folder, ended, done)
            program.end_all()
            process.communicate()
            late = tuple(
                sorted({path.stem for path in (folder / "results").glob("[!.]*.json")} - {*done})
            )
    everyone = [json.loads(line)["id"] for line in (folder / "runs.jsonl").open()]
    claimed = {path.name.split(".")[0] for path in (folder / "claims").glob("[!.]*")}
    open_ = _replied(folder, killed) - {*done, *late} if kind == "scripted" else set(everyone)
    unclaimed = [run for run in everyone if run not in claimed]
    if not open_ or len(unclaimed) < 2:
        return None
    _fail(folder, unclaimed[-1], ended)
    return Half(
        folder=folder,
        ended=ended,
        killed=killed,
        done=done,
        late=late,
        open=tuple(sorted(open_)),
        failed=unclaimed[-1],
        free=unclaimed[0],
    )


def _wait_for_an_open_run(folder: Path, ended: str, done: tuple[str, ...]) -> str:
    """Until another worker has finished runs and logged replies of others; its name."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        others = [path.stem for path in (folder / "workers").glob("[!.]*.json")]
        finished = {path.stem for path in (folder / "results").glob("[!.]*.json")}
        for name in others:
            if name != ended and len(finished) > len(done) and _replied(folder, name) - finished:
                return name
        time.sleep(0.01)
    raise RuntimeError("no second worker logged a reply")


def _replied(folder: Path, incarnation: str) -> set[str]:
    path = folder / "logs" / f"{incarnation}.replies.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return {line.split(b'"')[3].decode() for line in lines}


def _fail(folder: Path, run: str, incarnation: str) -> None:
    """As if an engine had failed for a run, in an earlier submission."""
    (folder / "claims" / f"{run}.1").write_text(json.dumps({"incarnation": incarnation}))
    record = {
        "run": run,
        "attempt": 1,
        "incarnation": incarnation,
        "submission": "vendomini:earlier:0",
        "kind": "engine",
        "message": "EngineError: it was out for lunch",
    }
    (folder / "errors" / f"{run}.1.json").write_text(json.dumps(record))
