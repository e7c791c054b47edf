"""What the commands share: arguments, exit codes, how errors are printed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from tunnel import config
from tunnel.control.json_socket import ControlError

EXIT_FAILED = 1
"""The machine or the daemon refused; the reason is on standard error."""
EXIT_USAGE = 2
"""The command line or the conf is wrong; nothing was touched."""

Name = Annotated[
    str,
    typer.Argument(
        metavar="CONF|NAME",
        help="A conf file, or the name of one in /etc/tunnel or /etc/wireguard.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def fail(message: object, code: int = EXIT_FAILED) -> NoReturn:
    """Print what went wrong to standard error and leave with `code`."""
    typer.echo(f"tunnel: {message}", err=True)
    raise typer.Exit(code)


def load_config(name: str) -> config.TunnelConfig:
    """The conf a user means by `name`; leaves with every mistake printed if it has any."""
    try:
        loaded = config.load(config.find(name))
    except config.ConfigErrors as errors:
        typer.echo(str(errors), err=True)
        raise typer.Exit(EXIT_USAGE) from None
    for warning in loaded.warnings:
        typer.echo(f"warning: {warning}", err=True)
    return loaded


def interface_name(name: str) -> str:
    """The interface that a conf's path, its file name or a bare name stands for."""
    return Path(name).name.removesuffix(".conf")


@contextlib.contextmanager
def refusals_printed() -> Iterator[None]:
    """Leave with the daemon's reason printed when it refuses."""
    try:
        yield
    except ControlError as error:
        if error.code == "conf":
            typer.echo(str(error), err=True)
            raise typer.Exit(EXIT_USAGE) from None
        fail(error)
