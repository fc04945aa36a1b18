"""How a worker process starts: what submitit calls, and what joins a job of the user's own."""

import asyncio
import os
import platform
import shutil
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec

from vendomini.cluster import Allocation
from vendomini.engines.registry import engine_for
from vendomini.errors import StoreError, SubmitError, VendoMiniError
from vendomini.slurm import (
    QueuedJob,
    allocation,
    has_left,
    jobs_in_queue,
    leave_words,
    parse_allocation,
    requeue_if_preempted,
)
from vendomini.store.claims import Watch
from vendomini.store.clock import now_s
from vendomini.store.experiment import Experiment
from vendomini.store.heartbeat import new_incarnation
from vendomini.store.process import this_process
from vendomini.store.records import SlurmPlace, WorkerRecord, encode
from vendomini.worker.drain import Drain
from vendomini.worker.job import Job, read_job, told_of
from vendomini.worker.worker import Ended, Worker
from vendomini.workloads.registry import described, workload_named

SIGNAL_GRACE_S = 2.0
"""After a first TERM or USR2, runs that are about to end may. Slurm kills 30 s after TERM
(KillWait), at some sites 3 s after it; the reply log makes leaving early cheap."""

SLURM_ANSWER_LASTS_S = 20.0
PACKAGES = ("vendomini", "msgspec", "submitit", "omegaconf")


def work(job_file: str) -> None:
    """Be a worker, as submitit starts one; the exit status is that of `Ended`."""
    try:
        status = be_worker(read_job(Path(job_file))).exit_status
    except VendoMiniError as error:
        say(f"cannot work: {error}" + (f" ({error.hint})" if error.hint else ""))
        status = error.exit_code
    if status:
        # SystemExit, not an exception: submitit would print a trace of itself.
        raise SystemExit(status)


def be_worker(job: Job) -> Ended:
    """Play a job's group in this process until nothing is left or it has to leave.

    Raises `VendoMiniError` if it cannot even begin.
    """
    ended = asyncio.run(_live(job))
    problem = f"; {ended.problem}" if ended.problem not in (None, ended.reason) else ""
    say(
        f"left: {ended.reason or 'nothing is left to do'}; {ended.runs} runs done, "
        f"{ended.failed} attempts failed{problem}"
    )
    if ended.problem is not None and not ended.is_told:
        _tell_slurm(ended.problem)
    if ended.reason is not None and ended.problem is None:
        _come_back_if_preempted()
    return ended


def say(text: str) -> None:
    """To the job's log, which may lie on the disk that is full."""
    with suppress(OSError):
        print(f"[vendomini worker] {text}", file=sys.stderr, flush=True)


def _tell_slurm(problem: str) -> None:
    """Where no file could be written: whoever asks for the status later learns why."""
    try:
        leave_words(os.environ, problem)
    except SubmitError as error:
        say(f"Slurm does not keep these words either: {error}")


class SlurmMemory:
    """Asks Slurm whether a job's start is over, at most every 20 s for all tasks of an array."""

    def __init__(self) -> None:
        self._is_there = shutil.which("squeue") is not None
        # By main id: when it was asked, and the array's tasks; None: Slurm did not answer.
        self._asked: dict[str, tuple[float, Mapping[str, QueuedJob] | None]] = {}

    def is_over(self, job: str, restarts: int) -> bool | None:
        """None where Slurm cannot be asked: then nothing follows from it."""
        if not self._is_there:
            return None
        main_id = job.partition("_")[0]
        known = self._asked.get(main_id)
        now = now_s()
        if known is None or now - known[0] > SLURM_ANSWER_LASTS_S:
            try:
                tasks: Mapping[str, QueuedJob] | None = jobs_in_queue([main_id])
            except SubmitError:
                tasks = None
            known = self._asked[main_id] = (now, tasks)
        return None if known[1] is None else has_left(known[1], job, restarts=restarts)


