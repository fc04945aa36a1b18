"""`play`: one run in the terminal, live or from the log of a finished run. Writes no file.

Both ways play the same episode, with the requests and seeds a worker would have. From the log,
the logged replies answer: what the agent was asked is found out anew, and each step is compared
with the one that was logged.
"""

import asyncio
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from vendomini.chat import Engine, Episode, Reply, Request
from vendomini.cli import show
from vendomini.cli.view import View, list_runs
from vendomini.collect import derived, known_settings, todays_outcome
from vendomini.engines.gpus import visible_gpus
from vendomini.engines.registry import engine_for
from vendomini.errors import ConfigError, StoreError, VendoMiniError, WorkloadError
from vendomini.looking.engines import look_at_engines
from vendomini.looking.models import look_at_models
from vendomini.looking.places import pools_here
from vendomini.looking.runs import Found, chosen, find_runs, of_file, place_of
from vendomini.phase import Run
from vendomini.prepare import EngineFacts, make_plan, refuse_missing, refuse_unplayable
from vendomini.serving import EngineSpec
from vendomini.store.audit import why_short
from vendomini.store.experiment import Experiment
from vendomini.store.logs import Appender, Logged, ReplyIndex, StepWriter
from vendomini.store.records import ResultRecord, Served, encode
from vendomini.store.steps import StepLines, step_lines
from vendomini.transcript import Conversations, Exchange, Teller
from vendomini.worker.drive import Answers, asked_of, drive
from vendomini.workloads.registry import asked_by, workload_named
from vendomini.workloads.workload import RecordStep, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The options of `play`."""

    config: Path
    overrides: tuple[str, ...]
    root: Path
    run: str | None  # a prefix of its id; None: the first of the grid
    steps: str | None
    live: bool
    only_list: bool
    full: bool
    pause: bool
    debug: bool
    as_json: bool


def play(request: Shown) -> int:
    """The exit status: 0, or 1 if a replay differed from its log."""
    if not request.debug:
        return _play(request)
    if not request.live:
        raise ConfigError("--debug is for a run that is played here", hint="add --live")
    try:
        return _play(request)
    except VendoMiniError:
        # A user's mistake is one line elsewhere; who writes a workload wants to see where.
        traceback.print_exc()
        raise


def _play(request: Shown) -> int:
    wanted = _range_of(request.steps)
    found = find_runs(request.config, request.overrides, root=request.root, say=show.say)
    if request.only_list:
        list_runs(found, as_json=request.as_json)
        return 0
    run = chosen(found, request.run)
    workload = workload_named(run.workload)
    result = None
    if found.experiment.exists():
        found.experiment.check()
        result = None if request.live else found.experiment.result(run.id)
    settings = known_settings(run, workload)
    teller = workload.teller(settings)
    view = View(
        teller,
        steps=wanted,
        full=request.full,
        as_json=request.as_json,
        pause=request.pause,
    )
    if result is not None:
        show.say(f"finished: shown from its log in {found.experiment.folder}")
        view.begin(_title(run, found.experiment.name, teller))
        return _play_log(found.experiment, run, workload, settings, result, view)
    if settings is None or run.workload_version != workload.version:
        raise StoreError(
            f"run {run.id} is of version {run.workload_version} of `{workload.name}`, and this "
            f"VendoMini plays version {workload.version}",
            hint="name the phase file: its runs are those of this version",
        )
    spec = _spec(found, run, workload)
    _say_why_live(found.experiment, run, is_forced=request.live)
    view.begin(_title(run, found.experiment.name, teller))
    played = _play_live(run, workload, settings, spec, view)
    if played is None:
        show.say(f"stopped after step {wanted.stop - 1}, as asked: there is no outcome")
    else:
        outcome = msgspec.json.decode(played[0])
        view.outcome(outcome, _derived(workload, settings, played[1], outcome, view))
    return 0


# -- what is said ---------------------------------------------------------------------------


def _title(run: Run, experiment: str, teller: Teller) -> dict[str, str]:
    title = {"run": f"{run.id} of {experiment}", "place": place_of(run)}
    if who := teller.who():
        title["agent"] = who
    elif asked_by(run) == "model":
        title["model"] = run.model.name
    return title


def _say_why_live(experiment: Experiment, run: Run, *, is_forced: bool) -> None:
    show.say("live: played here and now, and nothing is written")
    if is_forced or not experiment.exists():
        return
    errors = experiment.errors([run.id]).get(run.id)
    if errors:
        last = errors[-1]
        show.say(f"in {experiment.folder} its attempt {last.attempt} failed: {last.message}")
    else:
        show.say(f"in {experiment.folder} it is not finished")


def _range_of(text: str | None) -> range:
    """``A:B`` from A up to and with B, either left away; or ``A`` alone. Raises `ConfigError`."""
    if text is None:
        return range(sys.maxsize)
    first, colon, last = text.partition(":")
    parts = (first or "0", (last or str(sys.maxsize - 1)) if colon else first)
    if text.strip(":") and all(part.isascii() and part.isdigit() for part in parts):
        start, stop = int(parts[0]), int(parts[1]) + 1
        if start < stop:
            return range(start, stop)
    raise ConfigError(
        f"--steps is `{text}`", hint="give A:B, such as 10:20 (with step 20), 10: or a single step"
    )


# -- playing it ----------------------------------------------------------------------------


class _Enough(Exception):
    """Ends an episode whose further steps are not wanted."""


class _Differs(Exception):
    """Ends a replay at a step that is not the logged one."""


class _Watched(Answers):
    """Answers as a worker's run would have them, and remembers what was asked and answered."""

    def __init__(
        self, run: Run, *, logged: Mapping[tuple[int, int], Logged], engine: Engine | None
    ) -> None:
        super().__init__(
            run,
            1,
            logged=logged,
            engines=asked_of(engine),
            log=_Lines(lambda line: None),
        )
        self._conversations = Conversations()
        self._exchanges: list[Exchange] = []

    async def to(self, requests: tuple[Request, ...]) -> tuple[Reply, ...]:
        replies = await super().to(requests)
        for request, reply in zip(requests, replies, strict=True):
            self._exchanges.append(self._conversations.exchange(request, reply))
        return replies

    def taken(self) -> list[Exchange]:
        """The exchanges since the last time, which are those of one step."""
        taken, self._exchanges = self._exchanges, []
        return taken


