"""`vendomini models`, as the command line has it."""

from typing import Annotated

import typer

app = typer.Typer(
    help="Which models are known, their sizes, and where each fact comes from.",
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Examples:\n\n"
    "  vendomini models\n\n"
    "  vendomini models --match qwen3\n\n"
    "  vendomini models show Qwen/Qwen3-32B\n\n"
    "  vendomini models show ./my_model --json",
)

Json = Annotated[bool, typer.Option("--json", help="For scripts: JSON on stdout.")]


@app.callback(invoke_without_command=True)
def models(
    context: typer.Context,
    match: Annotated[
        str | None,
        typer.Option("--match", metavar="TEXT", help="Only those whose id or alias contains it."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the models that are known without their files."""
    if context.invoked_subcommand is None:
        from vendomini.cli import known

        known.list_models(match, as_json=as_json)


@app.command(
    name="show",
    epilog="Examples:\n\n"
    "  vendomini models show meta-llama/Llama-3.1-8B-Instruct\n\n"
    "  vendomini models show ./my_model --json",
)
def show_model(
    model: Annotated[
        str,
        typer.Argument(metavar="ID", help="A hub id, known or in the cache, or a local folder."),
    ],
    as_json: Json = False,
) -> None:
    """Show what is known of one model, and where each fact comes from."""
    from vendomini.cli import known

    known.show_model(model, as_json=as_json)