async def _live(job: Job) -> Ended:
    experiment = Experiment(Path(job.experiment))
    experiment.check()
    runs = experiment.runs()
    if not runs:
        raise StoreError(
            f"`{experiment.folder}` has no runs", hint="give the phase to `vendomini run` again"
        )
    place = _allocation(os.environ)
    drain = Drain(deadline=_deadline(job, place), drain_s=job.drain_s)
    identity = _identity(job, place)
    log = experiment.engine_log_path(identity.incarnation)
    heard: list[str] = []

    def worker_says(text: str) -> None:
        heard[:] = [text]
        say(text)

    try:
        workload = workload_named(runs[0].workload)
        engine, fallback = (
            None if spec is None else engine_for(spec, log=log, said=worker_says)
            for spec in (job.engine, job.fallback)
        )
    except VendoMiniError as error:
        _leave_a_word(experiment, identity, error)
        raise
    provenance = {**identity.provenance, "workload": described(workload)}
    worker = Worker(
        experiment,
        job,
        identity=msgspec.structs.replace(identity, provenance=provenance),
        workload=workload,
        engine=engine,
        fallback=fallback,
        watch=Watch(experiment, dead_after_s=job.dead_after_s, ask_slurm=SlurmMemory().is_over),
        drain=drain,
        said=worker_says,
        doing=lambda: heard[-1] if heard else None,
    )
    _handle_signals(drain)
    return await worker.work()


def _leave_a_word(experiment: Experiment, identity: WorkerRecord, error: VendoMiniError) -> None:
    """Of a worker that cannot begin: whoever asks for the status later learns why."""
    problem = f"{error} ({error.hint})" if error.hint else str(error)
    ended = msgspec.structs.replace(identity, state="ended", problem=problem)
    path = experiment.worker_path(identity.incarnation)
    try:
        experiment.disk.write_atomic(path, encode(ended))
    except StoreError:  # it is said in the log as well
        _tell_slurm(problem)


def _handle_signals(drain: Drain) -> None:
    """TERM, INT and USR2 drain; a second TERM or INT lets go of everything at once.

    The handlers are the worker's own: they replace the ones submitit has set.
    """
    loop = asyncio.get_running_loop()
    count = 0

    def leave(name: str) -> None:
        nonlocal count
        count += 1
        drain.within(SIGNAL_GRACE_S if count == 1 else 0.0, f"it was told to by {name}")

    loop.add_signal_handler(signal.SIGTERM, leave, "SIGTERM")
    # Ignored: whoever started this worker hears Ctrl-C itself, and asks by TERM.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGINT, leave, "SIGINT")
    loop.add_signal_handler(
        signal.SIGUSR2, drain.within, SIGNAL_GRACE_S, "it was told to by SIGUSR2"
    )


def _come_back_if_preempted() -> None:
    """Slurm requeues a preempted job only if it is still there when its time of grace ends."""
    try:
        if requeue_if_preempted(os.environ):
            say("preempted: the job goes back into the queue")
    except SubmitError as error:
        say(f"preempted, perhaps, but not put back into the queue: {error}")


def _allocation(environ: Mapping[str, str]) -> Allocation | None:
    """None outside Slurm. Where Slurm does not answer, what the environment says."""
    try:
        return allocation(environ)
    except SubmitError as error:
        say(f"Slurm does not say more of this job ({error}); its time counts from now")
        return parse_allocation(environ, None)


def _deadline(job: Job, place: Allocation | None) -> float | None:
    """On the clock of `store.clock`; None without a time limit."""
    now = now_s()
    if place is not None and place.end_time_s is not None:
        return now + (place.end_time_s - time.time())
    if os.environ.get("SLURM_JOB_ID") and job.minutes is not None:
        return now + 60.0 * job.minutes
    return None


def _identity(job: Job, place: Allocation | None) -> WorkerRecord:
    slurm = None
    if place is not None:
        node = place.node or socket.gethostname()
        slurm = SlurmPlace(job=place.queue_id, restarts=place.restarts, node=node, user=os.getuid())
    return WorkerRecord(
        incarnation=new_incarnation(),
        beat=0,
        state="starting",
        process=this_process(),
        submission=job.submission,
        group=job.group,
        dead_after_s=job.dead_after_s,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        gpus=os.environ.get("CUDA_VISIBLE_DEVICES") or None,
        slurm=slurm,
        engine=told_of(job.engine),
        provenance={
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        },
    )
