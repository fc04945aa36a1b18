"""`collect` and `import-results`: tables out of records."""

from dataclasses import asdict
from pathlib import Path

from vendomini.cli import show
from vendomini.looking.experiments import experiment_named


def collect_tables(
    folder: Path, *, root: Path, out: Path | None, keep_short: bool, as_json: bool
) -> int:
    """`collect`. The exit status is 1 if outcomes are left out because their runs are short."""
    from vendomini.collect import collect

    experiment = experiment_named(folder, root)
    with show.counting("reading steps") as progress:
        collected = collect(
            experiment,
            out=out or experiment.path("collected"),
            progress=progress,
            keep_short=keep_short,
        )
    if as_json:
        show.print_json(
            {name: str(v) if isinstance(v, Path) else v for name, v in asdict(collected).items()}
        )
    else:
        show.collected(collected, kept=keep_short)
    return 1 if collected.short and not keep_short else 0


def import_results(folder: Path, *, out: Path | None, as_json: bool) -> int:
    """`import-results`."""
    from vendomini.workloads.registry import workload_named

    workload = workload_named(
        None
    )  # older results are of what was played before there was a choice
    with show.counting("reading runs") as progress:
        imported = workload.import_results(folder, out or folder / "collected", progress)
    if as_json:
        show.print_json(imported.as_json())
        return 0
    for line in imported.words():
        show.say(line)
    for path in (imported.runs_parquet, imported.runs_csv, imported.steps_parquet):
        show.OUT.print(str(path), markup=False, soft_wrap=True)
    return 0
