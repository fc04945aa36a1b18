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

from vendomini import __version__, shipped
from vendomini.cli import fit_command, models_command
from vendomini.cli.options import (
    Command,
    Group,
    Json,
    Options,
    Root,
    Settings,
    complete_phases,
    takes,
)
from vendomini.errors import VendoMiniError

app = typer.Typer(
    name="vendomini",
    cls=Group,
    help="Plan and run grids of LLM-agent experiments, on a Slurm cluster or on this machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # our errors are words; a bug keeps its plain traceback
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="DIR",
        readable=False,
        help="The folder for the tables. Default: `collected/` in the folder that is read.",
    ),
]
SHIPPED = (
    f"Shipped phases: {', '.join(shipped.phases())}\n\n"
    f"Shipped profiles: {', '.join(shipped.profiles())}"
)


@app.command(
    cls=Command,
    epilog="Examples:\n\n"
    "  vendomini run demo\n\n"
    "  vendomini run my_phase.yaml engine.concurrency=64\n\n"
    f"  vendomini run my_phase.yaml --cluster --profile my_cluster.yaml\n\n{SHIPPED}",
)
@takes(Options, without=["check"])
def run(options: Options) -> None:
    """Play the runs of a phase that are not finished yet."""
    if options.dry_run or options.explain is not None:
        from vendomini.cli import planning

        raise typer.Exit(planning.show_plan(options))
    from vendomini.cli import running

    raise typer.Exit(running.run(options.request(), as_json=options.as_json))


@app.command(
    cls=Command,
    epilog="Examples:\n\n"
    "  vendomini plan phase1_large_models --profile h100\n\n"
    f"  vendomini plan my_phase.yaml engine.gpu=H100 --json\n\n{SHIPPED}",
)
@takes(
    Options,
    without=["dry_run", "restart_groups", "restart_runs", "trust_names", "replace_grid"],
)
def plan(options: Options) -> None:
    """Show what `run` would do, and why. Submits nothing, and writes only a cache."""
    from vendomini.cli import planning

    raise typer.Exit(planning.show_plan(options))


def _experiments(incomplete: str) -> list[str]:
    """For the shell's completion: names of experiments in the folder where they usually are."""
    root = Path(os.environ.get("VENDOMINI_ROOT", "experiments"))
    names = (marker.parent.name for marker in root.glob("*/experiment.json"))
    return sorted(name for name in names if name.startswith(incomplete))


ExperimentFolder = Annotated[
    Path,
    typer.Argument(
        metavar="EXPERIMENT",
        readable=False,
        help="The folder of an experiment, or its name in the --root folder.",
        autocompletion=_experiments,
    ),
]


