"""How plans, states and tables look in a terminal."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from vendomini.prepare import GroupPlan, Plan
from vendomini.status import Status
from vendomini.store.experiment import Experiment, Extension
from vendomini.submit import Submitted

if TYPE_CHECKING:
    from vendomini.collect import Collected

OUT = Console(highlight=False)
ERR = Console(stderr=True, highlight=False)

SHOWN_ERRORS = 5


def say(text: str) -> None:
    """One line about what happens, beside the data."""
    ERR.print(text, markup=False, soft_wrap=True)


def plan(plan: Plan, *, to: Console) -> None:
    """The plan by group, then why, then what a reader should know."""
    phase = f", phase {plan.phase}" if plan.phase is not None else ""
    table = _table(f"{plan.name}{phase}: {plan.runs} runs")
    table.add_column("group", overflow="fold", min_width=16)
    for name in ("runs", "backend", "GPUs", "CPUs", "memory", "minutes", "live", "workers"):
        table.add_column(name, justify="right" if name in ("runs", "live", "workers") else "left")
    for group in plan.groups:
        table.add_row(
            group.key,
            str(len(group.run_ids)),
            *_resources(group),
            _or(group.concurrency),
            str(group.workers),
        )
    to.print(table)
    for group in plan.groups:
        for reason in group.reasons:
            to.print(f"  {group.key}: {reason}", markup=False, soft_wrap=True)
    for note in plan.notes:
        to.print(f"  note: {note}", markup=False, soft_wrap=True)


def extension(experiment: Experiment, extension: Extension, *, done: int) -> None:
    """What `run` found and added."""
    kept, new, gone = len(extension.kept), len(extension.new), len(extension.orphaned)
    say(
        f"{experiment.folder}: {done} done and kept, {kept - done} unfinished, {new} new"
        + (f", {gone} no longer in the grid (kept, marked)" if gone else "")
    )


def submitted(submitted: Sequence[Submitted], experiment: Experiment) -> None:
    """Which jobs there are now."""
    for job in submitted:
        say(f"submitted group `{job.group}`: {job.workers} workers, Slurm job {', '.join(job.ids)}")
    say(f"see how it goes with: vendomini status {experiment.folder}")


def status(status: Status) -> None:
    """Runs by group, workers that live, and the last errors."""
    table = _table(status.name)
    table.add_column("group")
    for name in ("total", "done", "running", "waiting", "failed"):
        table.add_column(name, justify="right")
    rows = [*status.groups.items()]
    if len(rows) > 1:
        rows.append(("all", status.runs))
    for key, counts in rows:
        table.add_row(
            key,
            str(counts.total),
            str(counts.done),
            str(counts.running),
            str(counts.waiting),
            str(counts.failed),
        )
    OUT.print(table)
    if status.orphaned:
        OUT.print(f"{status.orphaned} runs are no longer in the grid (kept, not counted)")
    for worker in status.workers:
        record = worker.record
        if worker.is_alive:
            where = record.slurm.node if record.slurm else record.process.host
            job = f", job {record.slurm.job}" if record.slurm else f", process {record.process.pid}"
            OUT.print(
                f"worker {record.incarnation} on {where}{job}: {record.state}, "
                f"{record.runs} runs done, {record.live} live, {record.steps} steps",
                markup=False,
                soft_wrap=True,
            )
        elif record.problem:
            OUT.print(
                f"worker {record.incarnation} ended: {record.problem}", markup=False, soft_wrap=True
            )
    if status.runs.waiting and not any(worker.is_alive for worker in status.workers):
        OUT.print("no worker is alive: give the same `vendomini run` again to go on", markup=False)
    for error in status.errors[:SHOWN_ERRORS]:
        OUT.print(f"failed {error.run}: {error.message}", markup=False, soft_wrap=True)
    if len(status.errors) > SHOWN_ERRORS:
        OUT.print(f"... and {len(status.errors) - SHOWN_ERRORS} more")


def collected(collected: "Collected") -> None:
    """Where the tables are."""
    say(f"{collected.done} of {collected.runs} runs done, {collected.steps} steps")
    if collected.without_steps:
        say(f"{len(collected.without_steps)} finished runs have no steps: their log was lost")
    for path in (collected.runs_parquet, collected.runs_csv, collected.steps_parquet):
        OUT.print(str(path), markup=False, soft_wrap=True)


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar that is told how many of how many."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=ERR,
        transient=True,
    ) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _table(title: str) -> Table:
    """Narrow enough for a plan in 80 columns."""
    return Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )


def _resources(group: GroupPlan) -> tuple[str, str, str, str, str]:
    backend = (group.backend or "auto") if group.asks else "none"
    resources = group.resources
    if resources is None:
        gpus = "?" if group.asks and group.spec is None else "0"
        return backend, gpus, "-", "-", "-"
    kind = f" x {resources.gpu_type}" if resources.gpu_type else ""
    return (
        backend,
        f"{resources.gpus}{kind}",
        str(resources.cpus),
        f"{resources.memory_gb:g}G",
        str(resources.minutes),
    )


def _or(value: int | None) -> str:
    return "-" if value is None else str(value)
