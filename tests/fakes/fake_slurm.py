"""Slurm's commands, imitated well enough for submitit and for our own questions.

Run as ``fake_slurm.py COMMAND ARGUMENTS``. ``FAKE_SLURM`` names a folder:

    jobs/<id>/job.json             what sbatch was given
    jobs/<id>/<task>.{pid,exit,restarts}   a task that has begun, has ended, began again
    jobs/<id>/cancelled            scancel was here
    refuse                         what sbatch says instead of taking a job
    lose_answer                    sbatch takes the job, but fails as if the network had;
                                   so many times as the file says, if it says so
    down                           every command fails as without a controller
    max_array_size                 a number; 1001 if absent

sbatch plays the tasks for real, in background processes, as many at a time as the throttle
allows. Only the standard library: this file runs in whatever Python the wrapper names.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HOME = Path(os.environ["FAKE_SLURM"])
DATA = Path(__file__).resolve().parent.parent / "data"
FINISHED = {"COMPLETED", "FAILED", "CANCELLED"}


def main() -> int:
    """Dispatch on the command's name."""
    command, *arguments = sys.argv[1:]
    if (HOME / "down").exists() and command != "srun":
        problem = "Unable to contact slurm controller (connect failure)"
        return fail(f"{command}: error: {problem}")
    commands = {
        "sbatch": sbatch,
        "srun": srun,
        "squeue": squeue,
        "sacct": sacct,
        "scancel": scancel,
        "scontrol": scontrol,
        "sinfo": sinfo,
        "play": play,
    }
    return commands[command](arguments)


def fail(words: str) -> int:
    """Say it on stderr; Slurm's commands mostly end with 1 then."""
    print(words, file=sys.stderr)
    return 1


