"""`remove`: what it shows and asks, what it refuses, and what a removal leaves that is cut off."""

import json
import os
import pty
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.fakes.slurm import FakeSlurm
from tests.harness import bury
from tests.product import COMMAND, vendomini, wait_until, write_phase
from tests.test_cli_bad_input import as_nobody
from vendomini.cli.remove import remove
from vendomini.errors import StoreError
from vendomini.store.experiment import Experiment
from vendomini.store.process import this_process
from vendomini.store.records import STORE_FORMAT, SlurmJobs, encode

SMALL = "experiments/small"


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment of four runs."""
    folder = tmp_path_factory.mktemp("played")
    file = write_phase(folder, replications=2, steps=3, latency_s=0)
    assert vendomini("run", file, cwd=folder).returncode == 0
    return folder / SMALL


@pytest.fixture
def here(tmp_path: Path, played: Path) -> Path:
    """A folder with a copy of the experiment below `experiments`."""
    shutil.copytree(played, tmp_path / SMALL)
    return tmp_path


def names_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def refused(here: Path, *words: str | Path, code: int = 2) -> str:
    """What it says when it refuses; nothing has changed then."""
    before = names_in(here / "experiments")
    done = vendomini("remove", *words, cwd=here)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert done.stderr.startswith("error: ")
    assert "\nerror: " not in done.stderr
    assert "\nhint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert names_in(here / "experiments") == before
    return done.stderr


# -- it is shown, asked about, deleted -----------------------------------------------------------


@pytest.mark.parametrize("named", ["small", SMALL, f"./{SMALL}/", f"{SMALL}/logs/.."])
def test_an_experiment_is_removed_by_its_name_or_its_folder(here: Path, named: str) -> None:
    (here / "experiments" / "other").mkdir()
    done = vendomini("remove", named, "--yes", cwd=here)
    assert done.returncode == 0, done.stderr
    shown, last = done.stdout.splitlines()
    assert ": 4 of 4 runs done, " in shown
    assert last == "removed"
    assert names_in(here) == ["experiments", "experiments/other"]


def test_one_stands_in_it_and_it_is_removed(here: Path) -> None:
    assert vendomini("remove", ".", "--yes", cwd=here / SMALL).returncode == 0
    assert names_in(here) == ["experiments"]


def test_what_is_shown_is_counted(here: Path) -> None:
    folder = here / SMALL
    files = [path for path in folder.rglob("*") if not path.is_dir()]
    size = sum({path.stat().st_ino: path.stat().st_size for path in files}.values())
    done = vendomini("remove", "small", "--yes", "--json", cwd=here)
    assert json.loads(done.stdout) == {
        "experiment": SMALL,
        "runs": {"done": 4, "total": 4},
        "files": len(files),
        "bytes": size,
        "removed": True,
    }


def asked(here: Path, answer: str, *words: str) -> tuple[int, str]:
    """The exit status, and all that is seen in a terminal, where this is answered."""
    mine, its = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "remove", "small", *words], cwd=here, stdin=its, stdout=its, stderr=its
    )
    os.close(its)
    os.write(mine, answer.encode())
    seen = b""
    while True:
        try:
            part = os.read(mine, 4096)
        except OSError:  # as Linux says that the other side is closed
            part = b""
        if not part:
            break
        seen += part
    os.close(mine)
    return process.wait(timeout=60), seen.decode()


def test_who_is_asked_decides(here: Path) -> None:
    before = names_in(here)
    for answer in ("n\n", "\n"):
        code, seen = asked(here, answer)
        assert code == 1
        assert f"{SMALL}: 4 of 4 runs done, " in seen
        assert "delete all of it? [y/N]: " in seen
        assert "kept" in seen
        assert names_in(here) == before
    code, seen = asked(here, "\x04")
    assert (code, names_in(here)) == (1, before)
    code, seen = asked(here, "y\n", "--json")
    assert (code, names_in(here)) == (0, ["experiments"])
    assert '"removed": true' in seen


def test_without_a_terminal_nobody_is_asked_and_nothing_done(here: Path) -> None:
    assert "--yes" in refused(here, "small")
    assert "--yes" in refused(here, "small", "--json")


def test_links_in_it_are_removed_and_not_followed(here: Path) -> None:
    (here / "mine").mkdir()
    (here / "mine" / "thesis.txt").write_text("years")
    (here / SMALL / "collected").symlink_to(here / "mine")
    (here / SMALL / "logs" / "one.txt").symlink_to(here / "mine" / "thesis.txt")
    (here / SMALL / "nowhere").symlink_to(here / "gone")
    assert vendomini("remove", "small", "--yes", cwd=here).returncode == 0
    assert names_in(here) == ["experiments", "mine", "mine/thesis.txt"]


def test_a_root_that_is_a_link_is_as_good_as_its_folder(here: Path) -> None:
    (here / "experiments").rename(here / "scratch")
    (here / "experiments").symlink_to("scratch")
    assert vendomini("remove", "small", "--yes", cwd=here).returncode == 0
    assert names_in(here) == ["experiments", "scratch"]


def test_the_name_is_free_and_can_be_played_anew(here: Path) -> None:
    file = write_phase(here, replications=1, steps=2, latency_s=0)
    assert vendomini("remove", "small", "--yes", cwd=here).returncode == 0
    assert vendomini("run", file, cwd=here).returncode == 0
    assert len(Experiment(here / SMALL).finished()) == 2


# -- what is no experiment ---------------------------------------------------------------------


def test_what_is_no_experiment_is_refused(here: Path) -> None:
    (here / "experiments" / "half").mkdir()  # without its experiment.json
    (here / "experiments" / "half" / "runs.jsonl").touch()
    said = refused(here, "half", "--yes")
    assert "`half` is no experiment, and neither is `experiments/half`" in said
    said = refused(here, "smal", "--yes")
    assert "did you mean `small`?" in said
    assert "is no experiment" in refused(here, "experiments", "--yes")
    assert "is no experiment" in refused(here, "/", "--yes")


def test_a_link_to_an_experiment_is_refused(here: Path) -> None:
    (here / "experiments" / "link").symlink_to("small")
    said = refused(here, "link", "--yes")
    assert f"`experiments/link` is a link to `{here / SMALL}`" in said


def test_one_of_a_newer_store_format_is_refused(here: Path) -> None:
    marker = {"store_format": STORE_FORMAT + 1, "made_by": "9.9"}
    (here / SMALL / "experiment.json").write_text(json.dumps(marker))
    assert "store format" in refused(here, "small", "--yes")
    (here / SMALL / "experiment.json").write_text("{")
    assert "is damaged" in refused(here, "small", "--yes")


# -- somebody plays it -------------------------------------------------------------------------


def beating(here: Path, **changes: Any) -> None:
    """Make the worker one that has beaten just now, on this machine or elsewhere."""
    experiment = Experiment(here / SMALL)
    (record,) = experiment.workers().values()
    alive = msgspec.structs.replace(record, state="working", **changes)
    experiment.disk.write_atomic(experiment.worker_path(record.incarnation), encode(alive))


def test_while_workers_live_it_is_refused_and_they_are_named(here: Path) -> None:
    beating(here, process=this_process())
    said = refused(here, "small", "--yes")
    assert f"(process {os.getpid()} on " in said
    assert "stop them first" in said
    beating(here, process=replace(this_process(), host="node7", boot="another"))
    assert "on node7)" in refused(here, "small", "--yes")


def test_a_worker_that_was_killed_is_no_reason(here: Path) -> None:
    (record,) = Experiment(here / SMALL).workers().values()
    bury(Experiment(here / SMALL), record)
    assert vendomini("remove", "small", "--yes", cwd=here).returncode == 0


def with_jobs(here: Path, *ids: str) -> None:
    """Write down that Slurm was handed these."""
    experiment = Experiment(here / SMALL)
    experiment.keep_slurm_jobs(
        experiment.add_job_folder(), SlurmJobs(group="g", submission="s", ids=ids)
    )


def test_while_slurm_has_workers_of_it_it_is_refused(
    here: Path, fake_slurm: FakeSlurm, tmp_path: Path
) -> None:
    script = tmp_path / "sleep.sh"
    script.write_text("#!/bin/sh\nsleep 60\n")
    done = subprocess.run(
        ["sbatch", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    job = done.stdout.split()[-1]
    with_jobs(here, job)
    said = refused(here, "small", "--yes")
    assert f"Slurm still has a worker of `{SMALL}`: job {job}, " in said
    assert f"`scancel {job}`" in said
    subprocess.run(["scancel", job], check=True)
    wait_until(lambda: vendomini("remove", "small", "--yes", cwd=here).returncode == 0)


def test_a_slurm_that_does_not_answer_is_a_reason(here: Path, fake_slurm: FakeSlurm) -> None:
    with_jobs(here, "17")
    fake_slurm.go_down()
    said = refused(here, "small", "--yes")
    assert f"whether Slurm still has workers of `{SMALL}` is not known: `squeue" in said
    assert "try again when Slurm answers" in said
    fake_slurm.remove("squeue")  # a machine without Slurm: heartbeats have told what there is
    path = f"{fake_slurm.bin}{os.pathsep}/nowhere"
    done = vendomini("remove", "small", "--yes", cwd=here, env={**os.environ, "PATH": path})
    assert done.returncode == 0, done.stderr


# -- it is cut off -----------------------------------------------------------------------------


def test_a_removal_that_is_interrupted_leaves_no_half_experiment_and_says_so(here: Path) -> None:
    many = here / SMALL / "collected"
    many.mkdir()
    (many / "0").touch()
    for number in range(1, 30_000):  # some tenths of a second to delete
        os.link(many / "0", many / f"{number}")
    process = subprocess.Popen(
        [*COMMAND, "remove", "small", "--yes"],
        cwd=here,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (aside := list((here / "experiments").glob(".removed-small-*"))):
        assert process.poll() is None
        time.sleep(0.001)
    while (aside[0] / "experiment.json").exists():
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert not (here / SMALL).exists()
    left = sum(not path.is_dir() for path in aside[0].rglob("*"))
    assert left > 0
    assert f"interrupted: {left:,} of 30," in said
    assert said.endswith(f"`rm -r {aside[0]}`\n")
    # It is no experiment any more, for nobody.
    done = vendomini("status", "small", cwd=here)
    assert (done.returncode, "there is none below" in done.stderr) == (2, True)


@pytest.fixture
def nobodys(played: Path) -> Any:
    """An experiment of nobody's, below a folder that nobody may enter and write."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    place = Path("/tmp") / f"vendomini-remove-{os.getpid()}"
    shutil.copytree(played, place / "small")
    for path in [place, *place.rglob("*")]:
        os.chown(path, 65534, 65534)
    yield place
    shutil.rmtree(place)


