"""How much a phase writes, what there is room for, and the warning where that is less."""

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from tests.product import vendomini
from tests.test_cli_bad_input import as_nobody
from tests.warehouse.modelled import Counting, Storekeeper
from tests.warehouse.playing import played, settings
from vendomini.looking import space
from vendomini.looking.space import quota_rooms, rooms
from vendomini.prepare import Room, Writes, shortages, writes_in_words
from vendomini.prepare.group import GroupPlan
from vendomini.prepare.writing import writes_of
from vendomini.store.disk import size_in_words
from vendomini.workloads.warehouse.workload import WAREHOUSE
from vendomini.workloads.workload import Demand, Workload, reply_bytes

DATA = Path(__file__).parent / "data"
MOUNT = Path("/scratch")
RUN_FIELD = len('"run":"0123456789abcdef",') + 1  # what the log adds to a step, and its newline


# -- what is written ---------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0, 2, 4])
@pytest.mark.parametrize("kind", ["heuristic", "random"])
def test_the_steps_of_a_run_take_what_is_planned_for_them(kind: str, level: int) -> None:
    chosen = settings({"agent.kind": kind, "simulation.complexity_level": level})
    run = played(chosen)
    taken = sum(len(msgspec.json.encode(step)) + RUN_FIELD for step in run.steps)
    expected = WAREHOUSE.written(chosen) * len(run.steps) / chosen.simulation.max_steps
    assert taken == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("format", ["structured", "rich"])
def test_the_steps_and_replies_of_a_model_that_plays_take_what_is_planned(format: str) -> None:
    chosen = settings(
        {
            "agent.kind": "llm",
            "agent.model.context_length": 32000,
            "agent.interface.beliefs_every": None,
            "simulation.max_steps": 150,
        }
    )
    run = played(chosen, reply=Counting(say=Storekeeper(), window=32000))
    taken = sum(len(msgspec.json.encode(step)) + RUN_FIELD for step in run.steps)
    expected = WAREHOUSE.written(chosen) - reply_bytes(WAREHOUSE.demand(chosen))
    assert taken == pytest.approx(expected, rel=0.15)


def test_what_a_model_thinks_counts_up_to_the_limit_of_a_call() -> None:
    keys = {"agent.kind": "llm", "agent.model.max_tokens_per_call": 4000}
    thinks = WAREHOUSE.written(settings({**keys, "agent.model.thinking": "on"}))
    answers = WAREHOUSE.written(settings(keys))
    assert thinks - answers > 200 * 5 * 3900


def test_a_workload_that_says_nothing_of_its_steps_writes_its_replies() -> None:
    class Asking(Workload):
        def demand(self, settings: object) -> Demand:
            return Demand(
                requests=10, side_requests=2, prefix_tokens=5, growth_tokens=5, output_tokens=100
            )

    assert Asking().written(None) == 12 * (300 + 5 * 100)
    assert Workload().written(None) == 0


def group(key: str, runs: int, *, workers: int = 1, log_bytes: int = 0) -> GroupPlan:
    return GroupPlan(
        key=key,
        models=(),
        run_ids=tuple(f"{key}{number}" for number in range(runs)),
        engine=None,
        resources=None,
        concurrency=None,
        workers=workers,
        log_bytes=log_bytes,
    )


def test_only_runs_that_are_left_count() -> None:
    both = [group("a", 10, log_bytes=1000), group("b", 4, log_bytes=800)]
    everything = writes_of(both)
    done = {f"a{number}" for number in range(10)} | {"b0", "b1"}
    left = writes_of(both, done=done)
    assert left == writes_of([replace(both[1], run_ids=("b2", "b3"), log_bytes=400)])
    assert everything is not None
    assert left is not None
    assert (left.names, left.bytes) < (everything.names, everything.bytes)
    assert writes_of(both, done=done | {"b2", "b3"}) is None


