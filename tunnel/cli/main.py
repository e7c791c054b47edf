"""The command `tunnel`: which commands there are, and in which module each is."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated

import typer

from tunnel.cli.common import CONTEXT
from tunnel.cli.helps import PlainGroup

MODULES = {
    "life": ("up", "down", "restart"),
    "show": ("show",),
    "run": ("run",),
    "keys": ("genkey", "genpsk", "pubkey", "strip"),
    "lab": ("lab",),
    "bench": ("bench",),
    "manage": ("reload", "diff", "save", "events"),
    "attach": ("attach", "detach"),
    "capture": ("capture",),
    "top.command": ("top",),
    "trace": ("trace",),
    "doctor": ("doctor",),
    "firewall": ("firewall",),
    "docker_plugin": ("docker-plugin",),
    "service": ("service",),
}
"""The commands of each module of this room, in the order of the help."""


def make_app(first_word: str = "") -> typer.Typer:
    """The command line, with the one command that `first_word` names, or with all.

    Scripts and units call and wait for it, and a module takes its time to load.
    """
    app = typer.Typer(
        cls=PlainGroup,
        help="A userspace VPN that speaks WireGuard and shows every packet's way through the IP"
        " stack.",
        epilog="Exit codes: 0 done, 1 failed (the reason is on standard error), "
        "2 wrong command line or conf (nothing was touched).",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        context_settings=CONTEXT,
    )
    app.callback()(_options)
    wanted = [module for module, commands in MODULES.items() if first_word in commands]
    for module in wanted or MODULES:
        app.add_typer(import_module(f"tunnel.cli.{module}").app)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        from tunnel.cli.version import version_text

        typer.echo(version_text("tunnel"))
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print version, commit, datapath and Python, and exit.",
        ),
    ] = False,
) -> None:
    """Take the options that stand before a command."""
