"""The command `tunnel`: arguments, printing, exit codes."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import trio
import typer
from rich.console import Console

from tunnel import config, daemon
from tunnel.cli import background, bench, keys, lab
from tunnel.cli.show import print_status
from tunnel.control import json_socket
from tunnel.observe.status import TunnelStatus

EXIT_FAILED = 1
"""The machine or the daemon refused; the reason is on standard error."""
EXIT_USAGE = 2
"""The command line or the conf is wrong; nothing was touched."""

app = typer.Typer(
    help="A userspace VPN that speaks WireGuard and shows every packet's way through the IP stack.",
    epilog="Exit codes: 0 done, 1 failed (the reason is on standard error), "
    "2 wrong command line or conf (nothing was touched).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(keys.app)
app.add_typer(lab.app)
app.add_typer(bench.app)

Name = Annotated[
    str,
    typer.Argument(
        metavar="CONF|NAME",
        help="A conf file, or the name of one in /etc/tunnel or /etc/wireguard.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def run() -> None:
    """The console script's entry point."""
    app(prog_name="tunnel")


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


@app.command()
def up(
    conf: Name,
    foreground: Annotated[
        bool, typer.Option("--foreground", "-f", help="Stay, and log to standard error.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
    ready_fd: Annotated[int, typer.Option(hidden=True)] = -1,
) -> None:
    """Set up the tunnel of a conf: interface, addresses, routes, peers.

    Returns as soon as packets can flow, and leaves a daemon behind that logs to
    /run/tunnel/NAME.log. Undo it with `tunnel down`.
    """
    loaded = load_config(conf)
    if not foreground:
        try:
            background.start(loaded, verbose=verbose)
        except background.StartError as error:
            fail(error)
        return
    _log_to_stderr(verbose)
    try:
        with background.Readiness(ready_fd) as readiness:
            trio.run(lambda: daemon.Daemon(loaded).run(ready=readiness.ready))
    except daemon.SETUP_ERRORS as error:
        fail(error)


@app.command()
def down(conf: Name) -> None:
    """Take a tunnel down and remove all that `up` set up, and only that.

    Works too when its daemon was killed: what it left behind is found and removed.
    """
    name = interface_name(conf)
    try:
        try:
            with json_socket.Client(name) as client:
                client.call("down")
        except json_socket.NotRunningError:
            if not daemon.clean_up(name):
                fail(f"no tunnel named {name} is up, and nothing is left of one")
        else:
            # It holds its lock until the last thing is undone.
            daemon.clean_up(name, patience=30)
    except (json_socket.ControlError, *daemon.SETUP_ERRORS) as error:
        fail(error)


@app.command()
def show(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One interface; all if left out.")
    ] = None,
    as_json: Json = False,
    secrets: Annotated[
        bool, typer.Option("--secrets", help="Print private and preshared keys too.")
    ] = False,
) -> None:
    """Show running tunnels: peers, endpoints, handshakes, transfer, drops by reason."""
    names = [interface_name(name)] if name else json_socket.running_names()
    statuses = []
    for each in names:
        try:
            with json_socket.Client(each) as client:
                statuses.append(TunnelStatus.from_json(client.call("status", secrets=secrets)))
        except json_socket.NotRunningError as error:
            # Without a name: one that ended meanwhile, or left its socket behind.
            if name:
                fail(error)
        except json_socket.ControlError as error:
            fail(error)
    if as_json:
        typer.echo(json.dumps([status.to_json() for status in statuses], indent=2))
        return
    console = Console(highlight=False)
    for place, status in enumerate(statuses):
        if place:
            console.print()
        print_status(console, status)


def _log_to_stderr(verbose: bool) -> None:
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
    )
