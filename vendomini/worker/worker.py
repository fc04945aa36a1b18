"""The life of a worker: look for work, open the engine, claim, play, publish, leave."""

import asyncio
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from vendomini.chat import Engine
from vendomini.errors import ConfigError, EngineError, ReplayError, StoreError, VendoMiniError
from vendomini.phase import Run, group_key, settings_of
from vendomini.store.claims import Claims, Watch
from vendomini.store.experiment import Experiment
from vendomini.store.heartbeat import Heartbeat
from vendomini.store.logs import Logs, ReplyIndex, StepWriter
from vendomini.store.records import (
    ErrorKind,
    ErrorRecord,
    Pin,
    ResultRecord,
    Served,
    WorkerRecord,
    describe,
    encode,
)
from vendomini.worker.drain import Drain
from vendomini.worker.drive import Answers, drive
from vendomini.worker.job import Job
from vendomini.worker.search import Found, sort_out
from vendomini.workloads.workload import Workload

CLAIM_BATCH = 8
POLL_S = 1.0
LOOK_AGAIN_S = 5.0
ENGINE_FAILURES_IN_A_ROW = 8
"""With no reply in between: then the engine is taken for broken and the worker leaves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a worker left, and how many runs it finished and failed.

    `reason` is None if nothing was left to do, `problem` if leaving was no failure.
    """

    runs: int
    failed: int
    reason: str | None
    problem: str | None

    @property
    def exit_status(self) -> int:
        """0: all went well. 1: some runs failed. 3: it could not go on."""
        if self.problem is not None:
            return 3
        return 1 if self.failed else 0


