"""`tunnel help`: the help of a command, as its own --help prints it."""

from __future__ import annotations

from typing import Annotated

import typer

from tunnel.cli.main import make_app

app = typer.Typer()


@app.command("help")
def show_help(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[COMMAND]", help="The command, and its subcommand if it has any."),
    ] = None,
) -> None:
    """Explain a command; without COMMAND, list all.

    Examples:

        tunnel help up
        tunnel help service install
    """
    command = words or []
    make_app(*command[:1])([*command, "--help"], prog_name=context.find_root().info_name)