def test_a_removal_that_fails_midway_says_what_is_left_and_where(nobodys: Path) -> None:
    locked = nobodys / "small" / "zz"  # of root's, with a file in it
    locked.mkdir(mode=0o755)
    (locked / "kept").touch()
    with as_nobody(), pytest.raises(StoreError, match=r"all of .*denied \(`kept`\)") as caught:
        remove(nobodys / "small", root=nobodys, yes=True, as_json=False)
    (aside,) = nobodys.iterdir()
    assert aside.name.startswith(".removed-small-")
    assert str(aside) in caught.value.hint
    assert (aside / "zz" / "kept").exists()
    assert not (aside / "experiment.json").exists()


def test_a_removal_that_may_not_begin_changes_nothing(nobodys: Path) -> None:
    os.chown(nobodys / "small", 0, 0)
    before = names_in(nobodys)
    with as_nobody(), pytest.raises(StoreError, match=r"cannot remove .*: Permission") as caught:
        remove(nobodys / "small", root=nobodys, yes=True, as_json=False)
    assert caught.value.hint == "nothing was removed"
    assert names_in(nobodys) == before
    os.chown(nobodys, 0, 0)
    with as_nobody(), pytest.raises(StoreError, match="cannot remove") as caught:
        remove(nobodys / "small", root=nobodys, yes=True, as_json=False)
    assert "nothing was removed" in caught.value.hint
    assert names_in(nobodys) == before
