"""An engine that cannot start, and the one that takes its place: in a worker, for its siblings, and
for whoever asks later. Engines are scripted; `tests/live/test_fallback.py` has the real ones."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.harness import job_for, make_worker, outcomes, undisturbed
from tests.specs import engine_spec
from tests.toy import toy_experiment
from vendomini.chat import Engine, EngineFeatures, Reply, Request
from vendomini.collect.mixing import fallback_notes, mixed_arms, mixing_notes
from vendomini.collect.reading import Reading
from vendomini.engines.scripted import ScriptedEngine, echo
from vendomini.errors import EngineDead, EngineError
from vendomini.standing import fallbacks, status_of
from vendomini.store.experiment import Experiment
from vendomini.store.measurements import read_measurements
from vendomini.store.records import Pin, pin_of
from vendomini.worker.drain import Drain
from vendomini.worker.worker import Ended

MODEL = "toy/model"
VLLM = engine_spec(backend="vllm", model=MODEL)
HF = engine_spec(backend="hf", model=MODEL)
CAUSE = "CUDA out of memory"
WARNING = f"[WARNING] vLLM initialization failed: {CAUSE}"
FALLING_BACK = "[*] Falling back to standard HuggingFace Transformers"


class Server(ScriptedEngine):
    """One that answers, and remembers what was done with it."""

    facts: ClassVar[Mapping[str, str]] = {"attention": "sdpa"}

    def __init__(self) -> None:
        super().__init__(echo)
        self.started = self.stopped = 0

    async def start(self) -> None:
        self.started += 1

    async def stop(self) -> None:
        self.stopped += 1


class Broken(Server):
    """Cannot start, after a moment in which `meanwhile` happens."""

    def __init__(self, cause: str = CAUSE, meanwhile: Any = None) -> None:
        super().__init__()
        self.cause, self.meanwhile = cause, meanwhile

    async def start(self) -> None:
        self.started += 1
        if self.meanwhile is not None:
            self.meanwhile()
        raise EngineError(f"the engine did not start: {self.cause}", hint="free some")


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    return toy_experiment(tmp_path, 4)


def play(
    experiment: Experiment,
    engine: Engine,
    fallback: Engine | None = None,
    *,
    said: list[str] | None = None,
    drain: Drain | None = None,
    **changes: Any,
) -> Ended:
    job = job_for(experiment, engine=VLLM, fallback=None if fallback is None else HF, **changes)
    worker = make_worker(
        experiment,
        job,
        engine,
        fallback=fallback,
        drain=drain,
        said=(lambda text: None) if said is None else said.append,
    )
    return asyncio.run(worker.work())


def pinned(experiment: Experiment) -> Pin | None:
    return experiment.pinned("toy")


def pin_vllm(experiment: Experiment) -> None:
    assert experiment.pin("toy", pin_of(VLLM.settings)) == pin_of(VLLM.settings)


def pin_fallback(experiment: Experiment) -> None:
    pin = pin_of(HF.settings, instead_of="vllm", why=CAUSE)
    assert experiment.pin("toy", pin) == pin


# -- a worker ---------------------------------------------------------------------------------


def test_an_engine_that_cannot_start_is_replaced_with_a_warning_before_anything_is_claimed(
    experiment: Experiment, tmp_path: Path
) -> None:
    vllm, hf, said = Broken(), Server(), list[str]()
    ended = play(experiment, vllm, hf, said=said)
    assert (ended.runs, ended.exit_status) == (4, 0)
    assert said[:2] == [WARNING, FALLING_BACK]
    assert (vllm.started, hf.started) == (1, 1)
    assert vllm.stopped >= 1
    assert hf.stopped >= 1
    assert outcomes(experiment) == undisturbed(tmp_path)
    assert {each.attempt for each in served(experiment)} == {1}


def test_each_run_each_pin_and_the_worker_say_what_really_served(experiment: Experiment) -> None:
    play(experiment, Broken(), Server())
    for each in served(experiment):
        assert (each.backend, each.attention) == ("hf", "sdpa")
        assert (each.fell_back_from, each.fell_back_why) == ("vllm", CAUSE)
    assert pinned(experiment) == pin_of(HF.settings, instead_of="vllm", why=CAUSE)
    (record,) = experiment.workers().values()
    assert record.engine is not None
    assert record.engine["backend"] == "hf"
    assert record.engine_facts == {"attention": "sdpa"}
    (measured,) = read_measurements(experiment.folder.parent)
    assert measured.backend == "hf"


def test_an_engine_that_starts_is_stamped_as_itself(experiment: Experiment) -> None:
    hf = Server()
    assert play(experiment, Server(), hf).exit_status == 0
    assert hf.started == 0
    assert {(each.backend, each.fell_back_from) for each in served(experiment)} == {("vllm", None)}
    assert pinned(experiment) == pin_of(VLLM.settings)


def test_without_a_fallback_the_worker_ends_with_the_cause(experiment: Experiment) -> None:
    said: list[str] = []
    ended = play(experiment, Broken(), said=said)
    assert ended.problem == f"the engine did not start: {CAUSE} (free some)"
    assert not any("Falling back" in text for text in said)
    assert pinned(experiment) is None


def test_a_fallback_that_does_not_start_either_ends_the_worker_with_both_causes(
    experiment: Experiment,
) -> None:
    ended = play(experiment, Broken(), Broken("no room for weights"))
    assert ended.exit_status == 3
    assert ended.problem is not None
    assert "the engine did not start: no room for weights" in ended.problem
    assert f"nor did `vllm`, in whose place it was to serve: {CAUSE}" in ended.problem
    assert pinned(experiment) is None


def test_a_worker_that_is_told_to_leave_with_its_engine_does_not_fall_back(
    experiment: Experiment,
) -> None:
    drain, hf, said = Drain(deadline=None, drain_s=10), Server(), list[str]()
    vllm = Broken(meanwhile=lambda: drain.within(5.0, "it was told to by SIGTERM"))
    ended = play(experiment, vllm, hf, drain=drain, said=said)
    assert (ended.runs, ended.problem, hf.started) == (0, None, 0)
    assert not any("Falling back" in text for text in said)
    assert pinned(experiment) is None


# -- its siblings -----------------------------------------------------------------------------


def test_a_group_with_replies_of_the_engine_gets_none_of_its_fallback(
    experiment: Experiment,
) -> None:
    pin_vllm(experiment)
    hf = Server()
    ended = play(experiment, Broken(), hf)
    assert ended.problem == f"the engine did not start: {CAUSE} (free some)"
    assert hf.started == 0
    assert pinned(experiment) == pin_of(VLLM.settings)


def test_a_sibling_that_comes_later_follows_without_trying(experiment: Experiment) -> None:
    pin_fallback(experiment)
    vllm, hf, said = Server(), Server(), list[str]()
    assert play(experiment, vllm, hf, said=said).exit_status == 0
    assert (vllm.started, hf.started) == (0, 1)
    assert "`hf` serves this group in place of `vllm`, which could not start at" in said[0]
    assert CAUSE in said[0]
    assert {(each.backend, each.fell_back_from) for each in served(experiment)} == {("hf", "vllm")}


def test_a_sibling_whose_engine_has_started_but_not_answered_changes_over_and_loses_no_run(
    experiment: Experiment, tmp_path: Path
) -> None:
    class Started(Server):
        async def start(self) -> None:
            await super().start()
            pin_fallback(experiment)

        async def answer(self, request: Request) -> Reply:
            raise AssertionError("the group's replies are of another engine")

    vllm, hf, said = Started(), Server(), list[str]()
    assert play(experiment, vllm, hf, said=said).exit_status == 0
    assert (vllm.started, hf.started) == (1, 1)
    assert vllm.stopped >= 1
    assert sum("in place of `vllm`" in text for text in said) == 1
    assert outcomes(experiment) == undisturbed(tmp_path)
    assert {(each.backend, each.attempt) for each in served(experiment)} == {("hf", 1)}
    (record,) = experiment.workers().values()
    assert record.engine is not None
    assert record.engine["backend"] == "hf"


def test_runs_that_begin_while_a_sibling_changes_over_wait_for_the_other_engine(
    tmp_path: Path,
) -> None:
    """An engine says what it can do once it has started, and a worker goes on claiming."""
    experiment = toy_experiment(tmp_path / "many", 40)

    class Real(Server):
        slow_s = 0.0

        async def start(self) -> None:
            await asyncio.sleep(self.slow_s)
            await super().start()

        @property
        def features(self) -> EngineFeatures:  # type: ignore[override]
            assert self.started, "the engine was not started"
            return ScriptedEngine(echo).features

    class Started(Real):
        async def start(self) -> None:
            await super().start()
            pin_fallback(experiment)

    hf = Real()
    hf.slow_s = 3.0
    ended = play(experiment, Started(), hf, said=[])
    assert (ended.exit_status, ended.runs, ended.failed) == (0, 40, 0)


def test_a_run_of_a_later_job_is_stamped_with_what_its_engine_took_the_place_of(
    experiment: Experiment,
) -> None:
    pin_fallback(experiment)
    worker = make_worker(experiment, job_for(experiment, engine=HF), Server())
    assert asyncio.run(worker.work()).exit_status == 0
    assert {(each.backend, each.fell_back_from) for each in served(experiment)} == {("hf", "vllm")}
    assert all(each.fell_back_why for each in served(experiment))


def test_a_sibling_that_cannot_change_over_hands_its_runs_back(experiment: Experiment) -> None:
    class Started(Server):
        async def start(self) -> None:
            pin_fallback(experiment)

    hf = Broken("no room for weights")
    ended = play(experiment, Started(), hf)
    assert ended.exit_status == 3
    assert ended.problem is not None
    assert "its fallback `hf` did not start: no room for weights" in ended.problem
    assert hf.started == 1
    assert not any(experiment.errors().values())
    assert play(experiment, Server(), Server()).runs == 4


def test_a_sibling_without_a_fallback_ends_where_the_group_has_fallen_back(
    experiment: Experiment,
) -> None:
    pin_fallback(experiment)
    ended = play(experiment, Server())
    assert ended.problem is not None
    assert "come from hf in place of vllm, not from vllm" in ended.problem
    assert not any(experiment.errors().values())


def test_who_falls_back_too_late_leaves(experiment: Experiment) -> None:
    class Late(Server):
        async def start(self) -> None:
            await super().start()
            pin_vllm(experiment)  # by a sibling's first reply

    hf = Late()
    ended = play(experiment, Broken(), hf)
    assert ended.exit_status == 3
    assert ended.problem is not None
    assert "come from vllm, not from hf in place of vllm" in ended.problem
    assert hf.stopped >= 1
    assert experiment.disk.names(experiment.path("claims")) == []
    assert pinned(experiment) == pin_of(VLLM.settings)


def test_two_that_fall_back_for_different_causes_serve_side_by_side(
    experiment: Experiment,
) -> None:
    class First(Server):
        async def start(self) -> None:
            await super().start()
            pin_fallback(experiment)  # by a sibling that was quicker

    assert play(experiment, Broken("No module named 'vllm'"), First()).exit_status == 0
    found = pinned(experiment)
    assert found is not None
    assert found.why == CAUSE
    assert {each.fell_back_why for each in served(experiment)} == {"No module named 'vllm'"}


def test_an_engine_that_dies_after_its_start_is_not_replaced(experiment: Experiment) -> None:
    class Dying(Server):
        async def answer(self, request: Request) -> Reply:
            raise EngineDead("it was ended by SIGKILL")

    hf = Server()
    ended = play(experiment, Dying(), hf)
    assert ended.problem is not None
    assert "the engine died" in ended.problem
    assert hf.started == 0


# -- afterwards -------------------------------------------------------------------------------


def test_status_says_which_group_another_engine_serves_and_why(experiment: Experiment) -> None:
    play(experiment, Broken(), Server())
    # The harness's key of a pin is its own: `status` looks for the group's.
    group = next(iter(status_of(experiment).groups))
    said = fallbacks({group: pinned(experiment) or pin_of(VLLM.settings)})
    assert said == [
        f"group {group}: `hf` serves it in place of `vllm`, which could not start: {CAUSE}"
    ]
    assert fallbacks({group: pin_of(VLLM.settings)}) == []


def test_collect_says_how_many_runs_another_engine_answered(experiment: Experiment) -> None:
    play(experiment, Broken(), Server())
    reading = Reading(experiment)
    assert (
        f"4 runs were answered by `hf` in place of `vllm`, which could not start: {CAUSE}"
        in reading.notes
    )
    assert reading.mixed == {}
    row = reading.table().row(0, named=True)
    assert (row["served.attention"], row["served.fell_back_from"]) == ("sdpa", "vllm")


def row(arm: float, backend: str | None, attention: str | None = None) -> dict[str, Any]:
    return {"arm.p": arm, "served.backend": backend, "served.attention": attention}


def test_an_arm_mixes_engines_where_its_replications_were_answered_by_several() -> None:
    rows = [row(0.0, "hf"), row(0.0, "vllm"), row(0.0, "vllm"), row(0.5, "hf"), row(0.5, None)]
    mixed = mixed_arms(rows)
    assert mixed == {"p=0.0": {"hf": 1, "vllm": 2}}
    assert mixing_notes(mixed) == [
        "arm p=0.0 mixes engines: of its runs were answered 1 by hf, 2 by vllm"
    ]


def test_an_arm_mixes_engines_where_they_compute_their_attention_in_other_ways() -> None:
    rows = [row(0.0, "hf", "sdpa"), row(0.0, "hf", "eager"), row(0.0, "hf")]
    (counts,) = mixed_arms(rows).values()
    assert counts == {"hf (attention not known)": 1, "hf (eager)": 1, "hf (sdpa)": 1}
    # Runs of before it was written down tell no engines apart.
    assert mixed_arms([row(0.0, "hf", "sdpa"), row(0.0, "hf")]) == {}


def test_many_arms_that_mix_engines_are_counted() -> None:
    rows = [row(arm, backend) for arm in range(9) for backend in ("hf", "vllm")]
    notes = mixing_notes(mixed_arms(rows))
    assert notes[-1] == "... and 4 more arms mix engines"
    assert fallback_notes(rows) == []


def served(experiment: Experiment) -> list[Any]:
    results = [experiment.result(run.id) for run in experiment.runs()]
    found = [each.served for each in results if each is not None]
    assert found
    return found
