"""The whole program while its engine dies, hangs or never starts: one clear message, nothing of it
left on the machine, and the same command goes on where it stopped."""

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.live.conftest import Models
from tests.live.engines import Live, spec_for
from tests.live.place import RUNS, Ended, Place
from vendomini.errors import EngineError

TOO_SMALL = 1 << 16
MakePlace: TypeAlias = Callable[..., Place]


@pytest.fixture
def make_place(tmp_path: Path, models: Models) -> Iterator[MakePlace]:
    made: list[Place] = []

    def make(backend: str, **engine: Any) -> Place:
        made.append(Place(tmp_path, models.warehouse(), backend, **engine))
        return made[0]

    yield make
    for place in made:
        place.clear()


def assert_says_once(ended: Ended, cause: str) -> None:
    """Status 3, and one message with the cause and what to do."""
    assert ended.status == 3, ended.said
    assert ended.said.count("a worker ended: ") == 1
    assert cause in ended.said.partition("a worker ended: ")[2]


# -- before it is ready ---------------------------------------------------------------------------


def test_vllm_that_is_not_installed_and_not_replaced_is_refused_before_anything_is_written(
    make_place: MakePlace,
) -> None:
    place = make_place("vllm", python=sys.executable, on_failure="fail")
    ended = place.run()
    assert ended.status == 2
    assert "backend `vllm` needs `vllm`, which" in ended.said
    assert "name its interpreter with engine.python=PATH" in ended.said
    assert not place.experiment.folder.parent.exists()


def test_an_engine_that_is_never_ready_is_given_up_at_its_deadline(
    make_place: MakePlace, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/sh\nif [ "$1" = -c ]; then shift 2; printf "%s\\n" "$@"; else sleep 600; fi\n'
    )
    python.chmod(0o755)
    place = make_place("vllm", python=str(python), start_timeout_s=2, on_failure="fail")
    place.start()
    assert str(python) in place.server.command
    ended = place.end()
    assert_says_once(ended, "the engine was not ready after 2 s")
    assert "raise `engine.start_timeout_s`" in ended.said
    place.assert_nothing_is_left()


@pytest.mark.parametrize("backend", ["hf", pytest.param("vllm", marks=pytest.mark.vllm)])
def test_a_kv_cache_for_less_than_one_conversation_is_refused_before_anything_is_written(
    make_place: MakePlace, backend: str
) -> None:
    place = make_place(backend, kv_cache_memory_bytes=TOO_SMALL)
    ended = place.run()
    assert ended.status == 2
    assert "of KV cache, but `engine.kv_cache_memory_bytes` is `65536`" in ended.said
    assert "agent.model.context_length=" in ended.said
    assert not place.experiment.folder.parent.exists()


def test_what_only_the_engine_can_know_is_named_as_the_cause(make_place: MakePlace) -> None:
    place = make_place("hf", quantization="bitsandbytes-4bit")
    place.start()
    assert place.server.is_alive
    ended = place.end()
    assert_says_once(ended, "the engine did not start: `bitsandbytes-4bit` needs a GPU")
    assert "engine.quantization" in ended.said
    place.assert_nothing_is_left()
    assert not place.experiment.finished()


@pytest.mark.vllm
@pytest.mark.long
def test_a_kv_cache_that_vllm_finds_too_small_is_named_as_the_cause(
    models: Models, tmp_path: Path
) -> None:
    spec = spec_for("vllm", models.warehouse(), kv_cache_memory_bytes=TOO_SMALL)
    with pytest.raises(EngineError) as caught, Live(spec, tmp_path):
        pass
    assert "KV" in str(caught.value)
    assert "engine.max_model_len" in caught.value.hint
    assert "Engine core initialization failed" not in str(caught.value)


# -- while it loads -------------------------------------------------------------------------------


def kill_while_loading(place: Place) -> None:
    place.start()
    place.server.send(signal.SIGKILL)
    assert_says_once(place.end(), "the engine did not start: it was ended by SIGKILL")


def interrupt_while_loading(place: Place) -> None:
    place.start()
    assert place.server.is_alive
    place.press_ctrl_c()
    assert_interrupted(place.end())


def kill_the_worker_while_vllm_loads(place: Place) -> None:
    place.start()
    assert place.engine_core.is_alive
    place.worker.send(signal.SIGKILL)
    assert_killed_worker(place.end())


# -- while it answers -----------------------------------------------------------------------------


def kill_the_server(place: Place) -> None:
    begin(place)
    place.server.send(signal.SIGKILL)
    assert_says_once(place.end(), "the engine died: it was ended by SIGKILL")


def kill_the_engine_core(place: Place) -> None:
    begin(place)
    place.engine_core.send(signal.SIGKILL)
    cause = "the engine died: its process EngineCore was killed, perhaps because memory ran out"
    assert_says_once(place.end(), cause)


def kill_the_worker(place: Place) -> None:
    begin(place)
    place.worker.send(signal.SIGKILL)
    assert_killed_worker(place.end())


def interrupt(place: Place) -> None:
    begin(place)
    place.press_ctrl_c()
    assert_interrupted(place.end())


def hang(place: Place) -> None:
    assert not place.experiment.errors()  # the deaths before were no run's fault
    begin(place, "engine.concurrency=8", "engine.request_timeout_s=5")
    place.server.send(signal.SIGSTOP)
    ended = place.end()
    assert_says_once(ended, " times in a row: no answer within 5 s")
    assert "raise `engine.request_timeout_s`" in ended.said
    errors = [each for found in place.experiment.errors().values() for each in found]
    assert {error.kind for error in errors} == {"engine"}


def begin(place: Place, *overrides: str) -> None:
    """Come into the middle of the work; two at a time, lest it end before its time."""
    place.start("engine.concurrency=2", *overrides)
    place.wait_for_replies()


def assert_interrupted(ended: Ended) -> None:
    assert ended.status == 130
    assert "nothing is lost: the same command goes on where this one stopped" in ended.said


def assert_killed_worker(ended: Ended) -> None:
    assert ended.status == 1
    assert "1 of 1 workers were killed" in ended.said


# -- and then -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "disturbances"),
    [
        pytest.param("hf", (interrupt_while_loading, kill_the_server), id="hf"),
        pytest.param("vllm", (kill_the_engine_core,), id="vllm", marks=pytest.mark.vllm),
        pytest.param(
            "hf",
            (
                kill_while_loading,
                interrupt_while_loading,
                kill_the_server,
                kill_the_worker,
                interrupt,
                hang,
            ),
            id="hf, every one",
            marks=pytest.mark.long,
        ),
        pytest.param(
            "vllm",
            (
                kill_while_loading,
                kill_the_worker_while_vllm_loads,
                kill_the_engine_core,
                kill_the_server,
            ),
            id="vllm, every one",
            marks=[pytest.mark.vllm, pytest.mark.long],
        ),
    ],
)
def test_whatever_ends_an_engine_nothing_of_it_is_left_and_the_same_command_goes_on(
    make_place: MakePlace, backend: str, disturbances: Sequence[Callable[[Place], None]]
) -> None:
    place = make_place(backend, on_failure="fail")  # each death is to be seen
    for disturb in disturbances:
        before = place.kept()
        disturb(place)
        place.assert_nothing_is_left()
        place.assert_only_grew(before)
        assert len(place.experiment.finished()) < RUNS
    before = place.kept()
    ended = place.run()
    assert ended.status == 0, ended.said
    place.assert_complete()
    place.assert_only_grew(before)
    assert place.replayed() > 0
    place.assert_nothing_is_left()
