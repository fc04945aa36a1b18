"""`vendomini play`: what it shows is what was played, live or from a log."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest

from tests.harness import steps as logged_steps
from tests.product import COMMAND, ROOT, vendomini, wait_until
from tests.test_store import served
from tests.toy import toy_runs
from tests.warehouse.playing import settings
from vendomini.chat import ChatRequest, Choice, Message, Reply
from vendomini.cli.main import main
from vendomini.cli.play import _logged_steps
from vendomini.cli.view import View
from vendomini.config import Phase
from vendomini.errors import ConfigError
from vendomini.looking.runs import Found, chosen
from vendomini.store.experiment import Experiment
from vendomini.store.records import ErrorRecord
from vendomini.transcript import (
    Conversations,
    Line,
    PlainTeller,
    exchange_lines,
    shortened,
    visible,
)
from vendomini.workloads.warehouse.agent import briefing
from vendomini.workloads.warehouse.episode import Game
from vendomini.workloads.warehouse.heuristic import Heuristic
from vendomini.workloads.warehouse.teller import WarehouseTeller

LIVE = "live: played here and now"
FROM_LOG = "finished: shown from its log"
LLM = {"agent.kind": "llm", "agent.model.context_length": 32000}
UNHEARD = {"agent.kind": "llm", "agent.model.name": "org/unheard-of"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


class Play(Protocol):
    """Give `vendomini play` in a folder, in this process, as if its output went into a pipe."""

    def __call__(self, folder: Path, *arguments: str | Path) -> Done: ...


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Play]:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("VENDOMINI_ROOT", raising=False)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def give(folder: Path, *arguments: str | Path) -> Done:
        monkeypatch.chdir(folder)
        words = [str(argument) for argument in arguments]
        monkeypatch.setattr(sys, "argv", ["vendomini", "play", *words])
        with pytest.raises(SystemExit) as exit_:
            main()
        said = capsys.readouterr()
        code = exit_.value.code
        return Done(code=code if isinstance(code, int) else 0, out=said.out, err=said.err)

    yield give
    for number, handler in handlers.items():
        signal.signal(number, handler)


def write_phase(folder: Path, name: str, *, steps: int, **changes: Any) -> Path:
    """A phase of two doses, on the scripted engine where its agent asks."""
    file = folder / f"{name}.yaml"
    phase = {
        "inherit": str(ROOT / "configs" / "base.yaml"),
        "experiment": {"name": name, "replications": 2},
        "engine": {"backend": "scripted"},
        "fixed": {"agent.kind": "heuristic", "simulation.max_steps": steps, **changes},
        "grid": {"pe_induction.p_shock": [0.0, 0.5]},
    }
    file.write_text(json.dumps(phase))
    return file


def json_lines(done: Done) -> list[dict[str, Any]]:
    assert done.code == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two finished experiments: `rule` of the heuristic, `model` of a model."""
    folder = tmp_path_factory.mktemp("play")
    write_phase(folder, "rule", steps=60)
    write_phase(folder, "model", steps=25, **LLM)
    for name in ("rule", "model"):
        done = vendomini("run", "--config", f"{name}.yaml", cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- through the whole program -----------------------------------------------------------------


def test_a_live_run_shows_what_the_log_of_the_finished_one_shows(place: Path, play: Play) -> None:
    for name in ("rule", "model"):
        logged, live = play(place, name), play(place, f"{name}.yaml", "--live")
        assert (logged.code, live.code) == (0, 0), logged.err + live.err
        assert FROM_LOG in logged.err
        assert LIVE in live.err
        assert logged.out == live.out
        assert "NOTE" not in logged.out


def test_playing_writes_nothing(place: Path, play: Play) -> None:
    before = everything_in(place)
    play(place, "rule")
    play(place, "model.yaml", "--live", "--steps", ":2")
    play(place, "rule.yaml", "experiment.name=other", "--steps", ":2")
    assert everything_in(place) == before
    assert not (place / "experiments" / "other").exists()


def test_debugging_shows_where_an_error_came_from_and_only_a_run_that_is_played_here(
    tmp_path: Path, play: Play
) -> None:
    write_phase(tmp_path, "short", steps=5, **UNHEARD)  # its window is not known
    plain = play(tmp_path, "short.yaml", "--live")
    assert "Traceback" not in plain.err
    debugged = play(tmp_path, "short.yaml", "--live", "--debug")
    assert (plain.code, debugged.code) == (2, 2)
    assert "Traceback" in debugged.err
    assert "refuse_unplayable" in debugged.err
    assert plain.err.splitlines()[-2:] == debugged.err.splitlines()[-2:]
    refused = play(tmp_path, "short.yaml", "--debug")
    assert refused.code == 2
    assert "--debug is for a run that is played here" in refused.err


def test_a_breakpoint_in_a_workload_stops_a_run_that_is_debugged(tmp_path: Path) -> None:
    (tmp_path / "stopping.py").write_text(STOPPING)
    (tmp_path / "stop.yaml").write_text(
        "inherit: base\nexperiment: {workload: 'stopping:Stopping'}\n"
    )
    done = subprocess.run(
        [*COMMAND, "play", "stop.yaml", "--live", "--debug"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        input="p 6 * seed\nc\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "(Pdb) 42" in done.stdout, done.stderr
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


STOPPING = """
from dataclasses import dataclass
from vendomini.workloads import Workload

@dataclass(frozen=True)
class Settings:
    pass

class Stopping(Workload):
    settings_type = Settings
    outcome_type = Settings

    def asks(self, settings):
        return "nobody"

    def play(self, settings, *, seed, replication, record):
        yield ()
        seed += 7
        breakpoint()
        return 1 / replication
"""


def test_json_has_every_step_as_it_was_logged_and_then_the_outcome(place: Path, play: Play) -> None:
    experiment = Experiment(place / "experiments" / "rule")
    run = experiment.runs()[-1]
    *steps, last = json_lines(play(place, "rule", "--run", run.id, "--json"))
    for step, logged in zip(steps, logged_steps(experiment, run.id), strict=True):
        assert {key: step[key] for key in step if key not in ("saw", "said")} == json.loads(logged)
    result = experiment.result(run.id)
    assert result is not None
    assert last["outcome"] == msgspec.json.decode(result.outcome)
    assert last["derived"]["censored"] is True
    assert {name for name in last["derived"] if last["derived"][name] is not None} == {"censored"}
    assert [step["saw"]["last_result"] for step in steps[1:]] == [
        step["result"] for step in steps[:-1]
    ]


def test_what_a_model_was_told_and_said_is_shown(place: Path, play: Play) -> None:
    *steps, _ = json_lines(play(place, "model", "--json"))
    first = steps[0]["saw"]["messages"]
    assert [message["role"] for message in first] == ["system", "user"]
    assert first[1]["content"] == "Day 0. Inbox: 1 message."
    for step in steps:
        assert step["saw"]["messages"][-1]["role"] == "user"
        call = json.loads(step["said"][0]["text"])
        assert (call["tool"], call["args"]) == (step["action"]["tool"], step["action"]["args"])
        assert [said["request"] for said in step["said"]] == ([0, 1] if step["belief"] else [0])
    assert sum(step["belief"] is not None for step in steps) == 2
    text = play(place, "model").out
    assert text.count("You run a warehouse.") == 1
    assert "Day 3. Inbox:" in text
    assert text.count("asked      (the same, then) Before you act today") == 2
    assert text.count("believed   of the morning: storage") == 2


def test_a_transcript_fits_a_piped_terminal_and_holds_no_control_characters(
    place: Path, play: Play
) -> None:
    for name in ("rule", "model"):
        text = play(place, name, "--full").out
        assert max(map(len, text.splitlines())) <= 80
        assert text.replace("\n", "").isprintable()


def test_only_the_steps_asked_for_are_shown(place: Path, play: Play) -> None:
    def days(*arguments: str) -> list[str]:
        done = play(place, "rule", *arguments)
        assert done.code == 0, done.err
        return re.findall(r"^day (\d+)$", done.out, re.MULTILINE)

    assert days("--steps", "3:5") == ["3", "4", "5"]
    assert days("--steps", "58:") == ["58", "59"]
    assert days("--steps", ":1", "--live") == ["0", "1"]
    assert days("--steps", "7") == ["7"]
    whole = play(place, "rule").out
    part = play(place, "rule", "--steps", "30:31").out
    assert part[part.index("day 30") : part.index("outcome")] in whole


def test_a_run_is_found_by_the_beginning_of_its_id(place: Path, play: Play) -> None:
    runs = Experiment(place / "experiments" / "rule").runs()
    listed = play(place, "rule.yaml", "--list").out.splitlines()
    assert [line.split()[0] for line in listed] == [run.id for run in runs]
    assert all(" finished " in line for line in listed)
    as_json = play(place, "rule", "--list", "--json").out.splitlines()
    assert [json.loads(line)["arm"] for line in as_json] == [dict(run.arm) for run in runs]
    third = runs[2].id
    shown = play(place, "rule", "--run", third[:6], "--steps", "0").out
    assert shown.startswith(f"run        {third} of rule\n")


def test_overrides_of_an_experiment_play_another_run_live(place: Path, play: Play) -> None:
    done = play(place, "rule", "pe_induction.p_shock=1.0", "--steps", ":30")
    assert done.code == 0, done.err
    assert LIVE in done.err
    assert "it is not finished" in done.err
    assert "shock " in done.out


def test_a_shock_tells_whether_the_agent_is_told(place: Path, play: Play) -> None:
    for observability, said in (
        ("full", "a notice is in the inbox"),
        ("delayed", "a notice comes on day"),
        ("partial", "without the amount"),
        ("hidden", "the agent is not told"),
    ):
        set_to = f"pe_induction.observability={observability}"
        done = play(place, "rule.yaml", "pe_induction.p_shock=1.0", set_to, "--steps", ":20")
        assert said in re.sub(r"\s+", " ", done.out)


def test_a_failed_run_is_played_live_and_its_failure_named(tmp_path: Path, play: Play) -> None:
    file = write_phase(tmp_path, "broken", steps=3)
    assert vendomini("run", "--config", file, cwd=tmp_path).returncode == 0
    experiment = Experiment(tmp_path / "experiments" / "broken")
    run = experiment.runs()[0]
    experiment.result_path(run.id).unlink()
    experiment.publish_error(
        ErrorRecord(
            run=run.id,
            attempt=1,
            incarnation="some",
            submission="some",
            kind="engine",
            message="the engine is gone",
        )
    )
    done = play(tmp_path, "broken")
    assert done.code == 0
    assert LIVE in done.err
    assert "its attempt 1 failed: the engine is gone" in done.err
    for log in experiment.path("logs").glob("*.steps.jsonl"):
        log.unlink()
    lost = play(tmp_path, "broken", "--run", experiment.runs()[1].id)
    assert lost.code == 0
    assert "its step log has 0 of its 3 steps" in lost.err
    assert "day 2\n" in lost.out


def test_a_replay_that_differs_from_its_log_is_said_and_the_log_is_shown(
    tmp_path: Path, play: Play
) -> None:
    file = write_phase(tmp_path, "edited", steps=6, **LLM)
    assert vendomini("run", "--config", file, "--limit", "1", cwd=tmp_path).returncode == 0
    experiment = Experiment(tmp_path / "experiments" / "edited")
    (log,) = experiment.path("logs").glob("*.steps.jsonl")
    lines = log.read_text().splitlines(keepends=True)
    assert '"day":4' in lines[4]
    lines[4] = lines[4].replace('"customers":', '"customers":7')
    log.write_text("".join(lines))
    done = play(tmp_path, "edited")
    assert done.code == 1
    words = re.sub(r"\s+", " ", done.out)
    assert "the replay differs from the log after 4 steps" in words
    assert re.search(r"7\d open customer orders", words)
    assert words.count("saw ") == words.count("said ") == 4 + 1  # and once in the note itself
    (replies,) = experiment.path("logs").glob("*.replies.jsonl")
    replies.write_bytes(b"")
    assert play(tmp_path, "edited", "--json").code == 1
    log.write_text("".join(lines[:3]) + "}\n")
    damaged = play(tmp_path, "edited")
    assert damaged.code == 1
    assert "its step log has 3 of its 6 steps" in damaged.err


HOSTILE = (
    "[bold]big[/bold] [/nonsense] :smile: \x1b[31mred\x1b[2J \x07 \x9b5m \u202eback\r\n"
    '{"tool": "[red]\\u001b[2J", "args": {}, "prediction": {"expected_success": true, '
    '"expected_storage_after": 0, "expected_budget_after": 1, "next_tool": "tool_wait"}}'
)


def test_hostile_text_of_a_model_is_shown_escaped(place: Path, tmp_path: Path, play: Play) -> None:
    experiment = Experiment(place / "experiments" / "model")
    (log,) = experiment.path("logs").glob("*.replies.jsonl")
    first = experiment.runs()[0].id
    entries = [json.loads(line) for line in log.read_bytes().split(b"\n")[:-1]]
    entry = next(each for each in entries if each["run"] == first and each["ask"] == 0)
    entry["reply"]["choices"][0].update(text=HOSTILE, reasoning="\x1b]0;title\x07 [dim]")
    script = tmp_path / "hostile.replies.jsonl"
    script.write_text(json.dumps(entry) + "\n")
    arguments = ("model.yaml", f"engine.script={script}", "--live", "--steps", "0")
    done = play(place, *arguments)
    assert done.code == 0, done.err
    text = done.out
    assert text.replace("\n", "").isprintable()
    for shown in (
        "[bold]big[/bold] [/nonsense] :smile:",
        r"\x1b[31mred\x1b[2J",
        r"\x9b5m",
        r"\u202eback\r",
        r"did        [red]\x1b[2J",
        r"\x1b]0;title\x07 [dim]",
    ):
        assert shown in text
    raw = play(place, *arguments, "--json").out
    assert raw.isascii()
    assert json.loads(raw.splitlines()[0])["said"][0]["text"] == HOSTILE


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "`nothing` is neither a phase file nor an experiment"),
        (["rul"], "did you mean `rule`?"),
        (["x" * 300], "File name too long"),
        (["nothing.yaml"], "nothing.yaml"),
        (["rule", "--run", "zzzz"], "--run: no run's id begins with `zzzz`"),
        (["rule", "--run", "zzzz"], "--list shows all 4"),
        (["rule", "--run", ""], "--run: no run's id begins with ``"),
        (["rule", "--steps", "5:3"], "--steps is `5:3`"),
        (["rule", "--steps", "x"], "--steps is `x`"),
        (["rule", "--steps", ":"], "--steps is `:`"),
        (["rule.yaml", "agent.kind=wizard"], "agent.kind"),
        (
            ["rule.yaml", "agent.kind=llm", "agent.model.name=org/name"],
            "`agent.model.context_length` is `auto`",
        ),
    ],
)
def test_bad_input_gets_one_clear_error(
    place: Path, play: Play, arguments: list[str], said: str
) -> None:
    done = play(place, *arguments)
    assert done.code == 2
    assert done.out == ""
    assert done.err.count("error: ") == 1
    assert said in done.err
    assert "Traceback" not in done.err


