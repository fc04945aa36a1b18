"""One attempt at a run: from its claim to its result or its error."""

import asyncio
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from vendomini import __version__
from vendomini.engines.registry import usd_of
from vendomini.errors import (
    ConfigError,
    EngineDead,
    EngineError,
    EngineLacks,
    ReplayError,
    StoreError,
    VendoMiniError,
)
from vendomini.phase import Run, settings_of
from vendomini.store.claims import Claims
from vendomini.store.experiment import Experiment
from vendomini.store.logs import Logs, ReplyIndex, StepWriter
from vendomini.store.records import (
    ErrorKind,
    ErrorRecord,
    ResultRecord,
    Served,
    WorkerRecord,
    encode,
)
from vendomini.worker.drive import Answers, asked_of, drive
from vendomini.worker.job import Job
from vendomini.worker.meter import Meter
from vendomini.worker.pace import Pace
from vendomini.worker.serving import Serving
from vendomini.worker.together import Together
from vendomini.worker.turn import InTurn
from vendomini.workloads.workload import Workload


@dataclass(slots=True)
class Tally:
    """What a worker has done so far.

    `engine_failures` are those since the last finished run, `engine_problem` the last one's words.
    """

    done: int = 0
    failed: int = 0
    engine_failures: int = 0
    engine_problem: str = ""
    ended_steps: int = 0


