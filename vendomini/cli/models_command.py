"""`vendomini models`, as the command line has it."""

from typing import Annotated

import typer

from vendomini.cli.options import Command, Group, Json

app = typer.Typer(
    cls=Group,
    help="List known models, with their sizes and the source of each fact.",
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Examples:\n\n"
    "  vendomini models\n\n"
    "  vendomini models --match qwen3\n\n"
    "  vendomini models show Qwen/Qwen3-32B\n\n"
    "  vendomini models show ./my_model --json",
)


@app.callback(invoke_without_command=True)
def models(
    context: typer.Context,
    match: Annotated[
        str | None,
        typer.Option(
            "--match", metavar="TEXT", help="Only models with this text in the id or alias."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the models that VendoMini knows without having their files."""
    if context.invoked_subcommand is None:
        from vendomini.cli import known

        known.list_models(match, as_json=as_json)


@app.command(
    name="show",
    cls=Command,
    epilog="Examples:\n\n"
    "  vendomini models show meta-llama/Llama-3.1-8B-Instruct\n\n"
    "  vendomini models show ./my_model --json",
)
def show_model(
    model: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="A hub id (of a known or a cached model), or a local folder."
        ),
    ],
    as_json: Json = False,
) -> None:
    """Show what is known about one model, and the source of each fact."""
    from vendomini.cli import known

    known.show_model(model, as_json=as_json)
