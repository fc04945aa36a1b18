"""The commands, and the one place where an error becomes words and an exit status."""

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from vendomini import __version__
from vendomini.cli import commands
from vendomini.errors import VendoMiniError

app = typer.Typer(
    name="vendomini",
    help="Grids of LLM-agent experiments: planned, packed onto engines, never lost.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # our errors are words; a bug keeps its plain traceback
    rich_markup_mode="rich",
)

ConfigFile = Annotated[
    Path, typer.Option("--config", help="The phase file, such as configs/demo.yaml.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Settings that win over the file, such as agent.kind=heuristic.",
        show_default=False,
    ),
]
Cluster = Annotated[
    bool,
    typer.Option("--cluster", help="Use Slurm; inside a job of your own, join as a worker."),
]
ProfileFile = Annotated[
    Path | None,
    typer.Option("--profile", help="What to ask Slurm for, such as slurm/example.yaml."),
]
Root = Annotated[
    Path,
    typer.Option("--root", envvar="VENDOMINI_ROOT", help="Where experiments live."),
]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="Only the first N runs of the grid.")
]
Workers = Annotated[int, typer.Option("--n-jobs", min=1, help="Local workers.")]
Json = Annotated[bool, typer.Option("--json", help="For scripts: JSON on stdout.")]


@app.command(
    epilog="[dim]vendomini run --config configs/demo.yaml[/dim]\n\n"
    "[dim]vendomini run --config configs/phases/phase1_small_models.yaml "
    "agent.kind=heuristic --cluster --profile slurm/example.yaml[/dim]"
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
    request = commands.Request(
        config=config,
        overrides=tuple(overrides or ()),
        cluster=cluster,
        profile=profile,
        root=root,
        limit=limit,
        n_jobs=n_jobs,
        restart_groups=tuple(restart_group or ()),
        as_json=as_json,
    )
    raise typer.Exit(commands.show_plan(request) if dry_run else commands.run(request))


@app.command(
    epilog="[dim]vendomini plan --config configs/phases/phase1_large_models.yaml "
    "--profile slurm/example.yaml[/dim]"
)
def plan(
    config: ConfigFile,
    overrides: Overrides = None,
    cluster: Cluster = False,
    profile: ProfileFile = None,
    root: Root = Path("experiments"),
    limit: Limit = None,
    n_jobs: Workers = 1,
    as_json: Json = False,
) -> None:
    """Show what `run` would do, and why. Writes and books nothing."""
    request = commands.Request(
        config=config,
        overrides=tuple(overrides or ()),
        cluster=cluster,
        profile=profile,
        root=root,
        limit=limit,
        n_jobs=n_jobs,
        restart_groups=(),
        as_json=as_json,
    )
    raise typer.Exit(commands.show_plan(request))


ExperimentFolder = Annotated[
    Path, typer.Argument(metavar="EXPERIMENT", help="Its folder, or its name below --root.")
]


@app.command(epilog="[dim]vendomini status experiments/demo[/dim]")
def status(
    experiment: ExperimentFolder,
    root: Root = Path("experiments"),
    as_json: Json = False,
) -> None:
    """How far an experiment is: from its files alone, from any shell, at any time."""
    raise typer.Exit(commands.show_status(experiment, root=root, as_json=as_json))


@app.command(epilog="[dim]vendomini collect experiments/demo --out tables[/dim]")
def collect(
    experiment: ExperimentFolder,
    root: Root = Path("experiments"),
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Where the tables go; by default `collected/` inside it."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the tables: runs.parquet, runs.csv and steps.parquet, one row a run and a step."""
    raise typer.Exit(commands.collect_tables(experiment, root=root, out=out, as_json=as_json))


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
    try:
        app()
    except VendoMiniError as error:
        console = Console(stderr=True, soft_wrap=True, highlight=False)
        console.print("[bold red]error:[/bold red]", end=" ")
        console.print(str(error), markup=False)
        if error.hint:
            console.print("\n[bold]hint:[/bold]", end=" ")
            console.print(error.hint, markup=False)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
