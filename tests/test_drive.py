"""Driving one episode: what comes from the log, what from the engine, and what is logged."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest

from tests.toy import toy_runs
from vendomini.chat import (
    ChatRequest,
    Choice,
    CommandRequest,
    CompletionRequest,
    Engine,
    EngineFeatures,
    Episode,
    Message,
    Reply,
    Request,
    ScoreRequest,
    Tool,
    ask,
    ask_all,
    request_seed,
    seeded,
)
from vendomini.engines.scripted import ScriptedEngine, echo
from vendomini.errors import EngineError, ReplayError, WorkloadError
from vendomini.store.disk import Disk
from vendomini.store.hashing import request_hash
from vendomini.store.logs import Appender, Logged
from vendomini.store.records import ReplyEntry
from vendomini.worker.drive import Answers, asked_of, drive

(RUN,) = toy_runs(1)
Log = Mapping[tuple[int, int], Logged]


def chat(text: str) -> ChatRequest:
    return ChatRequest(messages=(Message(role="user", content=text),))


def conversation(asks: int) -> Episode[list[str]]:
    """Each ask has two positions, and repeats what was said last; between asks it pauses."""
    said = ["begin"]
    for _ in range(asks):
        one, other = yield from ask_all((chat(said[-1]), chat("other " + said[-1])))
        said += [one.text, other.text]
        yield ()
    last = yield from ask(chat(said[-1]))
    return [*said, last.text]


def answers_for(
    log: Path, engine: Engine | None, logged: Log | None = None, attempt: int = 1
) -> tuple[Answers, Appender]:
    appender = Appender(log, Disk())
    answers = Answers(RUN, attempt, logged=logged or {}, engines=asked_of(engine), log=appender)
    return answers, appender


def play(
    log: Path, engine: ScriptedEngine, logged: Log | None = None, attempt: int = 1
) -> tuple[list[str], Answers]:
    answers, appender = answers_for(log, engine, logged, attempt)
    said = asyncio.run(drive(conversation(3), answers))
    appender.close()
    return said, answers


def entries(log: Path) -> dict[tuple[int, int], Logged]:
    found = {}
    for line in log.read_bytes().splitlines():
        entry = msgspec.json.decode(line, type=ReplyEntry)
        found[entry.ask, entry.position] = Logged(hash=entry.hash, reply=entry.reply)
    return found


def test_every_reply_is_logged_under_its_ask_and_position_and_pauses_do_not_count(
    tmp_path: Path,
) -> None:
    _, answers = play(tmp_path / "log", ScriptedEngine(echo))
    places = {(ask, position) for ask in range(3) for position in range(2)} | {(3, 0)}
    assert set(entries(tmp_path / "log")) == places
    assert (answers.replies, answers.replayed) == (7, 0)


def test_a_request_gets_the_seed_of_its_place(tmp_path: Path) -> None:
    seeds: list[int | None] = []

    def note(request: Request) -> Reply:
        seeds.append(request.seed)
        return echo(request)

    play(tmp_path / "log", ScriptedEngine(note))
    places = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (3, 0)]
    assert seeds == [request_seed(RUN.seed, RUN.replication, *place) for place in places]


def test_a_whole_log_is_replayed_without_the_engine_and_copied(tmp_path: Path) -> None:
    said, _ = play(tmp_path / "first", ScriptedEngine(echo))
    engine = ScriptedEngine([])
    again, answers = play(tmp_path / "second", engine, entries(tmp_path / "first"), attempt=2)
    assert again == said
    assert (engine.answered, answers.replayed) == (0, 7)
    assert entries(tmp_path / "second") == entries(tmp_path / "first")


def test_of_an_ask_that_was_logged_in_part_only_the_rest_is_asked(tmp_path: Path) -> None:
    said, _ = play(tmp_path / "first", ScriptedEngine(echo))
    logged = {
        place: entry for place, entry in entries(tmp_path / "first").items() if place < (1, 1)
    }
    del logged[1, 0]
    logged[1, 1] = entries(tmp_path / "first")[1, 1]
    engine = ScriptedEngine(echo)
    again, answers = play(tmp_path / "second", engine, logged, attempt=2)
    assert again == said
    assert (engine.answered, answers.replayed) == (4, 3)


def test_after_a_hole_the_rest_of_the_log_no_longer_applies(tmp_path: Path) -> None:
    play(tmp_path / "first", ScriptedEngine(echo))
    logged = entries(tmp_path / "first")
    del logged[1, 0]  # a live model says something else when it is asked again
    other = ScriptedEngine(lambda request: "something else")
    said, answers = play(tmp_path / "second", other, logged, attempt=2)
    assert said[3] == "something else"
    assert answers.replayed == 3
    assert other.answered == 4


def test_a_request_that_differs_from_its_log_is_an_error_that_names_the_place(
    tmp_path: Path,
) -> None:
    play(tmp_path / "first", ScriptedEngine(echo))
    logged = entries(tmp_path / "first")
    logged[2, 1] = replace(logged[2, 1], hash="0" * 32)
    with pytest.raises(ReplayError, match="ask 2, position 1"):
        play(tmp_path / "second", ScriptedEngine(echo), logged, attempt=2)


def test_when_one_of_several_requests_fails_the_others_are_not_left_running(
    tmp_path: Path,
) -> None:
    cancelled: list[str] = []

    class HalfBroken(ScriptedEngine):
        async def answer(self, request: Request) -> Reply:
            if isinstance(request, ScoreRequest):
                raise EngineError("cannot score today")
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                cancelled.append("chat")
                raise
            raise AssertionError

    def both() -> Episode[None]:
        yield from ask_all((chat("x"), ScoreRequest(prompt="x", continuations=("a",))))

    async def fails() -> None:
        answers, _ = answers_for(tmp_path / "log", HalfBroken(echo))
        with pytest.raises(EngineError, match="cannot score"):
            await drive(both(), answers)
        await asyncio.sleep(0)

    asyncio.run(fails())
    assert cancelled == ["chat"]


def test_an_engine_that_lacks_what_is_asked_refuses_by_name(tmp_path: Path) -> None:
    class Chatting(ScriptedEngine):
        features = EngineFeatures(
            kinds=frozenset({"chat"}),
            formats=frozenset({"text"}),
            several_choices=False,
            logprobs=False,
            seed_support="none",
        )

    def completes() -> Episode[None]:
        yield from ask(CompletionRequest(prompt="x"))

    answers, _ = answers_for(tmp_path / "log", Chatting(echo))
    with pytest.raises(EngineError, match="requests of kind `completion`"):
        asyncio.run(drive(completes(), answers))


class Commands:
    """Runs commands, and counts them."""

    features = EngineFeatures(
        kinds=frozenset({"command"}),
        formats=frozenset({"text"}),
        several_choices=False,
        logprobs=False,
        seed_support="none",
    )
    facts: ClassVar[Mapping[str, str]] = {}

    def __init__(self) -> None:
        self.ran = 0

    async def answer(self, request: Request) -> Reply:
        assert isinstance(request, CommandRequest)
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*request.argv, stdin=pipe, stdout=pipe)
        told, _ = await process.communicate(request.stdin.encode())
        self.ran += 1
        return Reply(choices=(Choice(text=told.decode()),))


class Scores(ScriptedEngine):
    """Answers until it has answered `fatal` requests; then it never does."""

    def __init__(self, commands: Commands, fatal: int | None = None) -> None:
        super().__init__(echo)
        self._commands = commands
        self._fatal = fatal
        self.is_stuck = asyncio.Event()

    async def answer(self, request: Request) -> Reply:
        if self.answered == self._fatal:
            while self._commands.ran <= self.answered:  # the command beside it is not held up
                await asyncio.sleep(0.001)
            self.is_stuck.set()
            await asyncio.sleep(3600)
        return await super().answer(request)


def judged_by_score_and_command() -> Episode[list[str]]:
    """Each ask has a score, and a command that is given what was said last."""
    said = ["begin"]
    for _ in range(4):
        score, told = yield from ask_all(
            (
                ScoreRequest(prompt=said[-1], continuations=(" yes", " no")),
                CommandRequest(argv=("tr", "a-y", "b-z"), stdin=said[-1]),
            )
        )
        said.append(f"{told.text} {score.choices[0].score}")
    return said


def play_judged(log: Path, logged: Log, *, fatal: int | None) -> tuple[list[str], int, int]:
    """What was said, and how many scores and commands were asked; killed at a score if `fatal`."""

    async def live() -> tuple[list[str], int, int]:
        commands = Commands()
        scores = Scores(commands, fatal)
        appender = Appender(log, Disk())
        engines = {**asked_of(scores), "command": commands}
        answers = Answers(RUN, 1, logged=logged, engines=engines, log=appender)
        driven = asyncio.create_task(drive(judged_by_score_and_command(), answers))
        stuck = asyncio.create_task(scores.is_stuck.wait())
        await asyncio.wait({driven, stuck}, return_when=asyncio.FIRST_COMPLETED)
        said: list[str] = []
        if stuck.done():
            await asyncio.sleep(0)  # what the command said is logged
            driven.cancel()
            await asyncio.gather(driven, return_exceptions=True)
        else:
            stuck.cancel()
            said = driven.result()
        appender.close()
        return said, scores.answered, commands.ran

    return asyncio.run(live())


def test_scores_and_commands_of_one_ask_are_answered_side_by_side_each_by_its_own(
    tmp_path: Path,
) -> None:
    said, scored, ran = play_judged(tmp_path / "log", {}, fatal=None)
    assert said[1].startswith("cfhjo -")
    assert (scored, ran) == (4, 4)


def test_neither_scores_nor_commands_that_were_logged_are_asked_again(tmp_path: Path) -> None:
    undisturbed, _, _ = play_judged(tmp_path / "undisturbed", {}, fatal=None)
    _, scored, ran = play_judged(tmp_path / "first", {}, fatal=2)
    assert (scored, ran) == (2, 3)
    logged = entries(tmp_path / "first")
    assert set(logged) == {(0, 0), (0, 1), (1, 0), (1, 1), (2, 1)}
    said, scored, ran = play_judged(tmp_path / "second", logged, fatal=None)
    assert said == undisturbed
    assert (scored, ran) == (2, 1)
    assert entries(tmp_path / "second") == entries(tmp_path / "undisturbed")


def test_a_kind_that_nobody_answers_is_refused_by_name(tmp_path: Path) -> None:
    def runs() -> Episode[None]:
        yield from ask(CommandRequest(argv=("ls",)))

    answers, _ = answers_for(tmp_path / "log", ScriptedEngine(echo))
    with pytest.raises(WorkloadError, match="requests of kind `command`, which this version"):
        asyncio.run(drive(runs(), answers))


@pytest.mark.parametrize(
    ("request_", "missing"),
    [
        (replace(chat("x"), role="judge"), "role `judge`"),
        (
            replace(chat("x"), tools=(Tool(name="t", description="", parameters="{}"),)),
            "asks for tools, which this version cannot do yet",
        ),
        (
            ChatRequest(messages=(Message(role="tool", content="3", tool_call_id="1"),)),
            "tool calls in messages",
        ),
    ],
)
def test_what_no_engine_can_do_yet_is_refused_by_name_and_not_asked(
    tmp_path: Path, request_: Request, missing: str
) -> None:
    def asks() -> Episode[None]:
        yield from ask(request_)

    engine = ScriptedEngine(echo)
    answers, _ = answers_for(tmp_path / "log", engine)
    with pytest.raises(WorkloadError, match=missing):
        asyncio.run(drive(asks(), answers))
    assert engine.answered == 0


def test_an_episode_that_asks_against_its_workloads_word_is_an_error(tmp_path: Path) -> None:
    answers, _ = answers_for(tmp_path / "log", None)
    with pytest.raises(EngineError, match="said that it never would"):
        asyncio.run(drive(conversation(1), answers))


def test_an_episode_is_closed_whatever_happens(tmp_path: Path) -> None:
    closed: list[bool] = []

    def careful() -> Episode[None]:
        try:
            yield from ask(chat("x"))
        finally:
            closed.append(True)

    answers, _ = answers_for(tmp_path / "log", ScriptedEngine([]))
    with pytest.raises(EngineError):
        asyncio.run(drive(careful(), answers))
    assert closed == [True]


def test_the_hash_in_the_log_is_that_of_the_request_with_its_seed(tmp_path: Path) -> None:
    play(tmp_path / "log", ScriptedEngine(echo))
    first = seeded(chat("begin"), request_seed(RUN.seed, RUN.replication, 0, 0))
    assert entries(tmp_path / "log")[0, 0].hash == request_hash(first)
