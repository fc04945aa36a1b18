"""What Slurm is asked for, with real submitit and imitated Slurm commands."""

import errno
import os
import pickle
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from submitit.core.utils import JobPaths

from tests.fakes.slurm import FakeSlurm
from tests.harness import outcomes
from tests.product import attempts, vendomini, wait_until, write_phase, write_profile
from vendomini import slurm
from vendomini.cli.running import run
from vendomini.cli.status import show_status
from vendomini.cluster import Allocation, Resources
from vendomini.errors import ConfigError, DiskError, SubmitError
from vendomini.looking.prepared import Request, prepare
from vendomini.prepare import GroupPlan, Plan
from vendomini.profile import load_profile
from vendomini.store.experiment import Experiment
from vendomini.submit import (
    Submitted,
    groups_that_fit,
    new_submission,
    submit_local,
    submit_slurm,
)
from vendomini.worker.entry import work
from vendomini.worker.job import read_job

RUNS = 6


def request_for(tmp_path: Path, *overrides: str, **profile: Any) -> Request:
    return Request(
        config=write_phase(tmp_path, replications=RUNS // 2, steps=5, latency_s=0),
        overrides=overrides,
        cluster=True,
        profile=write_profile(tmp_path, **profile),
        root=tmp_path / "root",
        limit=None,
        n_jobs=1,
        restart_groups=(),
    )


def experiment_of(request: Request) -> Experiment:
    return Experiment(request.root / "small")


def submit(
    request: Request,
    resources: Sequence[Resources],
) -> list[Submitted]:
    """Submit a group for each of the resources, as if a plan had said so."""
    prepared = prepare(request)
    assert request.profile is not None
    (group,) = prepared.plan.groups
    groups = [
        replace(group, key=f"group {number}", resources=each, workers=each.workers)
        for number, each in enumerate(resources)
    ]
    experiment = experiment_of(request)
    experiment.extend(prepared.text, prepared.every_run)
    return submit_slurm(
        experiment,
        replace(prepared.plan, groups=tuple(groups)),
        profile=load_profile(request.profile),
        facts=slurm.cluster_facts(),
        submission=new_submission(experiment),
        only=None,
    )


def resources(workers: int = 4, **changes: Any) -> Resources:
    values = {"gpus": 0, "cpus": 3, "memory_gb": 1.5, "minutes": 90, "workers": workers, **changes}
    return Resources(**values)


def command(request: Request) -> subprocess.CompletedProcess[str]:
    """The same request, as a command."""
    assert request.profile is not None
    return vendomini(
        *("run", "--config", request.config, "--root", request.root),
        *("--cluster", "--profile", request.profile),
    )


def completed(fake: FakeSlurm, request: Request) -> dict[str, bytes]:
    """The outcomes once every job has ended."""
    wait_until(fake.is_idle)
    return outcomes(experiment_of(request))


@pytest.fixture
def local(tmp_path: Path) -> dict[str, bytes]:
    """The outcomes of a local run of the same phase."""
    folder = tmp_path / "local"
    folder.mkdir()
    request = replace(request_for(folder), cluster=False, profile=None)
    assert run(request) == 0
    return outcomes(experiment_of(request))


# -- what is asked for ---------------------------------------------------------------------


def test_the_script_says_what_the_plan_and_the_profile_say(
    fake_slurm: FakeSlurm, tmp_path: Path
) -> None:
    request = request_for(
        tmp_path,
        partition="cpu",
        account="research",
        qos="high",
        constraint="cpuonly",
        exclude="cpu2",
        signal_delay_s=77,
        array_parallelism=3,
    )
    (submitted,) = submit(request, [resources()])
    (job,) = fake_slurm.jobs()
    assert submitted.ids == (job["id"],)
    options = job["options"]
    logs = {name: options.pop(name) for name in ("output", "error")}
    comment = options.pop("comment")
    assert options == {
        "array": "0-3%3",
        "time": "90",  # whole minutes
        "nodes": "1",
        "ntasks-per-node": "1",
        "cpus-per-task": "3",
        "mem": "1536M",
        "partition": "cpu",
        "account": "research",
        "qos": "high",
        "constraint": "cpuonly",
        "exclude": "cpu2",
        "job-name": "vendomini-small",
        "signal": "USR2@77",
        "requeue": "",
        "open-mode": "append",  # a requeued task goes on in the log it began
    }
    submission = read_job(submitted.folder / "job.json").submission
    assert comment == f"{submission}:1:0"
    assert all(Path(log).parent == submitted.folder / "0" for log in logs.values())
    (srun,) = [line for line in fake_slurm.script(job["id"]).splitlines() if "srun" in line]
    words = shlex.split(srun)
    # Newer versions of Slurm do not hand a job's CPUs to its steps.
    assert "--cpus-per-task=3" in words[: words.index(sys.executable)]


def test_what_the_profile_leaves_out_is_left_to_slurm(
    fake_slurm: FakeSlurm, tmp_path: Path
) -> None:
    submit(request_for(tmp_path), [resources()])
    (job,) = fake_slurm.jobs()
    asked = {"partition", "account", "qos", "constraint", "exclude", "gres", "wckey"}
    assert not asked & set(job["options"])
    assert (job["tasks"], job["throttle"]) == ([0, 1, 2, 3], 4)


@pytest.mark.parametrize(
    ("gpu_request", "gpu_type", "option", "value"),
    [
        ("gres", "a100", "gres", "gpu:a100:2"),
        ("gres", None, "gres", "gpu:2"),
        ("gpus", "a100", "gpus-per-node", "a100:2"),
        ("gpus", None, "gpus-per-node", "2"),
    ],
)
def test_gpus_are_asked_for_as_the_site_wants_it(
    fake_slurm: FakeSlurm,
    tmp_path: Path,
    gpu_request: str,
    gpu_type: str | None,
    option: str,
    value: str,
) -> None:
    submit(
        request_for(tmp_path, gpu_request=gpu_request, partition="cpu"),
        [resources(1, gpus=2, gpu_type=gpu_type, partition="gpu", constraint="gpu80")],
    )
    (job,) = fake_slurm.jobs()
    asked = {name: v for name, v in job["options"].items() if name.startswith(("gres", "gpu"))}
    assert asked == {option: value}
    # A rule's own partition and constraint win over the profile's.
    assert (job["options"]["partition"], job["options"]["constraint"]) == ("gpu", "gpu80")


def test_each_group_is_one_array_and_one_worker_is_a_plain_job(
    fake_slurm: FakeSlurm, tmp_path: Path
) -> None:
    submitted = submit(request_for(tmp_path), [resources(3), resources(1), resources(2)])
    jobs = fake_slurm.jobs()
    assert [job["tasks"] for job in jobs] == [[0, 1, 2], [], [0, 1]]
    assert [each.ids for each in submitted] == [(job["id"],) for job in jobs]
    assert len({each.folder for each in submitted}) == 3


def test_an_array_above_the_sites_limit_is_split(fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    fake_slurm.limit_arrays(4)
    (submitted,) = submit(request_for(tmp_path, array_parallelism=2), [resources(10)])
    jobs = fake_slurm.jobs()
    assert [len(job["tasks"]) for job in jobs] == [4, 3, 3]
    assert [job["throttle"] for job in jobs] == [2, 2, 2]
    assert submitted.ids == tuple(job["id"] for job in jobs)
    assert len({job["options"]["comment"] for job in jobs}) == 3


def test_the_pickle_holds_one_path_and_nothing_else(fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    (submitted,) = submit(request_for(tmp_path), [resources(2)])
    pickles = list((submitted.folder / "0").glob("*_submitted.pkl"))
    assert len(pickles) == 2
    for file in pickles:
        delayed = pickle.loads(file.read_bytes())
        assert delayed.function is work
        assert (delayed.args, delayed.kwargs) == ((str(submitted.folder / "job.json"),), {})
        assert Path(delayed.args[0]).is_absolute()


def test_an_experiment_below_a_relative_root_is_played(
    fake_slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    request = replace(request_for(tmp_path), root=Path("a folder"))
    assert run(request) == 0
    monkeypatch.chdir("/")
    request = replace(request, root=tmp_path / "a folder")
    assert len(completed(fake_slurm, request)) == RUNS


def test_a_folder_whose_name_slurm_would_change_is_refused(
    fake_slurm: FakeSlurm, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="has a `%` in it"):
        run(replace(request_for(tmp_path), root=tmp_path / "50%j"))
    assert not (tmp_path / "50%j").exists()
    assert fake_slurm.jobs() == []


# -- what comes of it ----------------------------------------------------------------------


def test_the_command_returns_the_folder_and_the_jobs_do_what_a_local_run_does(
    fake_slurm: FakeSlurm, tmp_path: Path, local: dict[str, bytes]
) -> None:
    request = request_for(tmp_path)
    done = command(request)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{request.root / 'small'}\n"
    (job,) = fake_slurm.jobs()
    assert f"2 workers, Slurm job {job['id']}" in done.stderr
    assert completed(fake_slurm, request) == local
    assert set(slurm.endings([job["id"]])) == {f"{job['id']}_0", f"{job['id']}_1"}
    assert {ending.state for ending in slurm.endings([job["id"]]).values()} == {"COMPLETED"}
    again = command(request)
    assert again.returncode == 0
    assert "nothing to do" in again.stderr
    assert len(fake_slurm.jobs()) == 1


def test_a_worker_with_a_failed_run_ends_with_1(fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    recorded = tmp_path / "recorded"
    recorded.mkdir()
    request = request_for(recorded, "experiment.replications=2")
    run(replace(request, cluster=False, profile=None))
    (log,) = experiment_of(request).path("logs").glob("*.replies.jsonl")
    # The recorded engine has no answers to the third replication.
    request = request_for(tmp_path, f"engine.script={log}", engineless={"workers": 1})
    assert run(request) == 0  # it was submitted
    assert len(completed(fake_slurm, request)) == 4
    (job,) = fake_slurm.jobs()
    (ending,) = slurm.endings([job["id"]]).values()
    assert (ending.state, ending.exit_code) == ("FAILED", 1)


def test_a_second_start_of_the_same_command_adds_no_workers(
    fake_slurm: FakeSlurm,
    tmp_path: Path,
    local: dict[str, bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    request = request_for(tmp_path, "engine.latency_s=0.8")
    run(request)
    run(request)
    assert len(fake_slurm.jobs()) == 1
    assert "has all its workers in Slurm's queue already: none added" in capsys.readouterr().err
    assert completed(fake_slurm, request) == local
    assert set(attempts(experiment_of(request)).values()) == {1}


def test_workers_that_are_gone_are_replaced_and_no_others(
    fake_slurm: FakeSlurm, tmp_path: Path, local: dict[str, bytes]
) -> None:
    request = request_for(tmp_path, "engine.latency_s=0.6")
    run(request)
    (first,) = (job["id"] for job in fake_slurm.jobs())
    wait_until(lambda: len(experiment_of(request).workers()) == 2)
    slurm.cancel([f"{first}_1"])
    wait_until(lambda: f"{first}_1" not in slurm.jobs_in_queue([first]))
    run(request)
    second = max(job["id"] for job in fake_slurm.jobs())
    assert second != first
    assert "--array" not in fake_slurm.script(second)  # a single worker is a plain job
    assert completed(fake_slurm, request) == local


def test_status_says_why_workers_wait_in_the_queue(
    fake_slurm: FakeSlurm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = request_for(tmp_path, "engine.latency_s=0.3", array_parallelism=1)
    run(request)
    wait_until(lambda: bool(experiment_of(request).workers()))
    capsys.readouterr()
    assert show_status(experiment_of(request).folder, root=request.root, as_json=False) == 0
    assert "workers that wait in Slurm's queue: 1 (JobArrayTaskLimit)" in capsys.readouterr().out
    fake_slurm.go_down()
    assert show_status(experiment_of(request).folder, root=request.root, as_json=False) == 0
    assert "Slurm does not say more" in capsys.readouterr().out


def test_status_says_how_slurm_ended_a_worker_that_could_not(
    fake_slurm: FakeSlurm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = request_for(tmp_path, "engine.latency_s=1.0")
    run(request)
    experiment = experiment_of(request)
    wait_until(lambda: len(experiment.workers()) == 2)
    for record in experiment.workers().values():
        os.kill(record.process.pid, signal.SIGKILL)
    wait_until(fake_slurm.is_idle)
    capsys.readouterr()
    assert show_status(experiment.folder, root=request.root, as_json=False) == 0
    shown = capsys.readouterr().out
    for name in experiment.workers():
        assert f"worker {name} ended without a word: Slurm says FAILED" in shown
    assert "no worker is alive: give the same `vendomini run` again" in shown
    # A job that was started again: what Slurm says is the state of its later start.
    places = [record.slurm for record in experiment.workers().values() if record.slurm]
    rows = "\n".join(f"{place.job}|RUNNING|0:0" for place in places)
    (fake_slurm.bin / "sacct").write_text(f"#!/bin/sh\necho '{rows}'\n")
    assert len(slurm.endings(place.job for place in places)) == 2
    assert show_status(experiment.folder, root=request.root, as_json=False) == 0
    assert "ended without a word" not in capsys.readouterr().out
    (fake_slurm.bin / "sacct").write_text("#!/bin/sh\necho accounting is disabled >&2; exit 1\n")
    assert show_status(experiment.folder, root=request.root, as_json=False) == 0
    shown = capsys.readouterr().out
    assert "accounting is disabled" in shown
    assert "no worker is alive" in shown


def test_workers_run_in_the_profiles_python(fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    python = tmp_path / "other python"
    python.write_text(f'#!/bin/sh\necho used >> "{tmp_path}/used"\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    request = request_for(tmp_path, python=shlex.quote(str(python)))
    run(request)
    assert len(completed(fake_slurm, request)) == RUNS
    assert (tmp_path / "used").read_text().split() == ["used"] * 3  # asked once what it has


def test_each_local_worker_sees_gpus_of_its_own_and_others_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A GPU may have a name instead of a number, as parts of one do.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b,GPU-c,GPU-d")
    prepared = prepare(replace(request_for(tmp_path), cluster=False, profile=None))
    (group,) = prepared.plan.groups
    assert group.spec is not None
    experiment = Experiment(tmp_path / "gpus")
    experiment.extend(prepared.text, prepared.every_run)
    seen = []
    for gpus in (2, 0):
        engine = replace(group.spec, settings=replace(group.spec.settings, gpus=gpus))
        asked = replace(group, engine=engine, workers=2)
        plan = replace(prepared.plan, groups=(asked,))
        ((_, handles),) = submit_local(experiment, plan, submission=f"{gpus}", only=None)
        for handle in handles:
            wait_until(handle.done)
        records = [each for each in experiment.workers().values() if each.submission == f"{gpus}"]
        seen.append(sorted(str(record.gpus) for record in records))
    assert seen == [["GPU-a,GPU-b", "GPU-c,GPU-d"], ["None", "None"]]


# -- when Slurm does not -------------------------------------------------------------------


def test_a_refusal_carries_slurms_own_words_and_costs_nothing(
    fake_slurm: FakeSlurm, tmp_path: Path, local: dict[str, bytes]
) -> None:
    request = request_for(tmp_path)
    fake_slurm.refuse("Invalid qos specification")
    done = command(request)
    assert done.returncode == 3
    assert "Batch job submission failed: Invalid qos specification" in done.stderr
    assert "Traceback" not in done.stderr
    fake_slurm.recover()
    assert run(request) == 0
    assert completed(fake_slurm, request) == local


def test_a_refusal_names_the_jobs_that_were_taken_before_it(
    fake_slurm: FakeSlurm, tmp_path: Path
) -> None:
    request = request_for(tmp_path)
    fake_slurm.limit_arrays(2)
    real = fake_slurm.bin / "sbatch"
    text = real.read_text()
    # The third array is one too many for this site.
    real.write_text(
        text.replace(
            "exec ",
            f'test -e "{fake_slurm.home}/jobs/110000" && '
            f'echo "QOSMaxSubmitJobPerUserLimit" > "{fake_slurm.home}/refuse"\nexec ',
        )
    )
    with pytest.raises(SubmitError, match="QOSMaxSubmitJobPerUserLimit") as caught:
        submit(request, [resources(2), resources(4)])
    first, second = (job["id"] for job in fake_slurm.jobs())
    assert f"(group `group 1`; jobs {first}, {second} were submitted before" in str(caught.value)


def test_a_lost_answer_doubles_nothing(
    fake_slurm: FakeSlurm, tmp_path: Path, local: dict[str, bytes]
) -> None:
    request = request_for(tmp_path)
    fake_slurm.lose_answers(times=1)
    assert run(request) == 0
    first, second = fake_slurm.jobs()
    assert first["options"]["comment"] == second["options"]["comment"]
    assert completed(fake_slurm, request) == local
    experiment = experiment_of(request)
    assert set(attempts(experiment).values()) == {1}
    played = {worker.slurm.job for worker in experiment.workers().values() if worker.slurm}
    assert played == {f"{second['id']}_0", f"{second['id']}_1"}


def failing_moves(monkeypatch: pytest.MonkeyPatch, times: int) -> list[int]:
    """submitit cannot give its workers their files; how often it tried."""
    tried: list[int] = []
    real = JobPaths.move_temporary_file

    def move(self: JobPaths, *arguments: Any, **named: Any) -> None:
        tried.append(1)
        if len(tried) <= times:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(self, *arguments, **named)

    monkeypatch.setattr(JobPaths, "move_temporary_file", move)
    return tried


def test_a_submission_whose_files_cannot_be_written_for_now_is_tried_again(
    fake_slurm: FakeSlurm,
    tmp_path: Path,
    local: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = request_for(tmp_path)
    failing_moves(monkeypatch, 1)
    assert run(request) == 0
    first, second = fake_slurm.jobs()
    assert first["options"]["comment"] == second["options"]["comment"]
    assert completed(fake_slurm, request) == local
    assert set(attempts(experiment_of(request)).values()) == {1}


def test_a_submission_whose_files_can_never_be_written_is_one_error_and_leaves_no_job(
    fake_slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_for(tmp_path)
    failing_moves(monkeypatch, 99)
    with pytest.raises(DiskError, match=r"cannot write `.*jobs/1/0`: Input/output error"):
        run(request)
    jobs = [job["id"] for job in fake_slurm.jobs()]
    wait_until(lambda: not slurm.jobs_in_queue(jobs))


# The first launcher waits a minute for its file, in vain, and nobody waits for it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_local_workers_are_started_again_where_their_files_could_not_be_written(
    tmp_path: Path, local: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = replace(request_for(tmp_path), cluster=False, profile=None)
    assert failing_moves(monkeypatch, 1) == []
    assert run(request) == 0
    assert outcomes(experiment_of(request)) == local


def test_answers_that_are_lost_for_good_leave_no_job(fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    request = request_for(tmp_path)
    fake_slurm.lose_answers()
    with pytest.raises(SubmitError, match="Socket timed out"):
        run(request)
    jobs = [job["id"] for job in fake_slurm.jobs()]
    assert len(jobs) == 2
    wait_until(lambda: not slurm.jobs_in_queue(jobs))
    assert completed(fake_slurm, request) == {}


def test_without_slurm_nothing_is_written(tmp_path: Path) -> None:
    request = request_for(tmp_path)
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    done = vendomini(
        *("run", "--config", request.config, "--root", request.root, "--cluster"),
        env={**os.environ, "PATH": str(nowhere)},
    )
    assert done.returncode == 3
    assert "no Slurm here: `sbatch` is not on PATH" in done.stderr
    assert "hint: run without --cluster" in done.stderr.replace("\n", " ")
    assert not request.root.exists()


@pytest.mark.parametrize("command", ["sbatch", "srun"])
def test_half_a_slurm_is_none(
    fake_slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    fake_slurm.remove(command)
    monkeypatch.setenv("PATH", str(fake_slurm.bin))
    request = request_for(tmp_path)
    with pytest.raises(SubmitError, match=f"`{command}` is not on PATH"):
        run(request)
    assert not request.root.exists()


def test_a_controller_that_is_down_is_named_and_nothing_is_written(
    fake_slurm: FakeSlurm, tmp_path: Path
) -> None:
    request = request_for(tmp_path)
    fake_slurm.go_down()
    with pytest.raises(SubmitError, match="Unable to contact slurm controller") as caught:
        run(request)
    assert "scontrol ping" in caught.value.hint
    assert not request.root.exists()


# -- inside a job of the user's own --------------------------------------------------------


def test_groups_that_do_not_fit_a_job_are_named_with_what_they_need(tmp_path: Path) -> None:
    prepared = prepare(request_for(tmp_path))
    (group,) = prepared.plan.groups

    def with_resources(key: str, **changes: Any) -> GroupPlan:
        return replace(group, key=key, resources=resources(**changes))

    plan: Plan = replace(
        prepared.plan,
        groups=(
            with_resources("small"),
            with_resources("wide", gpus=2),
            with_resources("other", gpus=1, gpu_type="h100"),
            with_resources("busy", cpus=8),
            with_resources("large", memory_gb=64.0),
        ),
    )
    place = Allocation(
        job_id="7",
        node="gpu1",
        restarts=0,
        gpus=1,
        gpu_type="a100",
        cpus=4,
        memory_mb=8192,
    )
    fitting, reasons = groups_that_fit(plan, place)
    assert [each.key for each in fitting] == ["small"]
    assert reasons == [
        "group `wide` needs 2 GPUs, the job has 1",
        "group `other` needs `h100` GPUs, the job has `a100`",
        "group `busy` needs 8 CPUs, the job has 4",
        "group `large` needs 64 GB of memory, the job has 8 GB",
    ]