class Player:
    """Plays runs of one group on one engine, any number of them at the same time.

    `is_fresh` tells whether others still must take this worker for alive; what it says is
    logged by `said`.
    """

    def __init__(
        self,
        experiment: Experiment,
        job: Job,
        *,
        identity: WorkerRecord,
        workload: Workload,
        serving: Serving | None,
        claims: Claims,
        logs: Logs,
        index: ReplyIndex,
        pace: Pace,
        meter: Meter,
        is_fresh: Callable[[], bool],
        said: Callable[[str], None],
    ) -> None:
        self.tally = Tally()
        self._experiment = experiment
        self._job = job
        self._identity = identity
        self._workload = workload
        self._serving = serving
        self._claims = claims
        self._logs = logs
        self._index = index
        self._pace = pace
        self._meter = meter
        self._is_fresh = is_fresh
        self._say = said
        self._sync_logs = Together(logs.sync)
        self._flush_logs = Together(logs.flush)
        self._sync_results = Together(
            lambda: experiment.disk.sync_folder(experiment.path("results"))
        )
        self._writers: dict[str, StepWriter] = {}

    @property
    def steps(self) -> int:
        """Steps of all runs so far, those under way included."""
        return self.tally.ended_steps + sum(each.count for each in list(self._writers.values()))

    async def try_run(self, run: Run, attempt: int) -> None:
        """Raises `StoreError` when the disk fails or another engine is pinned, `EngineLacks` when
        the engine cannot do what runs need and `EngineDead` when there is none any more: then no
        run can go on. Every other error is this run's."""
        started = time.monotonic()
        self._pace.begin(run.id)
        writer = self._writers[run.id] = StepWriter(self._logs.steps, run.id)
        try:
            logged = {}
            if attempt > 1 and self._serving is not None:
                earlier = await asyncio.to_thread(self._claims.earlier, run.id, attempt)
                logged = await asyncio.to_thread(self._index.longest, run.id, earlier)
            answers = Answers(
                run,
                attempt,
                logged=logged,
                engines=asked_of(self._in_turn(run.id)),
                log=self._logs.replies,
            )
            episode = self._workload.play(
                settings_of(run.settings, self._workload.settings_type),
                seed=run.seed,
                replication=run.replication,
                record=writer,
            )
            outcome = encode(await drive(episode, answers))
            if not outcome.startswith(b"{"):
                said = outcome[:40].decode()
                raise TypeError(f"the outcome is no JSON object: {said}; does `play` return one?")
        except ReplayError as error:
            await self._fail(run, attempt, "replay", error)
        except (EngineDead, EngineLacks):
            raise
        except EngineError as error:
            self.tally.engine_failures += 1
            self.tally.engine_problem = f"{error} ({error.hint})" if error.hint else str(error)
            await self._fail(run, attempt, "engine", error)
        except StoreError:
            raise
        except Exception as error:
            # Per episode: one broken run must not take the others down with it.
            await self._fail(run, attempt, "bug", error)
        else:
            self.tally.engine_failures = 0
            seconds = time.monotonic() - started
            served = self._served(attempt, answers, seconds=seconds, steps=writer.count)
            await self._publish(
                ResultRecord(run=run.id, outcome=msgspec.Raw(outcome), served=served)
            )
        finally:
            self._pace.leave(run.id)
            self.tally.ended_steps += self._writers.pop(run.id).count

    def _served(self, attempt: int, answers: Answers, *, seconds: float, steps: int) -> Served:
        slurm, serving = self._identity.slurm, self._serving
        usd = None
        if serving is not None:
            tokens = {"tokens_in": answers.tokens_in, "tokens_out": answers.tokens_out}
            try:
                usd = usd_of(serving.spec, **tokens)
            except ConfigError as error:  # a run is worth more than its price
                self._say(str(error))
        return Served(
            attempt=attempt,
            incarnation=self._identity.incarnation,
            submission=self._job.submission,
            backend=None if serving is None else serving.spec.backend,
            node=slurm.node if slurm is not None else self._identity.process.host,
            job=slurm.job if slurm is not None else None,
            seconds=round(seconds, 3),
            replies=answers.replies,
            replayed=answers.replayed,
            tokens_in=answers.tokens_in,
            tokens_out=answers.tokens_out,
            tokens_cached=answers.tokens_cached,
            usd=usd,
            steps=steps,
            attention=None if serving is None else serving.facts.get("attention"),
            fell_back_from=None if serving is None else serving.fell_back_from,
            fell_back_why=None if serving is None else serving.fell_back_why,
            version=__version__,
            dtype=None
            if serving is None
            else serving.facts.get("dtype") or serving.spec.settings.dtype,
            quantization=None if serving is None else serving.spec.settings.quantization,
        )

    async def _publish(self, record: ResultRecord) -> None:
        """Make the result known, when all that it rests on is on the disk: after a power cut there
        is no result without its replies and steps. All results of a moment share the syncs."""
        await self._sync_logs()
        if await asyncio.to_thread(self._is_published, record):
            self.tally.done += 1
            await self._sync_results()

    def _is_published(self, record: ResultRecord) -> bool:
        """Not if this worker may have been taken for dead meanwhile."""
        if not self._is_fresh() or not self._claims.is_mine(record.run, record.served.attempt):
            self._say(f"run {record.run}: somebody else has taken it over; its result is left out")
            return False
        return self._experiment.publish_result(record.run, record)

    async def _fail(self, run: Run, attempt: int, kind: ErrorKind, error: Exception) -> None:
        self.tally.failed += 1
        self._say(f"run {run.id} attempt {attempt} failed: {type(error).__name__}: {error}")
        known = isinstance(error, VendoMiniError)
        record = ErrorRecord(
            run=run.id,
            attempt=attempt,
            incarnation=self._identity.incarnation,
            submission=self._job.submission,
            kind=kind,
            message=f"{type(error).__name__}: {error}",
            hint=error.hint if isinstance(error, VendoMiniError) else "",
            trace="" if known else traceback.format_exc(),
        )
        await self._flush_logs()
        await asyncio.to_thread(self._experiment.publish_error, record)

    def _in_turn(self, run: str) -> InTurn | None:
        """The group's engine for one run; None: it has none."""
        if self._serving is None:
            return None
        return InTurn(self._serving, run, pin=self._pin, pace=self._pace, meter=self._meter)

    async def _pin(self) -> None:
        """Before the group's first reply: what serves it is written down, and holds for all."""
        if self._logs.are_behind:  # waited for here, where signals are heard meanwhile
            await self._flush_logs()
        assert self._serving is not None
        await self._serving.pin()
