"""Understands what Slurm's commands print: pure functions of text and environments."""

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass

from vendomini.cluster import Allocation, Gpus, Node, Partition
from vendomini.errors import SubmitError

NODE_FORMAT = "%N|%P|%a|%l|%L|%c|%m|%G"
# Widths cut what is longer; only the reason is allowed to be cut, so it comes last.
QUEUE_FORMAT = "JobArrayID:64,State:24,RestartCnt:12,EndTime:24,Reason:256"
COMMENT_FORMAT = "%F|%k"
ENDING_FORMAT = "JobID,State,ExitCode,Comment"
WORDS_FOLLOW = " -- last words: "
"""In a job's comment, between what it was submitted with and what its worker added."""
REPORT = "this Slurm answers in a way not known here: report it, with `sinfo --version`"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedJob:
    """A job, or one task of an array, that Slurm has not finished with.

    `state` is Slurm's word, such as PENDING; `reason` is why it waits, ``None`` in Slurm's
    words if it does not.
    """

    id: str  # 75, or 75_3
    state: str
    restarts: int
    end_time_s: int | None  # seconds since the epoch; None: not known yet, or no limit
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What accounting says of a job. `state` is Slurm's word, such as TIMEOUT or OUT_OF_MEMORY."""

    state: str
    exit_code: int
    signal: int  # 0: none
    words: str = ""  # the last ones of its worker, where it could write no file


def parse_partitions(text: str) -> tuple[Partition, ...]:
    """Partitions, in the order of their first line, from sinfo's rows in `NODE_FORMAT`.

    sinfo prints one row for each node and partition, and marks the default partition: ``cpu*``.
    """
    nodes: dict[str, list[Node]] = {}
    about: dict[str, tuple[bool, bool, int | None, int | None]] = {}
    for line in text.splitlines():
        fields = [field.strip() for field in line.split("|")]
        if len(fields) != 8:
            raise SubmitError(f"sinfo said something that is not understood: `{line}`", hint=REPORT)
        node, partition, state, longest, default, cpus, memory_mb, gres = fields
        name = partition.removesuffix("*")
        about[name] = (
            partition.endswith("*"),
            state == "up",
            parse_minutes(longest),
            parse_minutes(default),
        )
        nodes.setdefault(name, []).append(
            Node(name=node, cpus=int(cpus), memory_mb=int(memory_mb), gpus=parse_gres(gres))
        )
    return tuple(
        Partition(
            name=name,
            is_default=is_default,
            is_up=is_up,
            max_minutes=max_minutes,
            default_minutes=default_minutes,
            nodes=tuple(nodes[name]),
        )
        for name, (is_default, is_up, max_minutes, default_minutes) in about.items()
    )


def parse_gres(gres: str) -> tuple[Gpus, ...]:
    """The GPUs in a list of generic resources.

    ``gpu:a100:4(S:0-1),lustre:1`` is four of type a100, ``gpu:2`` is two of no type, and
    ``(null)`` is none.
    """
    found = []
    for item in re.sub(r"\([^)]*\)", "", gres).split(","):
        fields = item.split(":")
        if fields[0] == "gpu" and len(fields) > 1:
            kind = fields[1] if len(fields) > 2 else None
            found.append(Gpus(type=kind, count=int(fields[-1])))
    return tuple(found)


def parse_minutes(text: str) -> int | None:
    """Whole minutes, rounded down, in Slurm's ``days-hours:minutes:seconds``; None: no limit.

    Without days or hours it is ``minutes:seconds``: ``2:00`` is 2.
    """
    if text.lower() in ("infinite", "unlimited", "n/a", "none", "(null)", ""):
        return None
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if match is None:
        raise SubmitError(f"Slurm gave a time that is not understood: `{text}`", hint=REPORT)
    days, hours, minutes, _ = (int(part or 0) for part in match.groups())
    return (days * 24 + hours) * 60 + minutes


def parse_config(text: str) -> dict[str, str]:
    """Name and value of each line of ``scontrol show config``."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def parse_queue(text: str) -> list[QueuedJob]:
    """Jobs from squeue's rows in `QUEUE_FORMAT`, times in seconds since the epoch."""
    jobs = []
    for line in text.splitlines():
        fields = line.split(None, 4)
        if not fields:
            continue
        if len(fields) < 4 or not fields[2].isdigit():
            raise SubmitError(
                f"squeue said something that is not understood: `{line.strip()}`", hint=REPORT
            )
        jobs.append(
            QueuedJob(
                id=fields[0],
                state=fields[1],
                restarts=int(fields[2]),
                end_time_s=_epoch(fields[3]),
                reason=fields[4].strip() if len(fields) > 4 else "",
            )
        )
    return jobs


def has_left(jobs: Mapping[str, QueuedJob], queue_id: str, *, restarts: int) -> bool:
    """Whether a job's start number `restarts` is over, given what `jobs_in_queue` answered for it.

    A requeued task keeps its id: it waits or runs under the same one with more restarts. While
    it is COMPLETING these are counted already, but processes of the earlier start may be alive.
    """
    job = jobs.get(queue_id)
    return job is None or job.restarts - (job.state == "COMPLETING") > restarts


def parse_comments(text: str) -> list[tuple[str, str]]:
    """Main id and comment of each of squeue's rows in `COMMENT_FORMAT`."""
    rows = (line.split("|", 1) for line in text.splitlines() if "|" in line)
    return [(job_id.strip(), comment.strip()) for job_id, comment in rows]