class _Lines(Appender):
    """In a log's place: hands each line on, and has no file."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take

    def add(self, line: bytes) -> None:
        self._take(line)


async def _episode(
    run: Run,
    play: Callable[..., Episode[Any]],
    *,
    engine: Engine | None,
    logged: Mapping[tuple[int, int], Logged],
    take: Callable[[bytes, list[Exchange]], None],
) -> bytes:
    """Play a run to its end; its outcome as JSON. `take` gets each step's line of the log.

    `play` is the workload's, with the run's settings.
    """
    try:
        if engine is not None:
            await engine.start()
        answers = _Watched(run, logged=logged, engine=engine)
        record: RecordStep = StepWriter(_Lines(lambda line: take(line, answers.taken())), run.id)
        episode = play(seed=run.seed, replication=run.replication, record=record)
        return encode(await drive(episode, answers))
    finally:
        if engine is not None:
            await engine.stop()


def _play_live(
    run: Run, workload: Workload, settings: Any, spec: EngineSpec | None, view: View
) -> tuple[bytes, list[bytes]] | None:
    """Its outcome and its steps; None: it was stopped before its end, as asked."""
    lines: list[bytes] = []

    def take(line: bytes, exchanges: list[Exchange]) -> None:
        lines.append(line)
        if not view.step(msgspec.json.decode(line), exchanges):
            raise _Enough

    with tempfile.TemporaryDirectory() as folder:
        engine = None
        if spec is not None:
            engine = engine_for(spec, log=Path(folder, "engine.log"), said=show.say)
        try:
            play = partial(workload.play, settings)
            return asyncio.run(_episode(run, play, engine=engine, logged={}, take=take)), lines
        except _Enough:
            return None


def _play_log(
    experiment: Experiment,
    run: Run,
    workload: Workload,
    settings: Any,
    result: ResultRecord,
    view: View,
) -> int:
    served = result.served
    there, why_not = _logged_steps(experiment, run.id, served)
    index = ReplyIndex(experiment, is_wanted=lambda id: id == run.id)
    logged = index.longest(run.id, [(served.attempt, served.incarnation)])
    for name, odd in experiment.odd.items():
        show.say(f"passed over: {name}: {odd}")
    left = todays_outcome(msgspec.json.decode(result.outcome), run, workload)
    lines: list[bytes] = []

    def take(line: bytes, exchanges: list[Exchange]) -> None:
        shown = len(lines)
        if steps and (shown == len(steps) or not _same_step(steps[shown], line, workload)):
            raise _Differs(f"step {shown} comes out otherwise")
        lines.append(line)
        if not view.step(msgspec.json.decode(line), exchanges):
            raise _Enough

    steps = [] if why_not else there
    if why_not:
        show.say(f"its step log {why_not}: the steps are those of the replay")
    why = ""
    try:
        if settings is None:
            raise _Differs("this version does not know its settings any more")
        replay = partial(workload.replay, settings, outcome=msgspec.json.decode(result.outcome))
        outcome = asyncio.run(_episode(run, replay, engine=None, logged=logged, take=take))
        is_same = outcome == bytes(result.outcome) or msgspec.json.decode(outcome) == left
        if not is_same or len(lines) < len(steps):
            why = "it comes to another end"
    except _Enough:
        pass
    except _Differs as differs:
        why = str(differs)
    except VendoMiniError as error:
        why = str(error)
    if why:
        if run.workload_version != workload.version:
            why += f"; it is of version {run.workload_version}, played by {workload.version}"
        view.note(
            f"the replay differs from the log after {len(lines)} steps ({why}); what follows is "
            "the log alone, without what the agent saw and said"
        )
        for line in there[len(lines) :]:
            if not view.step(workload.todays_step(msgspec.json.decode(line)), None):
                break
    view.outcome(left, _derived(workload, settings, steps or lines, left, view))
    return 1 if why else 0


def _derived(
    workload: Workload, settings: Any, lines: list[bytes], outcome: Any, view: View
) -> dict[str, Any]:
    """What follows from the steps; a workload that cannot tell takes nothing else away."""
    try:
        return derived(workload, settings, lines, outcome)
    except WorkloadError as error:
        view.note(str(error))
        return {}


def _same_step(logged: bytes, line: bytes, workload: Workload) -> bool:
    """Whether a step comes out as it was logged, if perhaps in the words of an older version."""
    if logged == line:
        return True
    now: dict[str, Any] = msgspec.json.decode(line)
    return workload.todays_step(msgspec.json.decode(logged)) == now


def _logged_steps(experiment: Experiment, run: str, served: Served) -> tuple[list[bytes], str]:
    """The lines of a run's steps, from its last beginning on, and what they lack, if anything."""
    path = experiment.steps_path(served.incarnation)
    found = step_lines(experiment.disk.blocks(path), is_wanted=run.__eq__).get(run, StepLines())
    lines = experiment.disk.read_pieces(path, found.starts, found.sizes) if found.count else []
    if not lines and served.steps is None:
        return lines, "is lost"
    return lines, why_short(found.count, found.is_broken, wanted=served.steps)


def _spec(found: Found, run: Run, workload: Workload) -> EngineSpec | None:
    """The engine a worker here would open for the run; None: it never asks.

    Raises as `vendomini run` does for what cannot be played.
    """
    facts = EngineFacts()
    phase = found.phase()
    with of_file(phase.path):
        if asked_by(run) != "nobody":
            facts = look_at_engines(
                phase,
                look_at_models(phase, is_here=True),
                workload=workload,
                profile=None,
                experiment=found.experiment,
                restarted=(),
                pools=pools_here(visible_gpus(os.environ)),
            )
        plan = make_plan(
            [run],
            workload,
            name=phase.experiment.name,
            phase=phase.experiment.phase,
            profile=None,
            local_workers=1,
            facts=facts,
        )
    refuse_unplayable(plan, [run])
    refuse_missing(plan, profile=None, facts=facts, falls_back=False)
    return plan.groups[0].spec
