"""The life of a worker: look for work, open the engine, claim, play, publish, leave."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import msgspec

from vendomini.chat import Engine
from vendomini.errors import DiskError, EngineDead, StoreError, VendoMiniError
from vendomini.store.claims import Claims, Watch
from vendomini.store.disk import is_passing
from vendomini.store.experiment import Experiment
from vendomini.store.heartbeat import Heartbeat
from vendomini.store.logs import Logs, ReplyIndex
from vendomini.store.measurements import add_measurement
from vendomini.store.records import WorkerRecord
from vendomini.store.trying import Patience
from vendomini.worker.claimable import Found
from vendomini.worker.drain import Drain
from vendomini.worker.finding import Finder
from vendomini.worker.job import Job, told_of
from vendomini.worker.meter import Meter
from vendomini.worker.pace import Pace
from vendomini.worker.playing import Player
from vendomini.worker.serving import SIGNALS_APART_S, Serving
from vendomini.workloads.workload import Workload

T = TypeVar("T")

POLL_S = 1.0
ENGINE_FAILURES_IN_A_ROW = 8
"""With no finished run in between: then the engine is taken for broken and the worker leaves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a worker left, and how many runs it finished and failed.

    `reason` is None if nothing was left to do, `problem` if leaving was no failure. `is_told`: the
    worker's file says so.
    """

    runs: int
    failed: int
    reason: str | None
    problem: str | None
    is_told: bool = True

    @property
    def exit_status(self) -> int:
        """0: all went well. 1: some runs failed. 3: it could not go on."""
        if self.problem is not None:
            return 3
        return 1 if self.failed else 0


class Worker:
    """Plays the runs of one group until none is left or it has to leave.

    `fallback` takes the engine's place where that cannot start: both are of the job, and neither
    is started. `watch` judges other workers, `drain` says when to leave. Nothing here talks to
    Slurm or handles signals.
    """

    def __init__(
        self,
        experiment: Experiment,
        job: Job,
        *,
        identity: WorkerRecord,
        workload: Workload,
        engine: Engine | None,
        fallback: Engine | None = None,
        watch: Watch,
        drain: Drain,
        said: Callable[[str], None],
        doing: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._experiment = experiment
        self._job = job
        self._meter = Meter()
        self._engine_is_open = False
        self._pace = Pace(job.concurrency, at_once=job.at_once)
        self._doing = doing
        self._drain = drain
        self._drain.changed = self._on_drain
        self._asked_to_drain = asyncio.Event()
        self._said_drain = False
        self._is_told = True
        self._say = said
        self._loop: asyncio.AbstractEventLoop | None = None  # None: not at work yet
        self._under_way: dict[asyncio.Task[None], tuple[str, int]] = {}
        self._handed_back: list[tuple[str, int]] = []  # attempts that lost their engine
        self._claims = Claims(experiment, identity.incarnation)
        self._logs = Logs(
            experiment, identity.incarnation, failed=self._fail, first=self._claims.sync
        )
        self._heartbeat = Heartbeat(
            experiment,
            identity,
            every_s=job.heartbeat_s,
            lost_after_s=job.dead_after_s * 2 / 3,
            lost=self._fail,
            look=self._counted,
        )
        self._serving: Serving | None = None  # None: the runs of this group never ask
        if engine is not None:
            self._serving = Serving(
                experiment,
                job,
                engine,
                fallback,
                pace=self._pace,
                is_leaving=lambda: self._drain.reason is not None,
                opened=self._tell_engine,
                died=self._leave_without_engine,
                said=said,
            )
        experiment.disk.patience = Patience(lives=self._may_wait, say=said)
        self._finder = Finder(
            experiment,
            job,
            incarnation=identity.incarnation,
            claims=self._claims,
            watch=watch,
        )
        self._player = Player(
            experiment,
            job,
            identity=identity,
            workload=workload,
            serving=self._serving,
            claims=self._claims,
            logs=self._logs,
            index=ReplyIndex(experiment, is_wanted=self._finder.runs.__contains__),
            pace=self._pace,
            meter=self._meter,
            is_fresh=lambda: self._heartbeat.is_fresh,
            said=said,
        )

    async def work(self) -> Ended:
        """Returns when it has left; raises nothing a user could mend (see `Ended.problem`)."""
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._heartbeat.start)
        self._logs.start()
        try:
            await self._claim_and_play()
        except VendoMiniError as error:
            self._drain.fail(f"{error} ({error.hint})" if error.hint else str(error))
        except Exception as error:
            # The outermost frame: whoever looks at the worker's file later learns why it ended.
            self._drain.fail(f"{type(error).__name__}: {error}")
            raise
        finally:
            try:
                await self._let_go()
                if self._serving is not None:
                    await self._serving.stop()
                await asyncio.to_thread(self._keep_measurement)
            finally:
                # In a thread: a signal is to be heard while a disk that fails is waited for.
                await asyncio.to_thread(self._leave)
        return Ended(
            runs=self._player.tally.done,
            failed=self._player.tally.failed,
            reason=self._drain.reason,
            problem=self._drain.problem,
            is_told=self._is_told,
        )

    async def _claim_and_play(self) -> None:
        finder = self._finder
        await self._patiently(finder.load)
        while not self._drain.is_over:
            found: Found | None = None  # None: did not look this time
            if self._drain.reason is not None:
                await self._announce_drain()
                if not self._under_way:
                    return
            else:
                if self._has_room and not finder.queue and not self._looked_lately:
                    under_way = {run for run, _ in self._under_way.values()}
                    found = await self._patiently(partial(finder.look, under_way))
                if self._has_room and finder.queue:
                    await self._begin_some()
            if self._under_way or finder.queue:
                await self._wait(at_most=POLL_S if self._under_way else 0.0)
            elif found is not None and not (found.open or found.unsure):
                return
            else:
                # Others were quicker at all that was open, or it is not sure yet whether they
                # live; a late listing may offer the same again.
                await self._wait(at_most=POLL_S / 2)

    async def _patiently(self, look: Callable[[], T]) -> T | None:
        """Look at files in a thread, again and again while the file system fails for now; None if
        it has to leave first."""
        while True:
            try:
                return await asyncio.to_thread(look)
            except DiskError as error:
                if not is_passing(error) or not self._heartbeat.is_fresh:
                    raise
                self._say(f"{error}: looks again")
            await self._wait(at_most=POLL_S)
            if self._drain.reason is not None:
                return None

    @property
    def _has_room(self) -> bool:
        return self._room > 0 and not (self._under_way and self._pace.is_crowded)

    @property
    def _room(self) -> int:
        """How many more runs may be begun."""
        return self._finder.limit(self._pace.most_under_way) - len(self._under_way)

    @property
    def _looked_lately(self) -> bool:
        """With runs under way there is time; without, looking is all there is to do."""
        return bool(self._under_way) and self._finder.looked_lately()

    async def _begin_some(self) -> None:
        if not self._engine_is_open and not await self._open_engine():
            return
        taken = await self._patiently(partial(self._finder.claim_some, self._room))
        for run, attempt in taken or ():
            task = asyncio.create_task(self._player.try_run(self._finder.runs[run], attempt))
            self._under_way[task] = (run, attempt)

    async def _open_engine(self) -> bool:
        """Load the model, before anything is claimed. False if it was told to leave meanwhile."""
        if self._serving is not None:
            opening = asyncio.create_task(self._serving.start())
            while not opening.done() and self._drain.reason is None:
                await self._look_up({opening}, at_most=POLL_S)
            if self._drain.reason is None and opening.exception() is not None:
                await asyncio.sleep(SIGNALS_APART_S)
            if self._drain.reason is not None:
                opening.cancel()
                await asyncio.gather(opening, return_exceptions=True)
                return False
            opening.result()
        self._engine_is_open = True
        await asyncio.to_thread(lambda: self._heartbeat.change(state="working"))
        return True

    async def _tell_engine(self) -> None:
        """What serves, once it has started."""
        assert self._serving is not None
        spec, facts = told_of(self._serving.spec), dict(self._serving.facts)
        await asyncio.to_thread(lambda: self._heartbeat.change(engine=spec, engine_facts=facts))

    async def _leave_without_engine(self, death: EngineDead) -> None:
        """Its runs go back. It is no failure when both were told to leave."""
        if self._drain.reason is None:
            await asyncio.sleep(SIGNALS_APART_S)
        if self._drain.reason is None:
            hint = f" ({death.hint})" if death.hint else ""
            self._drain.fail(f"the engine died: {death}{hint}")
        else:
            self._drain.within(0.0, "its engine has left")

    def _keep_measurement(self) -> None:
        """For later plans. It is not worth failing for."""
        if self._serving is None:
            return
        self._meter.startup_s = self._serving.startup_s
        measured = self._meter.measured(self._serving.spec, gpu=self._serving.gpu)
        if measured is not None:
            try:
                add_measurement(self._experiment.folder, measured)
            except StoreError as error:
                self._say(f"the engine's speed is not kept: {error}")

    async def _announce_drain(self) -> None:
        if not self._said_drain:
            self._said_drain = True
            self._say(f"draining: {self._drain.reason}; {len(self._under_way)} runs under way")
            await asyncio.to_thread(lambda: self._heartbeat.change(state="draining"))

    async def _wait(self, *, at_most: float) -> None:
        """Until a run ends, somebody asks to drain, or that many seconds have passed."""
        for task in await self._look_up(self._under_way, at_most=at_most):
            ended = self._under_way.pop(task)
            try:
                task.result()
                self._finder.remaining -= 1
            except EngineDead as death:
                self._handed_back.append(ended)
                await self._leave_without_engine(death)
        tally = self._player.tally
        if tally.engine_failures >= ENGINE_FAILURES_IN_A_ROW:
            failures = tally.engine_failures
            self._drain.fail(f"the engine failed {failures} times in a row: {tally.engine_problem}")

    async def _look_up(
        self, tasks: Iterable[asyncio.Task[None]], *, at_most: float
    ) -> set[asyncio.Task[None]]:
        """Those of the tasks that have ended; sooner if somebody asks to drain."""
        self._asked_to_drain.clear()
        asked = asyncio.ensure_future(self._asked_to_drain.wait())
        watched: set[asyncio.Future[Any]] = {*tasks, asked}
        await asyncio.wait(
            watched,
            timeout=self._drain.seconds_to_next_stage(at_most=at_most),
            return_when=asyncio.FIRST_COMPLETED,
        )
        asked.cancel()
        return {task for task in tasks if task.done()}

    async def _let_go(self) -> None:
        """End what is under way; its runs are free for others before the engine is stopped."""
        for task in self._under_way:
            task.cancel()
        for task, ended in self._under_way.items():
            try:
                await task
            except (asyncio.CancelledError, EngineDead):
                self._handed_back.append(ended)
            except VendoMiniError as error:
                self._drain.fail(str(error))
        self._under_way.clear()
        if self._drain.problem is None:
            for run, attempt in self._handed_back:
                try:
                    await asyncio.to_thread(self._claims.release, run, attempt)
                except StoreError as error:  # the end of this worker frees them, too
                    self._drain.fail(str(error))
                    return

    def _leave(self) -> None:
        """Say `ended`, which frees every run of this incarnation. On a full disk nobody can:
        then its process's end says it."""
        for name, why in list(self._experiment.odd.items()):
            self._say(f"passed over: {name}: {why}")
        for close in (self._logs.close, self._claims.close):
            try:
                close()
            except (StoreError, OSError) as error:
                self._drain.fail(str(error))
        try:
            self._heartbeat.end(problem=self._drain.problem)
        except (StoreError, OSError) as error:
            self._is_told = False
            self._drain.fail(str(error))

    def _may_wait(self) -> bool:
        """Whether a disk that fails is to be waited for: nobody may take its runs meanwhile, and
        nothing waits for this worker to leave."""
        return self._heartbeat.is_fresh and not self._drain.is_over

    def _fail(self, problem: str) -> None:
        """From the threads that beat and flush: going on is useless."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._drain.fail, problem)

    def _on_drain(self) -> None:
        self._asked_to_drain.set()

    def _counted(self, record: WorkerRecord) -> WorkerRecord:
        # An engine learns from its answers, and forgets when it stops.
        serving = self._serving if self._engine_is_open else None
        facts = {} if serving is None else dict(serving.facts)
        return msgspec.structs.replace(
            record,
            steps=self._player.steps,
            runs=self._player.tally.done,
            under_way=len(self._under_way),
            doing=None if self._engine_is_open else self._doing(),
            engine_facts=facts or record.engine_facts,
        )