def test_an_experiment_has_about_as_many_files_and_bytes_as_were_planned(tmp_path: Path) -> None:
    words = ("agent.kind=probe", "engine.backend=scripted", "experiment.replications=4")
    asked = ("demo", *words, "fixed.simulation.max_steps=20", "--root", tmp_path)
    planned = msgspec.json.decode(vendomini("plan", *asked, "--json").stdout)["writes"]
    assert vendomini("run", *asked).returncode == 0
    folder = tmp_path / "demo"
    assert planned["folder"] == str(folder)
    there = [folder, *folder.rglob("*")]
    names = sum(path.is_file() for path in there)
    assert names <= planned["names"] <= 1.3 * names
    files = len({path.stat().st_ino for path in there})
    assert files <= planned["files"] <= 1.5 * files
    size = sum({path.stat().st_ino: path.stat().st_blocks * 512 for path in there}.values())
    assert 0.5 * size <= planned["bytes"] <= 2 * size
    # Of what is done nothing is said, and the same plan is not kept twice.
    again = vendomini("plan", *asked)
    assert "writes about" not in again.stdout
    assert msgspec.json.decode(vendomini("plan", *asked, "--json").stdout)["writes"] is None


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (99_999, "100 kB"),
        (420_000_000, "0.42 GB"),
        (3_140_000, "3.1 MB"),
        (9_960_000_000, "10 GB"),
        (12_345_000_000, "12 GB"),
        (5 * 10**14, "500 TB"),
    ],
)
def test_a_size_is_said_with_two_digits(size: int, words: str) -> None:
    assert size_in_words(size) == words


def test_a_plan_says_what_it_writes_in_one_line() -> None:
    writes = Writes(names=1384, files=700, bytes=421_000_000, folder="experiments/phase1")
    assert writes_in_words(writes) == "writes about 1,400 files and 0.42 GB into experiments/phase1"
    assert writes_in_words(replace(writes, names=9, folder=None)) == (
        "writes about 9 files and 0.42 GB"
    )


# -- what there is room for --------------------------------------------------------------------


def recorded(name: str) -> str:
    """What Debian's `quota` 4.06 printed of an ext4 with limits for root."""
    return (DATA / f"{name}.txt").read_text("utf-8")


USERS = "your quota on `/scratch`"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (recorded("quota_within"), [Room(whose=USERS, bytes=987 * 1024, files=48)]),
        (recorded("quota_exceeded"), [Room(whose=USERS, bytes=0, files=436)]),
        (recorded("quota_unlimited"), []),
        ("Disk quotas for user root (uid 0): none\n", []),
        ("", []),
        ("quota: Mountpoint (or device) / not found or has no quota enabled.\n", []),
    ],
)
def test_what_quota_prints_is_read(text: str, found: list[Room]) -> None:
    assert quota_rooms(text, mount=MOUNT, group=0) == found


# As Lustre's manual has them: none was at hand to record.
LUSTRE_HEADER = "     Filesystem  kbytes   quota   limit   grace   files   quota   limit   grace\n"
LUSTRE = f"""\
Disk quotas for usr anna (uid 1000):
{LUSTRE_HEADER}/lustre/scratch
                 307200  0  1048576       -    [10101]*  10000   11000  6d23h59m58s
uid 1000 is using default block quota setting
"""
GROUPS = f"""\
Disk quotas for grp guests (gid 7):
{LUSTRE_HEADER}       /scratch       1       0      10       -       1       0       0       -
Disk quotas for group lab (gid 100):
{LUSTRE_HEADER}       /scratch       1       0      10       -       1       0       0       -
"""


def test_what_lustre_prints_is_read_with_its_long_names_brackets_and_stars() -> None:
    assert quota_rooms(LUSTRE, mount=MOUNT, group=0) == [
        Room(whose=USERS, bytes=(1048576 - 307200) * 1024, files=0)
    ]


def test_of_groups_only_that_of_the_files_to_be_made_counts() -> None:
    (room,) = quota_rooms(GROUPS, mount=MOUNT, group=100)
    assert room == Room(whose="the quota of group `lab` on `/scratch`", bytes=9 * 1024, files=None)


@pytest.fixture
def bin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of commands, in front of PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("quota", "lfs"):  # whatever this machine has
        write_command(folder / name, "exit 1")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def write_command(path: Path, does: str) -> None:
    path.write_text(f"#!/bin/sh\n{does}\n")
    path.chmod(0o755)


