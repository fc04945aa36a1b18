"""How plans, states and tables look in a terminal."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import msgspec
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from vendomini.errors import VendoMiniError

if TYPE_CHECKING:  # every command shows something: what it shows it has loaded itself
    from vendomini.collect import Collected, Measured
    from vendomini.slurm import Ending, QueuedJob
    from vendomini.standing import Status
    from vendomini.store.records import WorkerRecord

OUT = Console(highlight=False)
ERR = Console(stderr=True, highlight=False)

SHOWN_ERRORS = 5
LEFT = frozenset({"group", "backend", "dtype", "GPUs", "the same runs with"})


def say(text: str) -> None:
    """One line about what happens, beside the data."""
    ERR.print(text, markup=False, soft_wrap=True)


def meanwhile(text: str) -> None:
    """Why nothing is to be seen for a while, if this is a terminal."""
    if ERR.is_terminal:
        say(text)


def say_out(text: str) -> None:
    """One line of what was asked for."""
    OUT.print(text, markup=False, soft_wrap=True)


def print_json(value: object) -> None:
    """A value on stdout, for scripts."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def error(error: VendoMiniError) -> None:
    """What is wrong, then on its own line what to do about it."""
    text = Text.assemble(("error: ", "bold red"), str(error))
    if error.hint:
        text.append("\nhint: ", "bold").append(error.hint)
    ERR.print(text, soft_wrap=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmWords:
    """What Slurm adds to an experiment's files: workers in its queue by group, and how it ended
    workers, by incarnation. `silence` is why it says nothing; None: it was not asked, or answered.
    """

    queue: Mapping[str, Sequence["QueuedJob"]] = field(default_factory=dict)
    endings: Mapping[str, "Ending"] = field(default_factory=dict)
    silence: str | None = None


def status(status: "Status", slurm: SlurmWords) -> None:
    """Runs by group, workers that live, wait in Slurm's queue or were ended, the last errors."""
    from vendomini.standing import fallbacks  # loaded by whoever has a status

    OUT.print(status.name, markup=False, soft_wrap=True)
    rows = {**status.groups, **({"all": status.runs} if len(status.groups) > 1 else {})}
    if not rows:
        say_out("no runs are known: give the phase to `vendomini run` again")
    table(
        [
            {
                "group": key,
                **{
                    name: str(number)
                    for name, number in asdict(counts).items()
                    if name != "short" or status.runs.short
                },
            }
            for key, counts in rows.items()
        ],
        to=OUT,
    )
    if status.orphaned:
        OUT.print(
            f"{status.orphaned} runs are no longer in the grid (kept, not counted)", soft_wrap=True
        )
    for told in fallbacks(status.pins):
        say_out(told)
    for worker in status.workers:
        record = worker.record
        if worker.is_alive:
            OUT.print(_of_living(record), markup=False, soft_wrap=True)
        elif record.problem:
            OUT.print(
                f"worker {record.incarnation} ended: {record.problem}", markup=False, soft_wrap=True
            )
        elif record.incarnation in slurm.endings:
            ending = slurm.endings[record.incarnation]
            OUT.print(
                f"worker {record.incarnation} ended without a word: Slurm says {ending.state}, "
                f"exit {ending.exit_code}, signal {ending.signal}"
                + (f"; its last words: {ending.words}" if ending.words else ""),
                markup=False,
                soft_wrap=True,
            )
    for group, jobs in slurm.queue.items():
        reasons = Counter(job.reason for job in jobs if job.state == "PENDING")
        for reason, number in reasons.items():
            OUT.print(
                f"group {group}: workers that wait in Slurm's queue: {number} ({reason})",
                markup=False,
                soft_wrap=True,
            )
    if status.unwritable is not None:
        say_out(f"nobody can write here: {status.unwritable} ({status.unwritable.hint})")
    if slurm.silence is not None:
        OUT.print(f"Slurm does not say more: {slurm.silence}", markup=False, soft_wrap=True)
    is_served = slurm.queue or any(worker.is_alive for worker in status.workers)
    short(
        status.short,
        to=say_out,
        then="the same `vendomini run` plays them again",
    )
    for name, why in status.odd.items():
        say_out(f"passed over: {name}: {why}")
    if status.runs.waiting and not is_served:
        OUT.print(
            "no worker is alive: give the same `vendomini run` again to go on",
            markup=False,
            soft_wrap=True,
        )
    for error in status.errors[:SHOWN_ERRORS]:
        hint = f" ({error.hint})" if error.hint else ""
        OUT.print(f"failed {error.run}: {error.message}{hint}", markup=False, soft_wrap=True)
    if len(status.errors) > SHOWN_ERRORS:
        OUT.print(f"... and {len(status.errors) - SHOWN_ERRORS} more")


def measures(measured: "Sequence[Measured]") -> None:
    """How each measure of the workload stands, over the runs that are finished."""
    if not measured:
        OUT.print("the workload names no measures", soft_wrap=True)
        return
    table(
        [
            {
                "measure": each.measure.column,
                "of runs": str(each.runs),
                "came": "" if each.events is None else str(each.events),
                "mean": "-" if each.mean is None else f"{each.mean:.4g}",
                "unit": each.measure.unit or each.measure.kind,
            }
            for each in measured
        ],
        to=OUT,
    )


def short(runs: Mapping[str, str], *, to: Callable[[str], None], then: str) -> None:
    """Runs that are short, the first ones with why, and what follows."""
    for run, why in list(runs.items())[:SHOWN_ERRORS]:
        to(f"short {run}: {why}")
    if len(runs) > SHOWN_ERRORS:
        to(f"... and {len(runs) - SHOWN_ERRORS} more runs are short")
    if runs:
        to(then)


def collected(collected: "Collected", *, kept: bool = False) -> None:
    """Where the tables are."""
    say(f"{collected.done} of {collected.runs} runs done, {collected.steps} steps")
    short(
        collected.short,
        to=say,
        then="their outcomes are in the table, in state `short`"
        if kept
        else "their outcomes are left out (--keep-short takes them as they are): give the same "
        "`vendomini run` again to play them",
    )
    if collected.without_steps:
        say(f"{len(collected.without_steps)} finished runs have no steps: their log was lost")
    for note in collected.notes:
        say(f"note: {note}")
    for path in (
        collected.runs_parquet,
        collected.runs_csv,
        collected.steps_parquet,
        collected.schema_json,
    ):
        OUT.print(str(path), markup=False, soft_wrap=True)


@contextmanager
def counting(what: str, *, in_bytes: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A progress bar that is told how many of how many, once there are some; nothing where there is
    no terminal."""
    with ExitStack() as end:
        tell: Callable[[int, int], None] | None = None

        def progress(done: int, total: int) -> None:
            nonlocal tell
            if tell is None and total and ERR.is_terminal:
                tell = end.enter_context(_bar(what, in_bytes=in_bytes))
            if tell is not None:
                tell(done, total)

        yield progress


@contextmanager
def _bar(what: str, *, in_bytes: bool) -> Iterator[Callable[[int, int], None]]:
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn() if in_bytes else MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=ERR,
        transient=True,
    ) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _of_living(record: "WorkerRecord") -> str:
    """Where a worker is, what it does, and what serves it once that is known."""
    where = record.slurm.node if record.slurm else record.process.host
    job = f"job {record.slurm.job}" if record.slurm else f"process {record.process.pid}"
    said = (
        f"worker {record.incarnation} on {where}, {job}: {record.state}, "
        f"{record.runs} runs done, {record.under_way} under way, {record.steps} steps"
    )
    if record.state == "starting" and record.doing:
        said += "; " + record.doing.removeprefix("[*] ")
    facts = record.engine_facts
    if record.engine is not None and facts:
        backend = str(record.engine["backend"])
        said += f"; {backend}"
        if version := facts.get(backend):
            said += f" {version}"
        if device := facts.get("device"):
            said += f" on {device}"
        if tokens := facts.get("kv_cache_tokens"):
            said += f", KV cache of {int(tokens):,} tokens"
    return said


def table(rows: Sequence[Mapping[str, str]], *, to: Console) -> None:
    """Rows of the same columns, below each other where they are too wide for the terminal."""
    for gap in (1, 0) if rows else ():
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, gap, 0, 0))
        for name in rows[0]:
            table.add_column(name, justify="left" if name in LEFT else "right", no_wrap=True)
        for row in rows:
            table.add_row(*map(Text, row.values()))
        if Measurement.get(to, to.options.update(width=10_000), table).maximum <= to.width:
            to.print(table)
            return
    for row in rows:
        first, *others = row.items()
        said = ", ".join(f"{name} {value}" for name, value in others)
        to.print(f"\n  {first[1]}\n    {said}", markup=False, soft_wrap=True)
    to.print()