def sbatch(arguments: list[str]) -> int:
    """Record the script and start playing it."""
    if (HOME / "refuse").exists():
        problem = (HOME / "refuse").read_text().strip()
        return fail(f"sbatch: error: Batch job submission failed: {problem}")
    script = Path(next(argument for argument in arguments if not argument.startswith("-")))
    options = directives(script.read_text()) | flags(arguments)
    tasks, throttle = array(options.get("array"))
    if tasks and max(tasks) >= array_limit():
        return fail("sbatch: error: Batch job submission failed: Invalid job array specification")
    job_id = new_job_id()
    folder = HOME / "jobs" / job_id
    (folder / "script.sh").write_text(script.read_text())
    job: dict[str, Any] = {
        "id": job_id,
        "arguments": arguments,
        "options": options,
        "tasks": tasks,
        "throttle": throttle,
        "directory": os.getcwd(),
    }
    (folder / "job.json.part").write_text(json.dumps(job))
    (folder / "job.json.part").rename(folder / "job.json")
    player = subprocess.Popen(
        [sys.executable, __file__, "play", job_id],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    (folder / "player.pid").write_text(str(player.pid))
    if is_answer_lost():
        problem = "Socket timed out on send/recv operation"
        return fail(f"sbatch: error: Batch job submission failed: {problem}")
    print(job_id if "parsable" in options else f"Submitted batch job {job_id}")
    return 0


def is_answer_lost() -> bool:
    """Whether this answer is to be lost; counts it."""
    file = HOME / "lose_answer"
    if not file.exists():
        return False
    times = file.read_text()
    if times == "1":
        file.unlink()
    elif times:
        file.write_text(str(int(times) - 1))
    return True


def play(arguments: list[str]) -> int:
    """Run a job's tasks, in order, at most `throttle` at a time; note how each ends."""
    (job_id,) = arguments
    folder = HOME / "jobs" / job_id
    job = json.loads((folder / "job.json").read_text())
    waiting: list[int | None] = list(job["tasks"]) or [None]
    running: dict[int | None, subprocess.Popen[bytes]] = {}
    while waiting or running:
        if (folder / "cancelled").exists():
            waiting.clear()
        while waiting and len(running) < (job["throttle"] or len(waiting)):
            task = waiting.pop(0)
            running[task] = begin(job, folder, task)
        for task, process in list(running.items()):
            if process.poll() is not None:
                (folder / f"{label(task)}.exit").write_text(str(process.returncode))
                del running[task]
        time.sleep(0.02)
    return 0


def begin(job: dict[str, Any], folder: Path, task: int | None) -> subprocess.Popen[bytes]:
    """Start one task in the environment that Slurm would give it."""
    options = job["options"]
    cpus = options.get("cpus-per-task", "1")
    gpus = re.search(r"(\d+)$", options.get("gres") or options.get("gpus-per-node") or "0")
    count = int(gpus[1]) if gpus else 0
    own_id = job["id"] if task is None else str(int(job["id"]) + 1000 + task)
    env = {
        **os.environ,
        "SLURM_JOB_ID": own_id,
        "SLURM_JOBID": own_id,
        "SLURM_JOB_NAME": options.get("job-name", "sbatch"),
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_JOB_NODELIST": "fake1",
        "SLURMD_NODENAME": "fake1",
        "SLURM_CPUS_ON_NODE": cpus,
        "SLURM_NTASKS": "1",
        "SLURM_NODEID": "0",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
    }
    if count:
        env["SLURM_GPUS_ON_NODE"] = str(count)
        env["CUDA_VISIBLE_DEVICES"] = ",".join(str(index) for index in range(count))
    if "mem" in options:
        amount = re.fullmatch(r"(\d+)(M|G|T)?B?", options["mem"])
        assert amount is not None, options["mem"]
        unit = {"G": 1024, "T": 1024 * 1024}.get(amount[2] or "M", 1)
        env["SLURM_MEM_PER_NODE"] = str(int(amount[1]) * unit)
    if task is not None:
        env |= {
            "SLURM_ARRAY_JOB_ID": job["id"],
            "SLURM_ARRAY_TASK_ID": str(task),
            "SLURM_ARRAY_TASK_COUNT": str(len(job["tasks"])),
        }
    out = options.get("output", "slurm-%A_%a.out" if task is not None else "slurm-%j.out")
    err = options.get("error", out)
    names = {"%A": job["id"], "%a": label(task), "%j": own_id, "%t": "0", "%%": "%"}

    def place(pattern: str) -> Path:
        return Path(job["directory"]) / re.sub("%[Aajt%]", lambda it: names[it[0]], pattern)

    with place(out).open("ab") as stdout, place(err).open("ab") as stderr:
        process = subprocess.Popen(
            ["/bin/bash", str(folder / "script.sh")],
            cwd=job["directory"],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    (folder / f"{label(task)}.pid").write_text(str(process.pid))
    return process


def srun(arguments: list[str]) -> int:
    """Drop the options and become the command."""
    while arguments and arguments[0].startswith("-"):
        name = arguments.pop(0)
        # submitit gives its options with values as two words.
        if name in ("--output", "--error"):
            arguments.pop(0)
    os.environ |= {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1"}
    os.execvp(arguments[0], arguments)


CODES = {"%F": "ArrayJobID", "%i": "JobArrayID", "%k": "Comment", "%T": "State"}


def squeue(arguments: list[str]) -> int:
    """Jobs that have not ended (all with --states=all), in a --Format or --format."""
    options = flags(arguments)
    rows = [row for job_id in job_ids() for row in rows_of(job_id)]
    if "jobs" in options:
        wanted = options["jobs"].split(",")
        rows = [row for row in rows if row["JobArrayID"] in wanted or row["ArrayJobID"] in wanted]
        if not rows and len(wanted) == 1:
            return fail("slurm_load_jobs error: Invalid job id specified")
    if options.get("states") != "all":
        rows = [row for row in rows if row["State"] not in FINISHED]
    for row in rows:
        if "Format" in options:
            columns = (column.split(":") for column in options["Format"].split(","))
            print("".join(row[name][: int(width)].ljust(int(width)) for name, width in columns))
        else:
            line = options.get("format", "%i %T")
            for code, name in CODES.items():
                line = line.replace(code, row[name])
            print(line)
    return 0


def sacct(arguments: list[str]) -> int:
    """States as accounting has them, in the columns asked for."""
    options = flags(arguments)
    columns = options.get("format", "JobID,State,NodeList").split(",")
    wanted = options.get("jobs", "").split(",")
    if "noheader" not in options:
        print("|".join(columns))
    for job_id in job_ids():
        for row in rows_of(job_id):
            if job_id in wanted or row["JobArrayID"] in wanted:
                named = row | {"JobID": row["JobArrayID"], "NodeList": "fake1"}
                print("|".join(named[column] for column in columns))
    return 0


def scancel(arguments: list[str]) -> int:
    """TERM to the tasks of jobs, and no new ones."""
    for job_id in (argument for argument in arguments if not argument.startswith("-")):
        main_id, _, task = job_id.partition("_")
        folder = HOME / "jobs" / main_id
        if not folder.is_dir():
            continue
        if not task:
            (folder / "cancelled").touch()
        for file in folder.glob(f"{task}.pid" if task else "[0-9]*.pid"):
            if not file.with_suffix(".exit").exists():
                try:
                    os.killpg(int(file.read_text()), signal.SIGTERM)
                except ProcessLookupError:
                    continue
    return 0


def scontrol(arguments: list[str]) -> int:
    """``show config``, ``show job ID``, ``ping``."""
    words = [argument for argument in arguments if not argument.startswith("-")]
    if words[:2] == ["show", "config"]:
        text = (DATA / "scontrol_show_config.txt").read_text()
        print(re.sub(r"(MaxArraySize\s*= )\d+", rf"\g<1>{array_limit()}", text), end="")
        return 0
    if words[:2] == ["show", "job"]:
        for job_id in job_ids():
            for row in rows_of(job_id):
                if words[2] in (row["JobArrayID"], row["JobID"]):
                    print(
                        f"JobId={row['JobID']} JobState={row['State']} Restarts=0 "
                        f"EndTime={row['EndTime']} JOB_GRES=(null)   "
                        "Nodes=fake1 CPU_IDs=0 Mem=0 GRES= MinCPUsNode=1"
                    )
                    return 0
        return fail("slurm_load_jobs error: Invalid job id specified")
    if words[:1] == ["ping"]:
        print("Slurmctld(primary) at fake is UP")
        return 0
    return fail(f"invalid keyword: {' '.join(words)}")


def sinfo(arguments: list[str]) -> int:
    """What the real private cluster's sinfo said."""
    print((DATA / "sinfo_nodes.txt").read_text(), end="")
    return 0


def rows_of(job_id: str) -> list[dict[str, str]]:
    """One row per task of a job, by squeue's names of columns."""
    folder = HOME / "jobs" / job_id
    job = json.loads((folder / "job.json").read_text())
    rows = []
    for task in list(job["tasks"]) or [None]:
        state, code = state_of(folder, task)
        begun = folder / f"{label(task)}.pid"
        minutes = int(re.split("[:-]", job["options"].get("time", "60"))[0])
        rows.append(
            {
                "JobID": job_id if task is None else str(int(job_id) + 1000 + task),
                "ArrayJobID": job_id,
                "JobArrayID": job_id if task is None else f"{job_id}_{task}",
                "State": state,
                "ExitCode": f"{max(code, 0)}:{max(-code, 0)}",
                "RestartCnt": "0",
                "EndTime": str(int(begun.stat().st_mtime) + 60 * minutes)
                if begun.exists()
                else "N/A",
                "Reason": "JobArrayTaskLimit" if state == "PENDING" else "None",
                "Comment": job["options"].get("comment", "(null)"),
            }
        )
    return rows


def state_of(folder: Path, task: int | None) -> tuple[str, int]:
    """A task's state and exit status; minus the signal that ended it."""
    ended = folder / f"{label(task)}.exit"
    cancelled = (folder / "cancelled").exists()
    if ended.exists() and ended.read_text():
        code = int(ended.read_text())
        return ("CANCELLED" if cancelled and code else "FAILED" if code else "COMPLETED"), code
    if (folder / f"{label(task)}.pid").exists():
        return "RUNNING", 0
    return ("CANCELLED" if cancelled else "PENDING"), 0


def label(task: int | None) -> str:
    """A task's name in files; a job that is no array has one task, 0."""
    return str(task or 0)


def job_ids() -> list[str]:
    """Ids of all jobs, oldest first."""
    found = (file.parent.name for file in (HOME / "jobs").glob("*/job.json"))
    return sorted(found, key=int)


def new_job_id() -> str:
    """The next free id; making the folder takes it. Spaced, as tasks have ids of their own."""
    number = 100_000
    while True:
        try:
            (HOME / "jobs" / str(number)).mkdir(parents=True)
        except FileExistsError:
            number += 10_000
        else:
            return str(number)


def array_limit() -> int:
    """MaxArraySize: one more than the largest index."""
    file = HOME / "max_array_size"
    return int(file.read_text()) if file.exists() else 1001


def array(text: str | None) -> tuple[list[int], int | None]:
    """Indices and throttle of ``0-9%2``; none for a job that is no array."""
    if text is None:
        return [], None
    indices, _, throttle = text.partition("%")
    tasks: list[int] = []
    for part in indices.split(","):
        first, _, last = part.partition("-")
        tasks += range(int(first), int(last or first) + 1)
    return tasks, int(throttle) if throttle else None


def directives(script: str) -> dict[str, str]:
    """The options in a script's #SBATCH lines."""
    lines = (line for line in script.splitlines() if line.startswith("#SBATCH "))
    return flags([line.removeprefix("#SBATCH ").strip() for line in lines])


SHORT = {"-j": "jobs", "-o": "format", "-n": "noheader", "-X": "allocations", "-P": "parsable2"}


def flags(arguments: list[str]) -> dict[str, str]:
    """``--name=value`` and ``--name`` (empty) of a command line, and ``-x value`` of `SHORT`."""
    found: dict[str, str] = {}
    words = iter(arguments)
    for word in words:
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            found[name] = value.strip("\"'")
        elif word in SHORT:
            value = "" if word in ("-n", "-X", "-P") else next(words)
            name = SHORT[word]
            found[name] = f"{found[name]},{value}" if name == "jobs" and name in found else value
    return found


if __name__ == "__main__":
    sys.exit(main())