@app.command(cls=Command, epilog="Examples:\n\n  vendomini status demo\n\n  vendomini status")
def status(
    experiment: Annotated[
        Path | None,
        typer.Argument(
            metavar="EXPERIMENT",
            readable=False,
            help="The folder of an experiment, or its name in the --root folder. Without it, each "
            "experiment there has a line.",
            show_default=False,
            autocompletion=_experiments,
        ),
    ] = None,
    root: Root = Path("experiments"),
    measures: Annotated[
        bool,
        typer.Option(
            "--measures", help="Also show what the finished runs measured. Reads their logs."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show how far an experiment is. Reads only its files, so it works from any shell."""
    from vendomini.cli import status as standing

    if experiment is None:
        raise typer.Exit(standing.show_every(root, measures=measures, as_json=as_json))
    raise typer.Exit(
        standing.show_status(experiment, root=root, measures=measures, as_json=as_json)
    )


@app.command(
    cls=Command,
    epilog="Examples:\n\n"
    "  vendomini collect demo --out tables\n\n"
    "  vendomini collect demo --keep-short",
)
def collect(
    experiment: ExperimentFolder,
    root: Root = Path("experiments"),
    out: Out = None,
    keep_short: Annotated[
        bool,
        typer.Option(
            "--keep-short",
            help="Take the outcomes of runs whose steps are not all there as they are; their state "
            "stays `short`.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Write the tables: runs.parquet, runs.csv, steps.parquet, and schema.json.

    The exit status is 1 where finished runs are short: their result or some of their steps are
    lost, and the next `run` plays them again.
    """
    from vendomini.cli import results

    raise typer.Exit(
        results.collect_tables(
            experiment, root=root, out=out, keep_short=keep_short, as_json=as_json
        )
    )


@app.command(
    cls=Command,
    epilog="Examples:\n\n  vendomini remove demo\n\n  vendomini remove experiments/demo --yes",
)
def remove(
    experiment: ExperimentFolder,
    root: Root = Path("experiments"),
    yes: Annotated[bool, typer.Option("--yes", help="Delete it without a question.")] = False,
    as_json: Json = False,
) -> None:
    """Delete an experiment with all of its results. Asks first."""
    from vendomini.cli import remove as removing

    raise typer.Exit(removing.remove(experiment, root=root, yes=yes, as_json=as_json))


def _playable(incomplete: str) -> list[str]:
    """For the shell's completion: experiments and shipped phases."""
    return sorted({*_experiments(incomplete), *complete_phases(incomplete)})


@app.command(
    cls=Command,
    epilog="Examples:\n\n"
    "  vendomini play demo\n\n"
    "  vendomini play demo --list\n\n"
    "  vendomini play demo --run 3f2a --steps 40:60\n\n"
    "  vendomini play my_phase.yaml engine.backend=vllm --live --pause\n\n"
    "  vendomini play my_phase.yaml --live --debug",
)
def play(
    config: Annotated[
        Path,
        typer.Argument(
            metavar="WHAT",
            readable=False,
            help="An experiment (its folder, or its name in the --root folder), a phase file, "
            "or the name of a shipped phase.",
            autocompletion=_playable,
        ),
    ],
    overrides: Annotated[list[str] | None, Settings] = None,
    run: Annotated[
        str | None,
        typer.Option(
            "--run",
            metavar="ID",
            help="The run to show: the first letters of its id are enough. Default: the first run.",
        ),
    ] = None,
    only_list: Annotated[
        bool, typer.Option("--list", help="Only list the runs and their ids.")
    ] = False,
    steps: Annotated[
        str | None,
        typer.Option("--steps", metavar="A:B", help="Only steps A to B. A: and :B work, too."),
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Play the run now, even if it is finished.")
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="Show long texts in full.")] = False,
    pause: Annotated[bool, typer.Option("--pause", help="Wait for Enter after each step.")] = False,
    debug: Annotated[
        bool,
        typer.Option(
            "--debug", help="With --live: show the traceback of each error; breakpoint() works."
        ),
    ] = False,
    root: Root = Path("experiments"),
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print one JSON object for each step, then the outcome, for scripts."
        ),
    ] = False,
) -> None:
    """Show one run step by step: a finished run from its log, another one live. Writes nothing."""
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
    cls=Command,
    epilog="Example:\n\n  vendomini import-results ../old_project --out tables",
)
def import_results(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            readable=False,
            help="The project folder of the older program, its logs, or one folder of results.",
        ),
    ],
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Write the results of the older program as tables like those of `collect`."""
    from vendomini.cli import results

    raise typer.Exit(results.import_results(folder, out=out, as_json=as_json))


@app.command(
    cls=Command,
    epilog="Examples:\n\n"
    "  vendomini init --workload my_task\n\n"
    "  vendomini init --workload my_task --out packages/my_task",
)
def init(
    workload: Annotated[
        str | None,
        typer.Option(
            "--workload", metavar="NAME", help="The name of the new workload and its package."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", readable=False, help="The folder to write. Default: ./NAME."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a package with a small workload, a phase and a test, as a start for your own."""
    from vendomini.cli import init as beginning

    raise typer.Exit(beginning.init(workload, out=out, as_json=as_json))


fit_command.register(app)
app.add_typer(models_command.app, name="models")


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
