"""The options of `run` and `plan`, each said once, and how a dataclass becomes a command line."""

import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, fields
from glob import escape, glob
from inspect import Parameter, Signature
from pathlib import Path
from types import GenericAlias
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from vendomini import shipped
from vendomini.errors import ConfigError

if TYPE_CHECKING:  # the command line loads no planner
    from _typeshed import DataclassInstance

    from vendomini.looking.prepared import Request

T = TypeVar("T", bound="DataclassInstance")


def takes(
    options: type[T], *, without: Collection[str] = ()
) -> Callable[[Callable[[T], None]], Callable[..., None]]:
    """Gives a command, which takes one dataclass, a parameter for each of the dataclass's fields.

    Each field has a default, and is annotated for Typer: ``Annotated[type, typer.Option(...)]``.
    Typer has no ``tuple[str, ...]``, but ``list[str]``: the one becomes the other. `without` names
    the fields that this command has no option for; they keep their defaults.
    """
    hints = get_type_hints(options, include_extras=True)
    parameters = []
    for field in fields(options):
        if field.name in without:
            continue
        kind, option = get_args(hints[field.name])
        if get_origin(kind) is tuple:
            kind = GenericAlias(list, get_args(kind)[:1])
        annotation = Annotated[kind, option]  # type: ignore[valid-type]  # known when it runs
        parameters.append(
            Parameter(
                field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=annotation
            )
        )

    def decorate(command: Callable[[T], None]) -> Callable[..., None]:
        def given(**values: Any) -> None:
            lists = {name: tuple(value) for name, value in values.items() if type(value) is list}
            command(options(**{**values, **lists}))

        given.__name__, given.__doc__ = command.__name__, command.__doc__
        given.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        return given

    return decorate


class Command(TyperCommand):
    """A command in whose help each option has our own word for its value, or none.

    Without it Typer shows types: `<bool>` beside a flag, `<list[str]>` beside an argument.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        """As Typer's, less the types."""
        return _without_types(super().get_params(ctx))


class Group(TyperGroup):
    """As `Command`, for commands that have commands."""

    def get_params(self, ctx: Any) -> list[Any]:
        """As Typer's, less the types."""
        return _without_types(super().get_params(ctx))


def _without_types(parameters: Iterable[Any]) -> list[Any]:
    parameters = list(parameters)
    for parameter in parameters:
        if parameter.metavar is None or parameter.param_type_name == "argument":
            parameter.display_type_rich = lambda ctx: None
    return parameters


# -- what the shell completes ------------------------------------------------------------------


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    """Shipped names, and the YAML files here that begin so, too. Where no name does there is
    nothing, and the shell goes on with paths."""
    found = [name for name in names if name.startswith(incomplete)]
    return [*found, *sorted(glob(f"{escape(incomplete)}*.yaml"))] if found else []


def complete_phases(incomplete: str) -> list[str]:
    """For FILE."""
    return _beginning(shipped.phases(), incomplete)


def complete_profiles(incomplete: str) -> list[str]:
    """For --profile."""
    return _beginning(shipped.profiles(), incomplete)


# -- the options -------------------------------------------------------------------------------


Root = Annotated[
    Path,
    typer.Option(
        "--root",
        metavar="DIR",
        envvar="VENDOMINI_ROOT",
        readable=False,
        help="The folder with all experiments.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for scripts.")]
