"""How fast the machinery round an engine is: ``python -m bench.worker``.

Three figures, each against the same thing without us, in one run:

- replies a second through driving and logging: 256 episodes under way of the
  warehouse's probe on a scripted engine that answers at once, over the bare loop (the same
  episodes, one after another, no seeds, hashes, log or event loop);
- from a worker's start to its first claim, a bare Python start beside it;
- from a `run` after a killed one to its first claim.
"""

import argparse
import asyncio
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from vendomini.chat import Request
from vendomini.config import expand, load_phase
from vendomini.engines.scripted import ScriptedEngine, echo
from vendomini.phase import Run, group_key, settings_of
from vendomini.serving import EngineSettings, EngineSpec
from vendomini.store.claims import Watch
from vendomini.store.experiment import Experiment
from vendomini.store.heartbeat import new_incarnation
from vendomini.store.process import this_process
from vendomini.store.records import WorkerRecord
from vendomini.worker.drain import Drain
from vendomini.worker.job import Job, write_job
from vendomini.worker.worker import Worker
from vendomini.workloads.registry import workload_named

ROOT = Path(__file__).parent.parent
WAREHOUSE = workload_named("warehouse")
EPISODES = 256
STEPS = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    as_json = parser.parse_args().json
    with tempfile.TemporaryDirectory() as folder:
        figures = {
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            **throughput(Path(folder)),
            **start_ups(Path(folder)),
        }
    if as_json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:45} {value}")


def throughput(folder: Path) -> dict[str, float]:
    """Replies a second, with everything and bare, and their ratio."""
    experiment, runs = _experiment(folder / "throughput", EPISODES, latency_s=0.0)
    job = _job(experiment, runs)
    identity = WorkerRecord(
        incarnation=new_incarnation(),
        beat=0,
        state="starting",
        process=this_process(),
        submission="bench",
        group=job.group,
        started="",
    )
    engine = ScriptedEngine(echo)
    started = time.perf_counter()
    ended = asyncio.run(_work(experiment, job, identity, engine))
    seconds = time.perf_counter() - started
    assert ended == EPISODES
    bare_started = time.perf_counter()
    bare = sum(_play_bare(run) for run in runs[:32])
    bare_seconds = time.perf_counter() - bare_started
    replies = experiment.replies_path(identity.incarnation).stat().st_size
    return {
        "episodes under way": EPISODES,
        "replies": engine.answered,
        "replies a second, driven and logged": round(engine.answered / seconds),
        "replies a second, bare loop": round(bare / bare_seconds),
        "share of the bare loop": round(engine.answered / seconds / (bare / bare_seconds), 3),
        "bytes of reply log a reply": round(replies / engine.answered),
    }


def start_ups(folder: Path) -> dict[str, float]:
    """Milliseconds, the median of five each."""
    python = _median([_timed([sys.executable, "-c", "pass"]) for _ in range(5)])
    worker = []
    for number in range(5):
        experiment, runs = _experiment(folder / f"start{number}", 8, latency_s=0.2)
        job_file = write_job(experiment.add_job_folder(), _job(experiment, runs))
        code = f"from vendomini.worker.entry import work; work({str(job_file)!r})"
        worker.append(_to_first_claim([sys.executable, "-c", code], experiment))
    return {
        "bare Python start, ms": python,
        "worker's start to first claim, ms": _median(worker),
        "killed run's next start to first claim, ms": _median(
            [_after_a_kill(folder / f"kill{number}") for number in range(5)]
        ),
    }


def _after_a_kill(folder: Path) -> float:
    """Start `vendomini run`, kill it and its worker in mid-run, start it again."""
    phase = folder / "phase.yaml"
    folder.mkdir()
    phase.write_text(
        f"inherit: {ROOT / 'configs' / 'base.yaml'}\n"
        "experiment: {name: killed, replications: 8, seed: 0}\n"
        "agent: {kind: probe}\nsimulation: {max_steps: 200}\n"
        "engine: {backend: scripted, latency_s: 0.2}\n"
    )
    command = [sys.executable, "-m", "vendomini.cli.main", "run", "--config", str(phase)]
    command += ["--root", str(folder)]
    experiment = Experiment(folder / "killed")
    _to_first_claim(command, experiment)
    return _to_first_claim(command, experiment)


def _to_first_claim(command: list[str], experiment: Experiment) -> float:
    """Start a command, wait for a claim more than there were, kill all of it."""
    before = len(experiment.disk.names(experiment.path("claims")))
    started = time.perf_counter()
    process = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while len(experiment.disk.names(experiment.path("claims"))) <= before:
            assert process.poll() is None, "it ended without a claim"
            time.sleep(0.001)
        return 1000 * (time.perf_counter() - started)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _play_bare(run: Run) -> int:
    """The episode and the engine's function, and nothing else; how many replies it took."""
    steps: list[Any] = []
    episode = WAREHOUSE.play(
        settings_of(run.settings, WAREHOUSE.settings_type),
        seed=run.seed,
        replication=run.replication,
        record=steps.append,
    )
    replies = 0
    try:
        requests: tuple[Request, ...] = next(episode)
        while True:
            replies += len(requests)
            requests = episode.send(tuple(echo(replace(each, seed=1)) for each in requests))
    except StopIteration:
        return replies


async def _work(
    experiment: Experiment, job: Job, identity: WorkerRecord, engine: ScriptedEngine
) -> int:
    worker = Worker(
        experiment,
        job,
        identity=identity,
        workload=WAREHOUSE,
        engine=engine,
        watch=Watch(experiment, dead_after_s=180),
        drain=Drain(deadline=None, drain_s=10),
        said=lambda text: None,
    )
    return (await worker.work()).runs


def _experiment(folder: Path, count: int, *, latency_s: float) -> tuple[Experiment, list[Run]]:
    phase = load_phase(
        ROOT / "configs" / "base.yaml",
        [
            "agent.kind=probe",
            "engine.backend=scripted",
            f"engine.latency_s={latency_s}",
            f"simulation.max_steps={STEPS}",
            f"experiment.replications={count}",
        ],
        workload_named=workload_named,
    )
    runs = expand(phase)
    experiment = Experiment(folder)
    experiment.extend(phase.text, runs)
    return experiment, runs


def _job(experiment: Experiment, runs: list[Run]) -> Job:
    engine = runs[0].settings["engine"]
    return Job(
        experiment=str(experiment.folder),
        submission="bench",
        group=group_key(runs[0], "script"),
        pin_key="bench",
        engine=EngineSpec(
            settings=EngineSettings(backend="scripted", latency_s=engine["latency_s"]), model="m"
        ),
        concurrency=EPISODES,
        workers=1,
    )


def _timed(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True)
    return 1000 * (time.perf_counter() - started)


def _median(values: list[float]) -> float:
    return round(sorted(values)[len(values) // 2], 1)


if __name__ == "__main__":
    main()