def test_ctrl_c_ends_a_live_run_without_a_trace(tmp_path: Path) -> None:
    file = write_phase(tmp_path, "slow", steps=1000, **LLM)
    shown, said = tmp_path / "out", tmp_path / "err"
    with shown.open("w") as out, said.open("w") as err:
        playing = subprocess.Popen(
            [*COMMAND, "play", str(file), "engine.latency_s=0.1"],
            cwd=tmp_path,
            env={**os.environ, "VENDOMINI_ROOT": str(tmp_path / "root")},
            stdout=out,
            stderr=err,
        )
        wait_until(lambda: "day 2" in shown.read_text())
        playing.send_signal(signal.SIGINT)
        assert playing.wait(timeout=20) == 130
    assert "Traceback" not in said.read_text()
    assert not (tmp_path / "root").exists()


def test_help_has_examples() -> None:
    assert "vendomini play demo" in vendomini("play", "--help").stdout


def test_a_run_of_another_version_is_not_played_as_if_it_were_of_this_one(
    tmp_path: Path, play: Play
) -> None:
    file = write_phase(tmp_path, "old", steps=4)
    assert vendomini("run", "--config", file, cwd=tmp_path).returncode == 0
    runs = tmp_path / "experiments" / "old" / "runs.jsonl"
    content = runs.read_text().replace('"workload_version":', '"workload_version":9')
    runs.write_text(content.replace('"pressure_level":"medium"', '"pressure_level":"old"'))
    logged = play(tmp_path, "old")
    assert logged.code == 1
    words = re.sub(r"\s+", " ", logged.out)
    assert "this version does not know its settings any more; it is of version 9" in words
    assert '"step": 3' in words
    live = play(tmp_path, "old", "--live")
    assert live.code == 2
    assert "of version 9" in live.err


