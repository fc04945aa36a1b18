"""The commands, and the one place where an error becomes words and an exit status.

What a command needs is imported when it is given: `--help` and the shell's completion load
nothing but this file, and `status` no planner (`tests/test_startup.py` holds who loads what).
"""

import io
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from vendomini import __version__
from vendomini.cli import fit, models
from vendomini.errors import VendoMiniError

app = typer.Typer(
    name="vendomini",
    help="Grids of LLM-agent experiments: planned, packed onto engines, never lost.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # our errors are words; a bug keeps its plain traceback
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigFile = Annotated[
    Path,
    typer.Option(
        "--config",
        metavar="FILE",
        readable=False,  # here and below: what cannot be read is told by whoever reads it
        help="The phase file, such as configs/demo.yaml.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Settings that win over the file, such as engine.concurrency=64.",
        show_default=False,
    ),
]
Cluster = Annotated[
    bool,
    typer.Option("--cluster", help="Use Slurm; inside a job of your own, join as a worker."),
]
ProfileFile = Annotated[
    Path | None,
    typer.Option(
        "--profile",
        metavar="FILE",
        readable=False,
        help="What to ask Slurm for, such as slurm/example.yaml.",
    ),
]
Root = Annotated[
    Path,
    typer.Option(
        "--root",
        metavar="DIR",
        envvar="VENDOMINI_ROOT",
        readable=False,
        help="Where experiments live.",
    ),
]
Limit = Annotated[
    int | None, typer.Option("--limit", metavar="N", help="Only the first N runs of the grid.")
]
Workers = Annotated[int, typer.Option("--n-jobs", metavar="N", help="Local workers.")]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="DIR",
        readable=False,
        help="Where the tables go; by default `collected/` inside it.",
    ),
]
MaxGpuHours = Annotated[
    float | None,
    typer.Option(
        "--max-gpu-hours",
        metavar="H",
        help="Refuse, before anything is submitted, a plan expected to take more.",
    ),
]
Explain = Annotated[
    str | None,
    typer.Option(
        "--explain",
        metavar="MODEL",
        help="All that decided for this model: its sizes, a GPU's memory, what was rejected.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="For scripts: JSON on stdout.")]


@app.command(
    epilog="Examples:\n\n"
    "  vendomini run --config configs/demo.yaml\n\n"
    "  vendomini run --config my_phase.yaml --cluster --profile my_cluster.yaml"
)
def run(
    config: ConfigFile,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show the plan, as `vendomini plan` does.")
    ] = False,
    cluster: Cluster = False,
    profile: ProfileFile = None,
    root: Root = Path("experiments"),
    limit: Limit = None,
    n_jobs: Workers = 1,
    max_gpu_hours: MaxGpuHours = None,
    explain: Explain = None,
    restart_group: Annotated[
        list[str] | None,
        typer.Option(
            "--restart-group",
            metavar="GROUP",
            help="Set aside all that was played of a group, and play it anew.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Play a phase: what is done stays, what is missing is played."""
    from vendomini.looking.prepared import Request

    request = Request(
        config=config,
        overrides=tuple(overrides or ()),
        cluster=cluster,
        profile=profile,
        root=root,
        limit=limit,
        n_jobs=n_jobs,
        restart_groups=tuple(restart_group or ()),
        max_gpu_hours=max_gpu_hours,
    )
    if dry_run or explain is not None:
        from vendomini.cli import planning

        raise typer.Exit(planning.show_plan(request, explain=explain, as_json=as_json))
    from vendomini.cli import running

    raise typer.Exit(running.run(request, as_json=as_json))


@app.command(epilog="Example:\n\n  vendomini plan --config my_phase.yaml engine.gpu=H100 --json")
def plan(
    config: ConfigFile,
    overrides: Overrides = None,
    cluster: Cluster = False,
    profile: ProfileFile = None,
    root: Root = Path("experiments"),
    limit: Limit = None,
    n_jobs: Workers = 1,
    max_gpu_hours: MaxGpuHours = None,
    explain: Explain = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Try what each axis changes, and refuse one that does nothing."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what `run` would do, and why. Books nothing, and writes nothing but a cache."""
    from vendomini.cli import planning
    from vendomini.looking.prepared import Request

    request = Request(
        config=config,
        overrides=tuple(overrides or ()),
        cluster=cluster,
        profile=profile,
        root=root,
        limit=limit,
        n_jobs=n_jobs,
        max_gpu_hours=max_gpu_hours,
    )
    raise typer.Exit(planning.show_plan(request, check=check, explain=explain, as_json=as_json))


def _experiments(incomplete: str) -> list[str]:
    """For the shell's completion: names below the root, or below where experiments live."""
    root = Path(os.environ.get("VENDOMINI_ROOT", "experiments"))
    names = (marker.parent.name for marker in root.glob("*/experiment.json"))
    return sorted(name for name in names if name.startswith(incomplete))


ExperimentFolder = Annotated[
    Path,
    typer.Argument(
        metavar="EXPERIMENT",
        readable=False,
        help="Its folder, or its name below --root.",
        autocompletion=_experiments,
    ),
]


@app.command(epilog="Example:\n\n  vendomini status experiments/demo")
def status(
    experiment: ExperimentFolder,
    root: Root = Path("experiments"),
    measures: Annotated[
        bool,
        typer.Option("--measures", help="Also what its finished runs measured: reads their logs."),
    ] = False,
    as_json: Json = False,
) -> None:
    """How far an experiment is: from its files alone, from any shell, at any time."""
    from vendomini.cli import status as standing

    raise typer.Exit(
        standing.show_status(experiment, root=root, measures=measures, as_json=as_json)
    )


@app.command(epilog="Example:\n\n  vendomini collect experiments/demo --out tables")
def collect(
    experiment: ExperimentFolder,
    root: Root = Path("experiments"),
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Write the tables: runs.parquet, runs.csv, steps.parquet, and what their columns are."""
    from vendomini.cli import results

    raise typer.Exit(results.collect_tables(experiment, root=root, out=out, as_json=as_json))


@app.command(
    epilog="Examples:\n\n"
    "  vendomini play configs/demo.yaml\n\n"
    "  vendomini play demo --list\n\n"
    "  vendomini play demo --run 3f2a --steps 40:60\n\n"
    "  vendomini play my_phase.yaml engine.backend=vllm --live --pause\n\n"
    "  vendomini play my_phase.yaml --live --debug"
)
def play(
    config: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG",
            readable=False,
            help="A phase file, or an experiment: its folder, or its name below --root.",
        ),
    ],
    overrides: Overrides = None,
    run: Annotated[
        str | None,
        typer.Option(
            "--run", metavar="ID", help="The run whose id begins so; by default the grid's first."
        ),
    ] = None,
    only_list: Annotated[
        bool, typer.Option("--list", help="Only list the runs, with their ids.")
    ] = False,
    steps: Annotated[
        str | None,
        typer.Option("--steps", metavar="A:B", help="Only steps A to B; either may be left away."),
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Play it here and now, even if it is finished.")
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="Cut no text, however long.")] = False,
    pause: Annotated[bool, typer.Option("--pause", help="Wait for Enter after each step.")] = False,
    debug: Annotated[
        bool,
        typer.Option(
            "--debug", help="With --live: every error with its trace, and breakpoint() works."
        ),
    ] = False,
    root: Root = Path("experiments"),
    as_json: Annotated[
        bool, typer.Option("--json", help="For scripts: one JSON object a step, then the outcome.")
    ] = False,
) -> None:
    """Show one run step by step: from its log if it is finished, else live. Writes nothing."""
    from vendomini.cli import play as playing

    request = playing.Shown(
        config=config,
        overrides=tuple(overrides or ()),
        root=root,
        run=run,
        steps=steps,
        live=live,
        only_list=only_list,
        full=full,
        pause=pause,
        debug=debug,
        as_json=as_json,
    )
    raise typer.Exit(playing.play(request))


@app.command(
    name="import-results",
    epilog="Example:\n\n  vendomini import-results ../old_project --out tables",
)
def import_results(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            readable=False,
            help="The older program's project, its logs, or one folder of results.",
        ),
    ],
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Write an older program's results as tables like those of `collect`."""
    from vendomini.cli import results

    raise typer.Exit(results.import_results(folder, out=out, as_json=as_json))


@app.command(
    epilog="Examples:\n\n"
    "  vendomini init --workload my_task\n\n"
    "  vendomini init --workload my_task --out packages/my_task"
)
def init(
    workload: Annotated[
        str | None,
        typer.Option(
            "--workload", metavar="NAME", help="A workload of your own, with a phase and a test."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", readable=False, help="Where it goes; by default ./NAME."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a package to start from: it works as it is."""
    from vendomini.cli import init as beginning

    raise typer.Exit(beginning.init(workload, out=out, as_json=as_json))


fit.register(app)
app.add_typer(models.app, name="models")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Typer hangs the options of the program itself on a function."""


def main() -> None:
    """Run the program; a user's mistake is one clear error and its exit status."""
    # A `kill` of the program is answered like Ctrl-C: workers drain, nothing is lost.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal without UTF-8 gets a name's letters escaped instead of a traceback.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except VendoMiniError as error:
        from vendomini.cli import show

        show.error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
