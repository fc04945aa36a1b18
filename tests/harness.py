"""Workers in this process, for tests: played, killed, and looked at afterwards."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from tests.specs import engine_spec
from tests.toy import toy_experiment
from vendomini.chat import Engine, Reply, Request
from vendomini.engines.scripted import ScriptedEngine, echo
from vendomini.phase import group_key
from vendomini.store.claims import Watch
from vendomini.store.experiment import Experiment
from vendomini.store.heartbeat import new_incarnation
from vendomini.store.process import this_process
from vendomini.store.records import WorkerRecord, encode
from vendomini.store.steps import step_lines
from vendomini.worker.drain import Drain
from vendomini.worker.job import Job
from vendomini.worker.worker import Ended, Worker
from vendomini.workloads.registry import asked_by, workload_named

SPEC = engine_spec(backend="scripted", model="toy/model")
Said = Callable[[str], None]


def job_for(experiment: Experiment, **changes: Any) -> Job:
    first = experiment.runs()[0]
    asks = asked_by(first)
    values: dict[str, Any] = {
        "experiment": str(experiment.folder),
        "submission": "first",
        "group": group_key(first, asks),
        "pin_key": "toy",
        "engine": None if asks == "nobody" else SPEC,
        "concurrency": 64,
        "workers": 1,
        "heartbeat_s": 0.05,
        **changes,
    }
    return Job(**values)


def make_worker(
    experiment: Experiment,
    job: Job,
    engine: Engine | None,
    *,
    fallback: Engine | None = None,
    drain: Drain | None = None,
    said: Said = lambda text: None,
) -> Worker:
    identity = WorkerRecord(
        incarnation=new_incarnation(),
        beat=0,
        state="starting",
        process=this_process(),
        submission=job.submission,
        group=job.group,
        started="2026-01-01T00:00:00+00:00",
    )
    return Worker(
        experiment,
        job,
        identity=identity,
        workload=workload_named(experiment.runs()[0].workload),
        engine=engine,
        fallback=fallback,
        watch=Watch(experiment, dead_after_s=job.dead_after_s),
        drain=drain or Drain(deadline=None, drain_s=10),
        said=said,
    )


def play(
    experiment: Experiment,
    engine: Engine | None = None,
    *,
    said: Said = lambda text: None,
    **changes: Any,
) -> Ended:
    job = job_for(experiment, **changes)
    if engine is None and job.engine is not None:
        engine = ScriptedEngine(echo)
    return asyncio.run(make_worker(experiment, job, engine, said=said).work())


def outcomes(experiment: Experiment) -> dict[str, bytes]:
    found = {}
    for run in experiment.runs():
        result = experiment.result(run.id)
        if result is not None:
            found[run.id] = bytes(result.outcome)
    return found


def steps(experiment: Experiment, run: str) -> list[bytes]:
    result = experiment.result(run)
    assert result is not None
    log = experiment.steps_path(result.served.incarnation).read_bytes()
    found = step_lines([log])[run]
    return [log[at : at + size] for at, size in zip(found.starts, found.sizes, strict=True)]


def undisturbed(folder: Path, count: int = 4, **game: Any) -> dict[str, bytes]:
    experiment = toy_experiment(folder / "undisturbed", count, **game)
    assert play(experiment).exit_status == 0
    return outcomes(experiment)


def kill_after(experiment: Experiment, replies: int, torn: int) -> None:
    """What is on disk when a worker is killed after so many replies: its log ends torn.

    Everything the worker does on its way out is undone: the state `ended` and released claims.
    """
    job = job_for(experiment, concurrency=1)
    drain = Drain(deadline=None, drain_s=10)

    class Deadly(ScriptedEngine):
        asked = 0

        async def answer(self, request: Request) -> Reply:
            self.asked += 1
            if self.asked > replies:
                drain.fail("killed")
                await asyncio.sleep(3600)
            return await super().answer(request)

    worker = make_worker(experiment, job, Deadly(echo), drain=drain)
    asyncio.run(worker.work())
    killed = [each for each in experiment.workers().values() if each.problem == "killed"]
    if not killed:
        return  # it was done before the kill
    (record,) = killed
    bury(experiment, record)
    log = experiment.replies_path(record.incarnation)
    if log.exists():
        content = log.read_bytes()
        log.write_bytes(content[: len(content) - torn])


def bury(experiment: Experiment, record: WorkerRecord) -> None:
    """Make a worker look as if its process had been killed in the middle of its work."""
    gone = replace(record.process, started=record.process.started - 1)
    dead = msgspec.structs.replace(record, state="working", problem=None, process=gone)
    experiment.disk.write_atomic(experiment.worker_path(record.incarnation), encode(dead))


def assert_every_log_is_a_prefix(experiment: Experiment) -> None:
    """All attempts at a run logged the same replies, as far as each got."""
    by_attempt: dict[tuple[str, int], list[tuple[Any, ...]]] = {}
    for log in experiment.path("logs").glob("*.replies.jsonl"):
        for line in log.read_bytes().split(b"\n")[:-1]:
            entry = json.loads(line)
            key = (entry["run"], entry["attempt"])
            asked = (entry["ask"], entry["position"], entry["hash"], str(entry["reply"]))
            by_attempt.setdefault(key, []).append(asked)
    for run in {run for run, _ in by_attempt}:
        logs = [sorted(log) for (its, _), log in by_attempt.items() if its == run]
        longest = max(logs, key=len)
        known = {entry[:2]: entry for entry in longest}
        for entries in logs:
            assert all(known[entry[:2]] == entry for entry in entries)
