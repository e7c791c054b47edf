"""The command `tunnel`: which commands there are, and in which module each is."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any

import typer

from tunnel.cli.common import CONTEXT, EXIT_USAGE
from tunnel.cli.helps import PlainGroup, screen

MODULES = {
    "life": ("up", "down", "restart"),
    "show": ("show",),
    "run": ("run",),
    "new": ("new",),
    "pair": ("pair",),
    "peer": ("peer",),
    "qr": ("qr",),
    "web": ("web",),
    "convert": ("import", "export"),
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
    "help": ("help",),
    "completion": ("completion", "complete-words"),
}
"""The commands of each module of this room."""

GROUPS = (
    (
        "Every day",
        (
            (("up", "down", "restart"), "Set up the tunnel of a conf; undo that; both in turn."),
            (("show", "top", "web"), "Show running tunnels: now, or live; a hub on a page."),
            (("reload", "diff", "save"), "Apply a changed conf; preview that; write it back."),
        ),
    ),
    (
        "Look",
        (
            (("doctor",), "Find out why nothing flows, and how to fix it."),
            (("trace", "capture"), "Follow packets step by step; write them to a file."),
            (("events", "firewall"), "Follow what happens; show rules and their counters."),
        ),
    ),
    (
        "Containers",
        (
            (("run",), "Run a command whose only network is a tunnel."),
            (("attach", "detach"), "Move a tunnel into a container's network, and back."),
            (("docker-plugin",), "Serve Docker networks that reach through a tunnel."),
        ),
    ),
    (
        "Make",
        (
            (
                ("new", "pair", "peer", "qr"),
                "Make confs, or by ssh all; add peers; show to a phone.",
            ),
            (("genkey", "genpsk", "pubkey"), "Make keys."),
            (("import", "export", "strip"), "Convert confs: other programs' to ours, and back."),
            (("lab", "bench"), "Try tunnels on this machine alone; measure it."),
        ),
    ),
    (
        "Service",
        (
            (("service", "completion"), "Run tunnels under systemd; complete words in a shell."),
            (("help",), "Explain a command: tunnel help COMMAND"),
        ),
    ),
)
"""The help of `tunnel`: groups, and in each of them commands and what they are for."""


class _Root(PlainGroup):
    """All commands; its help is one screen of 24 lines."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the screen."""
        formatter.write(screen(GROUPS))


def make_app(first_word: str = "") -> typer.Typer:
    """The command line, with the one command that `first_word` names, or with all.

    Scripts and units call and wait for it, and a module takes its time to load.
    """
    app = typer.Typer(
        cls=_Root,
        invoke_without_command=True,
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
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print version, commit, datapath, cipher and Python, and exit.",
        ),
    ] = False,
) -> None:
    """Take the options that stand before a command; without one, show them all."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(EXIT_USAGE)