Settings = typer.Argument(
    metavar="KEY=VALUE",
    help="Settings that replace those of the file, such as engine.concurrency=64.",
    show_default=False,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of `run` and `plan`, as they were typed."""

    file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE",
            help="A phase file, or the name of a shipped phase, such as demo.",
            show_default=False,
            autocompletion=complete_phases,
        ),
    ] = None
    words: Annotated[tuple[str, ...], Settings] = ()
    named: Annotated[
        tuple[str, ...],
        typer.Option(
            "--config",
            metavar="FILE",
            help="Another way to give FILE.",
            show_default=False,
            autocompletion=complete_phases,
        ),
    ] = ()
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show the plan, as `vendomini plan` does.")
    ] = False
    cluster: Annotated[
        bool,
        typer.Option(
            "--cluster",
            help="Use Slurm. Inside a Slurm job, `run` joins the experiment as a worker.",
        ),
    ] = False
    profile: Annotated[
        Path | None,
        typer.Option(
            "--profile",
            metavar="FILE",
            readable=False,  # here and elsewhere: what reads a file has the better error
            help="A cluster profile, or the name of a shipped one, such as h100.",
            autocompletion=complete_profiles,
        ),
    ] = None
    root: Root = Path("experiments")
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", help="Take only the first N runs of the grid."),
    ] = None
    n_jobs: Annotated[
        int, typer.Option("--n-jobs", metavar="N", help="The number of local workers.")
    ] = 1
    max_gpu_hours: Annotated[
        float | None,
        typer.Option(
            "--max-gpu-hours",
            metavar="H",
            help="Refuse a plan that is expected to take more GPU-hours.",
        ),
    ] = None
    explain: Annotated[
        str | None,
        typer.Option(
            "--explain",
            metavar="MODEL",
            help="Only show how this model was planned: its sizes, the memory of a GPU, and what "
            "was rejected.",
        ),
    ] = None
    restart_groups: Annotated[
        tuple[str, ...],
        typer.Option(
            "--restart-group",
            metavar="GROUP",
            help="Archive all results of this group, and play it again.",
            show_default=False,
        ),
    ] = ()
    restart_runs: Annotated[
        tuple[str, ...],
        typer.Option(
            "--restart-run",
            metavar="ID",
            help="Archive the result and the replies of this run, by the beginning of its id, and "
            "play it again.",
            show_default=False,
        ),
    ] = ()
    trust_names: Annotated[
        bool,
        typer.Option(
            "--trust-names",
            help="Submit a model that is neither on this machine nor in the catalogue.",
        ),
    ] = False
    replace_grid: Annotated[
        bool,
        typer.Option(
            "--replace-grid",
            help="Let runs that have results leave the grid: they are kept, and marked.",
        ),
    ] = False
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Try each axis of the grid, and refuse one that changes nothing."
        ),
    ] = False
    as_json: Json = False

    def request(self) -> "Request":
        """What is asked. Raises `ConfigError` unless one phase is named."""
        from vendomini.looking.prepared import Request

        config, overrides = self._phase_and_settings()
        return Request(
            config=Path(config),
            overrides=overrides,
            cluster=self.cluster,
            profile=self.profile,
            root=self.root,
            limit=self.limit,
            n_jobs=self.n_jobs,
            restart_groups=self.restart_groups,
            restart_runs=self.restart_runs,
            trust_names=self.trust_names,
            replace_grid=self.replace_grid,
            max_gpu_hours=self.max_gpu_hours,
        )

    def _phase_and_settings(self) -> tuple[str, tuple[str, ...]]:
        """FILE, wherever it stands, and each KEY=VALUE."""
        words = self.words if self.file is None else (self.file, *self.words)
        if self.named:
            files, settings = [*self.named], words
        elif not words:
            raise ConfigError(
                "which phase? No FILE is given",
                hint="name a phase file or a shipped phase, such as `vendomini run demo`; "
                "`vendomini run --help` names all that are shipped",
            )
        elif "=" in words[0] and not os.path.isfile(words[0]):
            raise ConfigError(
                f"`{words[0]}` is a setting, where FILE is expected",
                hint=f"name the phase first, such as `vendomini run demo {words[0]}`",
            )
        else:
            files, settings = [words[0]], words[1:]
        files += filter(_is_meant_as_file, settings)
        if not files[0].strip():
            raise ConfigError("FILE is empty", hint="name a phase file, or a shipped phase")
        if len(files) > 1:
            raise ConfigError(
                f"FILE is given twice: {' and '.join(f'`{file}`' for file in files)}",
                hint="give one phase, as FILE or with --config",
            )
        return files[0], settings


def _is_meant_as_file(word: str) -> bool:
    """Of a word where KEY=VALUE is expected."""
    return "=" not in word and (
        os.path.isfile(word) or word.endswith((".yaml", ".yml")) or word in shipped.phases()
    )
