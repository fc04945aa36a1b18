"""The self-test of a phase's axes as its users have it: `run` and `plan --check`."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.product import ROOT, vendomini
from tests.toy import Toy, toy_runs
from vendomini.config import expand, load_phase
from vendomini.errors import ConfigError
from vendomini.looking.axes import check_axes
from vendomini.phase import Run
from vendomini.prepare.selftest import refuse_idle
from vendomini.workloads.registry import workload_named
from vendomini.workloads.workload import Workload

PHASES = sorted((ROOT / "configs" / "phases").glob("*.yaml"))
DEAD = {"pe_induction.pe_mag": ["low", "high"]}
LONG = {"simulation.max_steps": 2000}
ALIVE = {"pe_induction.p_shock": [0.0, 0.5]}

Give: TypeAlias = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def give(tmp_path: Path) -> Give:
    """Give a command in an empty folder, with a cache of its own."""

    def given(*arguments: str | Path, cache: Path | None = None) -> Any:
        env = {**os.environ, "XDG_CACHE_HOME": str(cache or tmp_path / "cache")}
        return vendomini(*arguments, "--root", tmp_path / "experiments", env=env, cwd=tmp_path)

    return given


def write(folder: Path, grid: Mapping[str, object], **fixed: object) -> Path:
    """A phase of short runs that ask the scripted engine, without any shock."""
    phase = {
        "inherit": str(ROOT / "configs" / "base.yaml"),
        "experiment": {"name": "tried"},
        "agent": {"model": {"context_length": 32000}},
        "engine": {"backend": "scripted"},
        "pe_induction": {"p_shock": 0.0},
        "fixed": {"simulation.max_steps": 5, **fixed},
        "grid": grid,
    }
    file = folder / "tried.yaml"
    file.write_text(json.dumps(phase))
    return file


def kept(folder: Path) -> list[Path]:
    return sorted((folder / "cache" / "vendomini" / "selftest").glob("*"))


# -- run --------------------------------------------------------------------------------------


def test_an_axis_that_does_nothing_is_refused_by_name_before_anything_is_written(
    give: Give, tmp_path: Path
) -> None:
    done = give("run", write(tmp_path, DEAD))
    assert done.returncode == 2
    assert "axis `pe_induction.pe_mag` does nothing: `high`, `low`" in done.stderr
    assert "hint: no shock is drawn while `pe_induction.p_shock` is 0" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "experiments").exists()


@pytest.mark.parametrize("kind", ["heuristic", "random", "probe"])
def test_for_agents_that_ask_no_model_it_is_a_note_and_the_phase_is_played(
    give: Give, tmp_path: Path, kind: str
) -> None:
    done = give("run", write(tmp_path, DEAD), f"agent.kind={kind}")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("axis `pe_induction.pe_mag` does nothing") == 1
    assert len(list((tmp_path / "experiments" / "tried" / "results").iterdir())) == 2


def test_a_phase_whose_axes_all_act_is_played_and_nothing_is_said_of_them(
    give: Give, tmp_path: Path
) -> None:
    done = give("run", write(tmp_path, ALIVE))
    assert done.returncode == 0, done.stderr
    assert "does nothing" not in done.stderr
    assert "axis `" not in done.stderr
    assert len(kept(tmp_path)) == 1


def test_an_axis_added_later_is_refused_and_what_was_played_stays(
    give: Give, tmp_path: Path
) -> None:
    assert give("run", write(tmp_path, ALIVE)).returncode == 0
    folder = tmp_path / "experiments" / "tried"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    silent = {"pe_induction.observability": ["full", "hidden"]}
    done = give("run", write(tmp_path, silent))
    assert done.returncode == 2
    assert "`pe_induction.observability`" in done.stderr
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_two_values_that_are_the_same_arm_are_refused_beside_others_that_are_not(
    give: Give, tmp_path: Path
) -> None:
    """A rich card has every field that `required+full` demands, whatever the format."""
    formats = {"agent.interface.prediction_format": ["minimal", "structured", "rich"]}
    file = write(tmp_path, formats, **{"agent.interface.prediction_mode": "required+full"})
    done = give("plan", file, "--check")
    assert done.returncode == 2
    assert "are the same arm: `rich`, `structured` differ in neither the world" in done.stderr


# -- plan -------------------------------------------------------------------------------------


def test_plan_tries_axes_only_if_it_is_asked_to(give: Give, tmp_path: Path) -> None:
    file = write(tmp_path, DEAD)
    assert give("plan", file).returncode == 0
    assert kept(tmp_path) == []
    done = give("plan", file, "--check")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "axis `pe_induction.pe_mag` does nothing" in done.stderr


def test_plan_says_what_each_axis_changes(give: Give, tmp_path: Path) -> None:
    sizes = {"crash_detector.window_size": [20, 30]}
    file = write(tmp_path, {**ALIVE, **sizes})
    done = give("plan", file, "--check")
    assert "  crash_detector.window_size: changes checks" in done.stdout.splitlines()
    assert "  pe_induction.p_shock: changes world, prompt, checks" in done.stdout.splitlines()
    said = json.loads(give("plan", file, "--check", "--json").stdout)
    test = said["self_test"]
    assert {axis["axis"]: axis["changes"] for axis in test["axes"]} == {
        "crash_detector.window_size": ["checks"],
        "pe_induction.p_shock": ["world", "prompt", "checks"],
    }
    assert test["trials"] == 3
    assert "self_test" not in json.loads(give("plan", file, "--json").stdout)


def test_limits_beyond_a_short_trial_are_not_refused(give: Give, tmp_path: Path) -> None:
    late = {
        "crash_detector.window_size": [900, 1000],
        "crash_detector.continue_after_crash": [400, 500],
        "pe_induction.p_shock": [0.0001, 0.0002],
    }
    done = give("plan", write(tmp_path, late, **LONG), "--check")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("some values only beyond a short trial") == len(late)


# -- the cache --------------------------------------------------------------------------------


def test_a_result_is_kept_and_taken_from_there(give: Give, tmp_path: Path) -> None:
    file = write(tmp_path, ALIVE)
    tests = [
        json.loads(give("plan", file, "--check", "--json").stdout)["self_test"] for _ in range(2)
    ]
    assert [test["cached"] for test in tests] == [False, True]
    assert tests[1]["axes"] == tests[0]["axes"]
    assert len(kept(tmp_path)) == 1


def test_a_refusal_is_kept_too_and_said_again(give: Give, tmp_path: Path) -> None:
    first, second = (give("run", write(tmp_path, DEAD)) for _ in range(2))
    assert second.returncode == first.returncode == 2
    assert second.stderr == first.stderr


def test_a_cache_that_cannot_be_written_is_no_error(give: Give, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file, where a folder should be")
    done = give("plan", write(tmp_path, ALIVE), "--check", "--json", cache=blocked)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["self_test"]["cached"] is False


@pytest.mark.parametrize("garbage", [b"", b"{", b'{"axes": 7}', b"\xff\x00"])
def test_a_cache_that_cannot_be_read_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, garbage: bytes
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    runs = toys([1, 2])
    first = check_axes(runs, Toy())
    (file,) = kept(tmp_path)
    file.write_bytes(garbage)
    again = check_axes(runs, Toy())
    assert not again.cached
    assert again.test == first.test
    assert check_axes(runs, Toy()).cached


def test_a_relative_cache_folder_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    check_axes(toys([1, 2]), Toy())
    assert not (tmp_path / "cache").exists()
    assert len(list((tmp_path / "home" / ".cache" / "vendomini" / "selftest").iterdir())) == 1


def toys(steps: Sequence[int], *, model: str = "toy/model", seed: int = 7) -> list[Run]:
    """A toy run for each number of steps."""
    base = toy_runs(1, breaks=False)[0]
    agent = {"kind": "llm", "model": {"name": model, "revision": None}}
    return [
        replace(
            base,
            id=f"{number}",
            seed=seed,
            arm={"game.steps": number},
            settings={**base.settings, "agent": agent, "game": {"steps": number}},
        )
        for number in steps
    ]


def test_a_result_is_kept_by_what_decides_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert not check_axes(toys([1, 2]), Toy()).cached
    assert check_axes(toys([1, 2], model="toy/other"), Toy()).cached
    assert check_axes([*toys([1, 2]), *toys([1, 2])], Toy()).cached
    assert not check_axes(toys([1, 3]), Toy()).cached
    assert not check_axes(toys([1, 2], seed=8), Toy()).cached

    class Newer(Toy):
        version = 2

    assert not check_axes(toys([1, 2]), Newer()).cached


def test_an_edit_of_the_workload_tries_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = tmp_path / "edited" / "workload.py"
    source.parent.mkdir()
    text = "from tests.toy import Toy\n\n\nclass Edited(Toy):\n    pass\n"

    def workload(text: str, name: str = "edited.workload") -> Workload:
        source.write_text(text)
        spec = importlib.util.spec_from_file_location(name, source)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        edited: Workload = module.Edited()
        return edited

    assert not check_axes(toys([1, 2]), workload(text)).cached
    assert check_axes(toys([1, 2]), workload(text)).cached
    assert not check_axes(toys([1, 2]), workload(text + "# edited\n")).cached
    (source.parent / "beside.py").write_text("")
    assert not check_axes(toys([1, 2]), workload(text + "# edited\n")).cached
    # What lies beside a module without a package is not its own: a whole environment may.
    alone = text + "# alone\n"
    assert not check_axes(toys([1, 2]), workload(alone, "edited_alone")).cached
    (source.parent / "stranger.py").write_text("")
    assert check_axes(toys([1, 2]), workload(alone, "edited_alone")).cached


# -- the phases that are shipped --------------------------------------------------------------


@pytest.fixture(scope="module")
def common_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phases that differ in their models alone have their axes tried once."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("file", PHASES, ids=lambda path: path.stem)
def test_every_axis_of_a_shipped_phase_acts(
    file: Path, common_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(common_cache))
    phase = load_phase(file, workload_named=workload_named)
    checked = check_axes(expand(phase), workload_named("warehouse"))
    refuse_idle(checked.test)
    named = {axis for axis, _ in phase.axes if axis != "agent.model.name"}
    assert {axis.axis for axis in checked.test.axes} == named
    for axis in checked.test.axes:
        assert axis.changes, axis
        assert not axis.alike, axis
        assert not axis.later, axis
    assert checked.test.trials <= 20


@pytest.mark.parametrize("file", PHASES[:1], ids=lambda path: path.stem)
def test_a_shipped_phase_with_no_shocks_is_refused(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    phase = load_phase(file, ["pe_induction.p_shock=0.0"], workload_named=workload_named)
    checked = check_axes(expand(phase), workload_named("warehouse"))
    with pytest.raises(ConfigError, match=r"`pe_induction\.pe_mag` does nothing"):
        refuse_idle(checked.test)