def printing(name: str) -> str:
    # A quota that is exceeded is told with status 1.
    return f"cat {DATA / name}.txt; exit 1"


def test_the_file_system_is_that_of_the_nearest_folder_there_is(bin: Path, tmp_path: Path) -> None:
    (room,) = rooms(tmp_path / "not" / "yet" / "there")
    assert room.whose == f"the file system of `{tmp_path}`"
    free = os.statvfs(tmp_path)
    assert room.bytes == pytest.approx(free.f_bavail * free.f_frsize, rel=0.2)


def test_quotas_are_asked_of_both_tools(bin: Path, tmp_path: Path) -> None:
    write_command(bin / "quota", printing("quota_exceeded"))
    write_command(bin / "lfs", f'test "$2" = -u && {printing("quota_within")}')
    _, first, second = rooms(tmp_path)
    assert (first.bytes, second.bytes) == (0, 987 * 1024)


def test_a_tool_that_hangs_says_nothing(
    bin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "TIMEOUT_S", 0.3)
    write_command(
        bin / "quota", f"{printing('quota_within').removesuffix('; exit 1')}; exec sleep 60"
    )
    started = time.monotonic()
    assert len(rooms(tmp_path)) == 1
    assert time.monotonic() - started < 20


def test_a_tool_that_is_missing_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert len(rooms(tmp_path)) == 1


def test_a_folder_that_may_not_be_looked_at_says_nothing(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become nobody")
    (tmp_path / "closed" / "inside").mkdir(parents=True)
    (tmp_path / "closed").chmod(0o700)
    with as_nobody():
        assert rooms(tmp_path / "closed" / "inside" / "experiment") == []


# -- the warning -------------------------------------------------------------------------------


def test_a_shortage_says_what_is_needed_what_is_there_and_where() -> None:
    writes = Writes(names=41_000, files=20_500, bytes=12 * 10**9, folder="experiments/p")
    enough = Room(whose="the file system of `/`", bytes=13 * 10**9, files=None)
    assert shortages(writes, [enough, Room(whose=USERS, bytes=None, files=20_500)]) == ()
    little = Room(whose=USERS, bytes=3 * 10**9, files=1200)
    assert shortages(writes, [enough, little]) == (
        "what is to be played writes about 12 GB into `experiments/p`, and your quota on "
        "`/scratch` has room for 3 GB: free some, choose another folder with --root, or play "
        "fewer runs",
        "what is to be played writes about 20,000 files into `experiments/p`, and your quota on "
        "`/scratch` has room for 1,200 files: free some, choose another folder with --root, or "
        "play fewer runs",
    )


def test_run_and_plan_warn_of_a_quota_on_stderr_and_go_on(bin: Path, tmp_path: Path) -> None:
    write_command(bin / "quota", printing("quota_exceeded"))
    asked = ("demo", "fixed.simulation.max_steps=3", "--root", tmp_path / "e")
    planned = vendomini("plan", *asked)
    assert planned.returncode == 0
    (line,) = planned.stderr.splitlines()
    assert line.startswith("warning: what is to be played writes about ")
    assert " has room for 0 bytes: " in line
    assert "warning" not in planned.stdout
    as_json = msgspec.json.decode(vendomini("plan", *asked, "--json").stdout)
    assert [f"warning: {said}" for said in as_json["warnings"]] == [line]
    done = vendomini("run", *asked)
    assert done.returncode == 0
    assert line in done.stderr.splitlines()
    assert vendomini("run", *asked).returncode == 0
    assert [path.name for path in (tmp_path / "e/demo/plans").iterdir()] == ["1.json"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system with room for 40 files and 1 MB."""
    place = tmp_path / "small"
    place.mkdir()
    options = ("-t", "tmpfs", "-o", "size=1m,nr_inodes=40", "small", str(place))
    done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_small_file_system_is_warned_of_by_bytes_and_by_files(
    bin: Path, small_disk: Path
) -> None:
    said = vendomini("plan", "demo", "--root", small_disk / "experiments").stderr.splitlines()
    assert len(said) == 2
    assert all(f"the file system of `{small_disk}` has room for " in line for line in said)
    assert " has room for 1 MB: " in said[0]
    assert " has room for 39 files: " in said[1]