class Worker:
    """Plays the runs of one group until none is left or it has to leave.

    `watch` judges other workers. `drain` says when to leave. `heartbeat` must have been
    started; `incarnation` is its name. Nothing here talks to Slurm or handles signals.
    """

    def __init__(
        self,
        experiment: Experiment,
        job: Job,
        *,
        identity: WorkerRecord,
        workload: Workload,
        engine: Engine | None,
        watch: Watch,
        drain: Drain,
        said: Callable[[str], None],
    ) -> None:
        self._experiment = experiment
        self._job = job
        self._identity = identity
        self._workload = workload
        self._engine = engine
        self._watch = watch
        self._drain = drain
        self._say = said
        self._claims = Claims(experiment, identity.incarnation)
        self._runs: Mapping[str, Run] = {}
        self._queue: list[tuple[str, int]] = []
        self._remaining = 0
        self._looked_at = float("-inf")
        self._live: dict[asyncio.Task[None], tuple[str, int]] = {}
        self._writers: dict[str, StepWriter] = {}
        self._steps_done = 0
        self._done = 0
        self._failed = 0
        self._engine_failures = 0
        self._engine_is_open = False
        self._pinning: asyncio.Lock | None = None  # as the next: made inside the event loop
        self._asked_to_drain: asyncio.Event | None = None
        self._is_pinned = False
        self._said_drain = False

    async def work(self, heartbeat_s: float) -> Ended:
        """Returns when it has left; raises nothing a user could mend (see `Ended.problem`)."""
        loop = asyncio.get_running_loop()

        def failed(problem: str) -> None:
            loop.call_soon_threadsafe(self._drain.fail, problem)

        self._pinning = asyncio.Lock()
        self._asked_to_drain = asyncio.Event()
        self._drain.changed = self._asked_to_drain.set
        logs = Logs(self._experiment, self._identity.incarnation, failed=failed)
        heartbeat = Heartbeat(
            self._experiment,
            self._identity,
            every_s=heartbeat_s,
            lost_after_s=self._job.dead_after_s * 2 / 3,
            lost=failed,
            look=self._counted,
        )
        heartbeat.start()
        logs.start()
        try:
            await self._claim_and_play(logs, heartbeat)
        except VendoMiniError as error:
            self._drain.fail(f"{error} ({error.hint})" if error.hint else str(error))
        except Exception as error:
            # The outermost frame: whoever looks at the worker's file later learns why it ended.
            self._drain.fail(f"{type(error).__name__}: {error}")
            raise
        finally:
            await self._let_go()
            if self._engine is not None and self._engine_is_open:
                await self._engine.stop()
            self._leave(logs, heartbeat)
        return Ended(
            runs=self._done,
            failed=self._failed,
            reason=self._drain.reason,
            problem=self._drain.problem,
        )

    # -- the loop ------------------------------------------------------------------------

    async def _claim_and_play(self, logs: Logs, heartbeat: Heartbeat) -> None:
        self._runs = await asyncio.to_thread(self._my_runs)
        index = ReplyIndex(self._experiment, is_wanted=self._runs.__contains__)
        while True:
            found = None
            if self._drain.reason is None and not self._queue and self._has_room:
                found = await self._look(patiently=bool(self._live))
            if self._drain.reason is None and self._queue and self._has_room:
                if not self._engine_is_open:
                    await self._open_engine(heartbeat)
                for run, attempt in await asyncio.to_thread(self._claim_some):
                    self._begin(run, attempt, logs, heartbeat, index)
            if self._drain.reason is not None:
                await self._announce_drain(heartbeat)
                if not self._live:
                    return
            if self._live:
                await self._wait(at_most=POLL_S)
            elif found is not None and not self._queue:
                if not found.unsure:
                    return
                await self._wait(at_most=POLL_S)
            elif not self._queue:
                # Others were quicker at all of it. A late listing may offer the same again.
                await self._wait(at_most=POLL_S / 4)
            if self._drain.is_over:
                return

    @property
    def _has_room(self) -> bool:
        return len(self._live) < self._limit

    @property
    def _limit(self) -> int:
        """Most live runs: the engine's, and no more than a fair share of what is left."""
        share = -(-max(self._remaining, 1) // max(self._job.workers, 1))
        return max(1, min(self._job.concurrency, share))

    def _my_runs(self) -> dict[str, Run]:
        only = None if self._job.only is None else set(self._job.only)
        mine = {}
        for run in self._experiment.runs():
            if not run.in_grid or (only is not None and run.id not in only):
                continue
            if group_key(run, asks=self._workload.asks(self._settings(run))) == self._job.group:
                mine[run.id] = run
        return mine

    async def _look(self, *, patiently: bool) -> Found | None:
        """Look for work in the files; while something is live, not more often than needed."""
        now = time.monotonic()
        if patiently and now - self._looked_at < LOOK_AGAIN_S:
            return None
        self._looked_at = now
        found = await asyncio.to_thread(self._search)
        mine = {run for run, _ in self._live.values()}
        queue = [(run, attempt) for run, attempt in found.open if run not in mine]
        # Workers that start together begin at different places, and so seldom want the same run.
        start = hash(self._identity.incarnation) % len(queue) if queue else 0
        self._queue = queue[start:] + queue[:start]
        self._remaining = found.remaining
        return found

    def _search(self) -> Found:
        finished = self._experiment.finished()
        unfinished = [run for run in self._runs if run not in finished]
        claims = self._claims.survey(set(unfinished))
        in_error = {run for run, claim in claims.items() if claim.over}
        return sort_out(
            unfinished,
            claims=claims,
            errors=self._experiment.errors(in_error) if in_error else {},
            submission=self._job.submission,
            verdict=self._watch.verdict,
        )

    def _claim_some(self) -> list[tuple[str, int]]:
        """Claim the next few runs of the queue. A run that somebody else has is passed over."""
        taken: list[tuple[str, int]] = []
        wanted = min(CLAIM_BATCH, self._limit - len(self._live))
        while self._queue and len(taken) < wanted:
            run, attempt = self._queue.pop(0)
            if not self._claims.take(run, attempt):
                # A late listing may have hidden claims that are long over: ask the files.
                claim = self._claims.look(run, at_least=attempt)
                if claim is None or not self._is_free(claim.over, claim.incarnation):
                    continue
                attempt = claim.attempt + 1
                if not self._claims.take(run, attempt):
                    continue
            if self._experiment.is_finished(run):
                continue  # a late listing again; the claim does no harm
            taken.append((run, attempt))
        return taken

    def _is_free(self, over: bool, incarnation: str) -> bool:
        return over or self._watch.verdict(incarnation) in ("ended", "dead")

    async def _open_engine(self, heartbeat: Heartbeat) -> None:
        self._engine_is_open = True
        if self._engine is not None:
            await self._engine.start()
        await asyncio.to_thread(lambda: heartbeat.change(state="working"))

    async def _announce_drain(self, heartbeat: Heartbeat) -> None:
        if not self._said_drain:
            self._said_drain = True
            self._say(f"draining: {self._drain.reason}; {len(self._live)} runs under way")
            await asyncio.to_thread(lambda: heartbeat.change(state="draining"))

    async def _wait(self, *, at_most: float) -> None:
        """Until a run ends, somebody asks to drain, or that many seconds have passed."""
        assert self._asked_to_drain is not None
        self._asked_to_drain.clear()
        asked = asyncio.ensure_future(self._asked_to_drain.wait())
        done, _ = await asyncio.wait(
            {*self._live, asked},
            timeout=self._drain.seconds_to_next_stage(at_most=at_most),
            return_when=asyncio.FIRST_COMPLETED,
        )
        asked.cancel()
        for task in self._live.keys() & done:
            self._live.pop(task)
            task.result()

    async def _let_go(self) -> None:
        """End what is under way; its runs are free for others before the engine is stopped."""
        for task in self._live:
            task.cancel()
        for task, (run, attempt) in list(self._live.items()):
            try:
                await task
            except asyncio.CancelledError:
                if self._drain.problem is None:
                    await asyncio.to_thread(self._claims.release, run, attempt)
            except VendoMiniError as error:
                self._drain.fail(str(error))
        self._live.clear()

    def _leave(self, logs: Logs, heartbeat: Heartbeat) -> None:
        """Say `ended`, which frees every run of this incarnation. On a full disk nobody can:
        then its process's end says it."""
        try:
            logs.close()
        except StoreError as error:
            self._drain.fail(str(error))
        try:
            self._claims.close()
            heartbeat.end(problem=self._drain.problem)
        except StoreError as error:
            self._drain.fail(str(error))

    # -- one run -------------------------------------------------------------------------

    def _begin(
        self, run: str, attempt: int, logs: Logs, heartbeat: Heartbeat, index: ReplyIndex
    ) -> None:
        task = asyncio.create_task(
            self._play(self._runs[run], attempt, logs, heartbeat, index), name=run
        )
        self._live[task] = (run, attempt)

    async def _play(
        self, run: Run, attempt: int, logs: Logs, heartbeat: Heartbeat, index: ReplyIndex
    ) -> None:
        """One attempt, from claim to result or error. Raises `StoreError` when the disk fails."""
        started = time.monotonic()
        writer = StepWriter(logs.steps, run.id)
        self._writers[run.id] = writer
        try:
            logged = {}
            if attempt > 1 and self._engine is not None:
                earlier = self._claims.earlier(run.id, attempt)
                logged = await asyncio.to_thread(index.longest, run.id, earlier)
            answers = Answers(
                run,
                attempt,
                logged=logged,
                engine=self._engine,
                log=logs.replies,
                before_first=self._pin,
            )
            episode = self._workload.play(
                self._settings(run), seed=run.seed, replication=run.replication, record=writer
            )
            outcome = encode(await drive(episode, answers))
        except StoreError as error:
            if not isinstance(error, ReplayError):
                raise
            await self._fail(run, attempt, logs, "replay", error)
        except EngineError as error:
            self._engine_failures += 1
            await self._fail(run, attempt, logs, "engine", error)
            if self._engine_failures >= ENGINE_FAILURES_IN_A_ROW:
                self._drain.fail(f"the engine fails: {error}")
        except ConfigError:
            raise
        except Exception as error:
            # Per episode: one broken run must not take the others down with it.
            await self._fail(run, attempt, logs, "bug", error)
        else:
            self._engine_failures = 0
            served = Served(
                attempt=attempt,
                incarnation=self._identity.incarnation,
                submission=self._job.submission,
                backend=self._job.engine.backend if self._job.engine and answers.replies else None,
                node=self._identity.slurm.node if self._identity.slurm else self._host,
                job=self._identity.slurm.job if self._identity.slurm else None,
                seconds=round(time.monotonic() - started, 3),
                replies=answers.replies,
                replayed=answers.replayed,
                tokens_in=answers.tokens_in,
                tokens_out=answers.tokens_out,
                tokens_cached=answers.tokens_cached,
            )
            record = ResultRecord(run=run.id, outcome=msgspec.Raw(outcome), served=served)
            await asyncio.to_thread(self._publish, record, logs, heartbeat)
        finally:
            self._steps_done += self._writers.pop(run.id).count

    def _publish(self, record: ResultRecord, logs: Logs, heartbeat: Heartbeat) -> None:
        """Make the result known, unless this worker may have been taken for dead meanwhile."""
        logs.flush()
        if not heartbeat.is_fresh or not self._claims.is_mine(record.run, record.served.attempt):
            self._say(f"run {record.run}: somebody else has taken it over; its result is left out")
            return
        if self._experiment.publish_result(record.run, record):
            self._done += 1
            self._remaining -= 1

    async def _fail(
        self, run: Run, attempt: int, logs: Logs, kind: ErrorKind, error: Exception
    ) -> None:
        self._failed += 1
        self._remaining -= 1
        self._say(f"run {run.id} attempt {attempt} failed: {type(error).__name__}: {error}")
        record = ErrorRecord(
            run=run.id,
            attempt=attempt,
            incarnation=self._identity.incarnation,
            submission=self._job.submission,
            kind=kind,
            message=f"{type(error).__name__}: {error}",
            hint=error.hint if isinstance(error, VendoMiniError) else "",
            trace="" if isinstance(error, VendoMiniError) else traceback.format_exc(),
        )
        await asyncio.to_thread(logs.flush)
        await asyncio.to_thread(self._experiment.publish_error, record)

    async def _pin(self) -> None:
        """Before the group's first reply: what serves it is written down, and holds for all."""
        if self._is_pinned:
            return
        assert self._pinning is not None
        assert self._job.engine is not None
        async with self._pinning:
            spec = self._job.engine
            wanted = Pin(backend=spec.backend, dtype=spec.dtype, quantization=spec.quantization)
            pinned = await asyncio.to_thread(self._experiment.pin, self._job.pin_key, wanted)
            if pinned != wanted:
                raise ConfigError(
                    f"the replies of group `{self._job.group}` come from {describe(pinned)}, "
                    f"not from {describe(wanted)}",
                    hint="run with the engine settings of the first replies, or give "
                    "--restart-group to play the group anew",
                )
            self._is_pinned = True

    # -- small things --------------------------------------------------------------------

    @property
    def _host(self) -> str:
        return self._identity.process.host

    def _settings(self, run: Run) -> object:
        return settings_of(run.settings, self._workload.settings_type)

    def _counted(self, record: WorkerRecord) -> WorkerRecord:
        steps = self._steps_done + sum(writer.count for writer in list(self._writers.values()))
        return msgspec.structs.replace(record, steps=steps, runs=self._done, live=len(self._live))