def parse_endings(text: str) -> dict[str, Ending]:
    """Endings by id, from sacct's rows in `ENDING_FORMAT`; the last row of an id counts.

    ``CANCELLED by 0`` is CANCELLED; a row for several tasks at once (``75_[3-5]``) is left out.
    """
    found = {}
    for line in text.splitlines():
        fields = line.split("|", maxsplit=3)
        if len(fields) < 3 or "[" in fields[0]:
            continue
        exit_code, _, signal = fields[2].partition(":")
        found[fields[0]] = Ending(
            state=fields[1].split()[0],
            exit_code=int(exit_code or 0),
            signal=int(signal or 0),
            words=fields[-1].partition(WORDS_FOLLOW)[2].strip(),
        )
    return found


def with_words(comment: str, words: str) -> str:
    """A job's comment with words at its end, in place of earlier ones; at most 1,000 characters."""
    said = " ".join(words.split())
    return f"{comment.partition(WORDS_FOLLOW)[0]}{WORDS_FOLLOW}{said}"[:1000]


def parse_comment(text: str) -> str:
    """A job's comment from ``scontrol --oneliner show job``; empty without one."""
    found = re.search(r"\bComment=(.*?)(?= [A-Z]\w*=|\s*$)", text)
    return found[1] if found else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownJob:
    """What ``scontrol show job`` says of a job, as far as an environment does not say it."""

    end_time_s: int | None  # None: no limit
    memory_mb: int | None  # on the job's first node; None: not said
    gpus: tuple[Gpus, ...]  # on the job's first node
    is_being_preempted: bool  # it runs, but only until its time of grace is over


def parse_job(text: str) -> ShownJob:
    """One job from ``scontrol --oneliner --details show job``, times in seconds since the epoch."""
    end = re.search(r"\bEndTime=(\S+)", text)
    preempted = re.search(r"\bPreemptTime=(\S+)", text)
    # With --details there is a passage for each set of like nodes: Nodes=... Mem=... GRES=...
    on_node = re.search(r"\bNodes=\S+ CPU_IDs=\S* Mem=(\d+) GRES=(\S*)", text)
    if end is None:
        raise SubmitError(
            f"scontrol said something that is not understood: `{text.strip()[:200]}`", hint=REPORT
        )
    memory_mb = int(on_node[1]) if on_node else 0
    return ShownJob(
        end_time_s=_epoch(end[1]),
        memory_mb=memory_mb or None,  # 0: a site that does not hand out memory
        gpus=parse_gres(on_node[2]) if on_node else (),
        is_being_preempted="JobState=RUNNING " in text
        and preempted is not None
        and _epoch(preempted[1]) is not None,
    )


def parse_allocation(environ: Mapping[str, str], shown: ShownJob | None) -> Allocation:
    """The allocation on this node, from a job's environment and what Slurm shows of the job.

    The environment comes first: a step of the job can have been given less than the job.
    `shown` is None where Slurm could not be asked: what only it knows is then None, too.
    """
    node = environ.get("SLURMD_NODENAME")
    gpus = _gpus_in(environ, shown)
    types = {found.type for found in shown.gpus} if shown else set()
    end = environ.get("SLURM_JOB_END_TIME", "")
    task = environ.get("SLURM_ARRAY_TASK_ID")
    restarts = environ.get("SLURM_RESTART_COUNT")  # not set at a job's first start
    return Allocation(
        job_id=environ["SLURM_JOB_ID"],
        array_job_id=environ.get("SLURM_ARRAY_JOB_ID"),
        array_task_id=int(task) if task else None,
        restarts=int(restarts) if restarts else 0,
        gpus=gpus,
        gpu_type=types.pop() if gpus and len(types) == 1 else None,
        cpus=_cpus_in(environ),
        memory_mb=_memory_mb_in(environ) or (shown.memory_mb if shown else None),
        node=node,
        end_time_s=int(end) if end.isdigit() else (shown.end_time_s if shown else None),
    )


def _gpus_in(environ: Mapping[str, str], shown: ShownJob | None) -> int:
    """GPUs that this process may use: those that CUDA would show it, if the job was given them."""
    on_node = environ.get("SLURM_GPUS_ON_NODE", "")
    given = sum(found.count for found in shown.gpus) if shown else None
    if on_node.isdigit():
        given = int(on_node)
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    # salloc's shell outside the nodes sees none of the job's GPUs, but whatever it starts will.
    if visible is None or "SLURMD_NODENAME" not in environ:
        return given or 0
    # As CUDA reads it: names up to the first that is none, such as -1 or NoDevFiles.
    names = itertools.takewhile(re.compile(r"\s*(\d|GPU-|MIG-)").match, visible.split(","))
    count = len(list(names))
    return count if given is None else min(count, given)


def _cpus_in(environ: Mapping[str, str]) -> int:
    """CPUs for this process: its task's, if its step runs several tasks, else the node's."""
    per_task = environ.get("SLURM_CPUS_PER_TASK", "")
    on_node = environ.get("SLURM_CPUS_ON_NODE", "")
    if per_task.isdigit() and environ.get("SLURM_STEP_NUM_TASKS", "1") != "1":
        return int(per_task)
    if on_node.isdigit():
        return int(on_node)
    # salloc's shell outside the nodes; "4(x2)" is four on each of two nodes.
    first = re.match(r"\d+", environ.get("SLURM_JOB_CPUS_PER_NODE", ""))
    return int(first[0]) if first else 1


def _memory_mb_in(environ: Mapping[str, str]) -> int | None:
    per_node = environ.get("SLURM_MEM_PER_NODE", "")
    if per_node.isdigit() and int(per_node):
        return int(per_node)
    per_cpu = environ.get("SLURM_MEM_PER_CPU", "")
    if per_cpu.isdigit() and int(per_cpu):
        return int(per_cpu) * _cpus_in(environ)
    return None


def _epoch(text: str) -> int | None:
    """None for Slurm's words that mean no time: Unknown, NONE, N/A."""
    return int(text) if text.isdigit() else None
