"""The command `tunnel`: arguments, printing, exit codes."""

from __future__ import annotations

from typing import Annotated

import typer

from tunnel.cli import bench, capture, doctor, firewall, keys, lab, life, manage, service, trace
from tunnel.cli.common import CONTEXT
from tunnel.cli.helps import PlainGroup
from tunnel.cli.top import command

app = typer.Typer(
    cls=PlainGroup,
    help="A userspace VPN that speaks WireGuard and shows every packet's way through the IP stack.",
    epilog="Exit codes: 0 done, 1 failed (the reason is on standard error), "
    "2 wrong command line or conf (nothing was touched).",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings=CONTEXT,
)
app.add_typer(life.app)
app.add_typer(keys.app)
app.add_typer(lab.app)
app.add_typer(bench.app)
app.add_typer(manage.app)
app.add_typer(capture.app)
app.add_typer(command.app)
app.add_typer(trace.app)
app.add_typer(doctor.app)
app.add_typer(firewall.app)
app.add_typer(service.app, name="service")


def _print_version(wanted: bool) -> None:
    if wanted:
        from tunnel.cli.version import version_text

        typer.echo(version_text("tunnel"))
        raise typer.Exit


@app.callback()
def options(
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