@pytest.mark.parametrize("pause", [True, False])
def test_pause_waits_for_enter_after_each_step(
    pause: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[str] = []

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

        def readline(self, *_: object) -> str:  # type: ignore[override]
            entered.append(capsys.readouterr().out)
            return "\n"

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    view = View(PlainTeller(), steps=range(9), full=False, as_json=False, pause=pause)
    for step in range(3):
        view.step({"step": step}, ())
    assert len(entered) == (2 if pause else 0)
    assert all(f"step {number}" in shown for number, shown in enumerate(entered))


def test_an_ambiguous_id_is_refused_with_the_ids_it_may_mean(tmp_path: Path) -> None:
    def no_phase() -> Phase:
        raise AssertionError

    found = Found(runs=toy_runs(12), experiment=Experiment(tmp_path), phase=no_phase)
    with pytest.raises(ConfigError, match="the ids of 12 runs begin with `000`") as refused:
        chosen(found, "000")
    assert refused.value.hint.endswith("`0000000000000002`, ...")
    assert chosen(found, f"{11:016x}").replication == 11
    with pytest.raises(ConfigError, match="no run's id begins with `b`"):
        chosen(found, "b")  # the last one's ends with it


# -- its parts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("magnitude", ["low", "high"])
def test_deliveries_payments_and_the_inbox_are_those_of_the_world(magnitude: str) -> None:
    chosen = settings({"pe_induction.p_shock": 0.5, "pe_induction.pe_mag": magnitude})
    game = Game(chosen, seed=1, replication=0)
    agent = Heuristic(briefing(chosen, game.world, game.tools.offered))
    teller = WarehouseTeller(chosen)
    arrived, paid = 0, 0
    while game.end is None:
        units, spent = game.world.totals.units_in, game.world.totals.paid
        seen = game.morning()
        units, spent = game.world.totals.units_in - units, game.world.totals.paid - spent
        step = json.loads(msgspec.json.encode(game.day(agent.decide(seen))))
        assert teller.saw_json(step)["inbox_count"] == seen.inbox_count
        said = text_of(teller.step(step, ()), "happened")
        told_units = re.findall(r"arrived: (\d+) units? of sku_\d+ into storage", said)
        assert sum(map(int, told_units)) == units
        told_money = re.findall(r"([\d.]+) paid for ORD\d+", said)
        assert round(100 * sum(map(float, told_money))) == spent
        arrived, paid = arrived + units, paid + spent
    assert arrived > 0
    assert paid > 0


def text_of(lines: Sequence[Line], label: str) -> str:
    return " ".join(line.text for line in lines if line.label == label)


def asked(*messages: Message) -> ChatRequest:
    return ChatRequest(messages=messages)


def reply(text: str, **changes: Any) -> Reply:
    return Reply(choices=(Choice(text=text, **changes),))


SYSTEM = Message(role="system", content="rules")
USER: Callable[[str], Message] = lambda text: Message(role="user", content=text)  # noqa: E731
SAID = Message(role="assistant", content="a call")


def test_the_log_of_a_run_is_that_of_its_last_beginning(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path)
    path = experiment.steps_path("here")
    path.parent.mkdir(parents=True)
    lines = [
        msgspec.json.encode({"run": run, "step": step})
        for run, step in (("a", 0), ("a", 1), ("b", 0), ("a", 0), ("b", 1), ("a", 1), ("a", 2))
    ]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    here = msgspec.structs.replace(served(), incarnation="here", steps=3)
    found, why = _logged_steps(experiment, "a", here)
    assert [msgspec.json.decode(line)["step"] for line in found] == [0, 1, 2]
    assert why == ""
    found, why = _logged_steps(experiment, "b", here)
    assert (len(found), why) == (2, "has 2 of its 3 steps")
    assert _logged_steps(experiment, "c", here) == ([], "has 0 of its 3 steps")
    of_before = msgspec.structs.replace(here, steps=None)
    assert _logged_steps(experiment, "b", of_before)[1] == ""
    assert _logged_steps(experiment, "c", of_before) == ([], "is lost")


def test_each_request_shows_only_what_it_adds() -> None:
    talk = Conversations()
    first = talk.exchange(asked(SYSTEM, USER("day 0")), reply("a call"))
    assert first.new == (SYSTEM, USER("day 0"))
    main = (SYSTEM, USER("day 0"), SAID, USER("day 1"))
    aside = talk.exchange(asked(*main, USER("what do you believe?")), reply("much"))
    assert aside.new == (USER("day 1"), USER("what do you believe?"))
    back = talk.exchange(asked(*main), reply("garbage"))
    assert back.new == (USER("day 1"),)
    again = (*main, Message(role="assistant", content="garb"), USER("reply again"))
    assert talk.exchange(asked(*again), reply("a call")).new == (USER("reply again"),)
    assert not any(each.has_lost for each in (first, aside, back))
    cut = talk.exchange(asked(SYSTEM, USER("ledger, day 1"), SAID, USER("day 2")), reply(""))
    assert cut.has_lost
    assert cut.new == (USER("ledger, day 1"), USER("day 2"))
    reset = talk.exchange(asked(SYSTEM, USER("ledger, day 2"), USER("day 3")), reply(""))
    assert (reset.has_lost, reset.new) == (True, (USER("ledger, day 2"), USER("day 3")))


def test_a_reply_that_could_not_be_read_is_shown_with_why() -> None:
    talk = Conversations()
    exchanges = [
        talk.exchange(asked(SYSTEM, USER("day 0")), reply("", reasoning="hm" * 400)),
        talk.exchange(asked(SYSTEM, USER("day 0"), SAID, USER("reply again")), reply("no JSON")),
    ]
    shown = [(line.label, shortened(line)) for line in exchange_lines(exchanges)]
    assert [label for label, _ in shown] == ["saw", "thought", "said", "asked", "said"]
    assert "[... 500 more characters: --full]" in shown[1][1]
    teller = WarehouseTeller(settings({"agent.kind": "llm"}))
    step = {"step": 0, "day": 0, "action": None, "re_asks": 1, "parse_status": "failed"}
    did = text_of(teller.step(step, exchanges), "did")
    assert did == (
        "nothing: no reply could be read (asked again 1 time); the last one: there is no JSON "
        'object with "tool" in the reply'
    )


def test_a_text_of_just_the_length_that_is_shown_is_shown_whole() -> None:
    assert shortened(Line(label="", text="abc", most=3)) == "abc"
    assert shortened(Line(label="", text="abcd", most=3)) == "abc [... 1 more characters: --full]"


@pytest.mark.parametrize("full", [True, False])
def test_in_full_nothing_is_left_out(full: bool, capsys: pytest.CaptureFixture[str]) -> None:
    view = View(WarehouseTeller(settings()), steps=range(9), full=full, as_json=False, pause=False)
    result = {"success": True, "lines": ["word"] * 500}
    action = {"tool": "tool_read_scratchpad", "args": {}}
    view.step({"step": 0, "day": 0, "action": action, "result": result}, ())
    assert (capsys.readouterr().out.count("word") == 500) == full


def test_what_an_older_log_lacks_is_left_out_and_what_is_unknown_is_shown() -> None:
    teller = WarehouseTeller(settings())
    bare = {"step": 0, "day": 0, "action": {"tool": "tool_wait", "args": {}}, "result": None}
    assert [line.label for line in teller.step(bare, ())] == ["did", "predicted"]
    belief = {"storage": None, "budget": 90.5, "true_storage": 3, "true_budget": 100.0}
    card = {"expected_cost": None, "confidence": 0.5, "reflection": {"based_on": "a guess"}}
    lines = teller.step({**bare, "step": 1, "belief": belief, "card": card, "mood": "good"}, ())
    assert text_of(lines, "predicted") == "confidence 0.5"
    assert text_of(lines, "") == "based on: a guess"
    believed = "of the morning: storage could not be read (truth 3), budget 90.5 (truth 100.0)"
    assert text_of(lines, "believed") == believed
    assert text_of(lines, "also") == '{"mood": "good"}'


def test_a_workload_without_a_teller_is_shown_as_its_json(
    capsys: pytest.CaptureFixture[str],
) -> None:
    view = View(PlainTeller(), steps=range(1, 3), full=False, as_json=False, pause=False)
    run = toy_runs(1)[0].id
    wanted = [view.step({"run": run, "step": step, "total": 7}, ()) for step in range(3)]
    assert wanted == [True, True, False]
    shown = capsys.readouterr().out
    assert "step 0" not in shown
    assert '"step": 1, "total": 7' in shown


def test_only_line_ends_of_a_text_are_obeyed() -> None:
    assert visible("a\nb\tc") == "a\nb    c"
    assert visible("\x1b[0m\x00\x7f\x85\u2028\ud800 ä 漢") == (
        "\\x1b[0m\\x00\\x7f\\x85\\u2028\\ud800 ä 漢"
    )


def test_a_conversation_that_was_cut_says_so_and_shows_what_it_begins_with(
    tmp_path: Path, play: Play
) -> None:
    short = {**LLM, "agent.model.context_length": 1000, "agent.model.max_tokens_per_call": 200}
    write_phase(tmp_path, "short", steps=40, **short)
    done = play(tmp_path, "short.yaml")
    assert done.code == 0, done.err
    words = re.sub(r"\s+", " ", done.out)
    assert re.search(
        r"cut what is older has left the conversation: it begins with the next message "
        r"saw Days 0 to \d+ have left this conversation\.",
        words,
    )
