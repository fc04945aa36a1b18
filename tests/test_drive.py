"""Driving one episode: what comes from the log, what from the engine, and what is logged."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from tests.toy import toy_runs
from vendomini.chat import (
    ChatRequest,
    CompletionRequest,
    Engine,
    EngineFeatures,
    Episode,
    Message,
    Reply,
    Request,
    ScoreRequest,
    ask,
    ask_all,
    request_hash,
    request_seed,
    seeded,
)
from vendomini.engines.scripted import ScriptedEngine, echo
from vendomini.errors import EngineError, ReplayError
from vendomini.store.disk import Disk
from vendomini.store.logs import Appender, Logged
from vendomini.store.records import ReplyEntry
from vendomini.worker.drive import Answers, drive

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
    async def nothing() -> None:
        pass

    appender = Appender(log, Disk())
    answers = Answers(
        RUN, attempt, logged=logged or {}, engine=engine, log=appender, before_asking=nothing
    )
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
