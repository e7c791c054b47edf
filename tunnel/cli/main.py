"""The command `tunnel`: arguments, printing, exit codes."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated

import trio
import typer
from rich.console import Console

from tunnel import daemon
from tunnel.cli import background, bench, capture, doctor, keys, lab, manage, service, top, trace
from tunnel.cli.common import (
    EXIT_FAILED,
    Json,
    Name,
    complain,
    fail,
    interface_name,
    load_config,
    refusals_printed,
)
from tunnel.cli.show import print_status
from tunnel.cli.watch import watch
from tunnel.control import json_socket
from tunnel.control.client import TunnelClient
from tunnel.notify import Notifier
from tunnel.observe import logs
from tunnel.pauses import avoid_pauses

app = typer.Typer(
    help="A userspace VPN that speaks WireGuard and shows every packet's way through the IP stack.",
    epilog="Exit codes: 0 done, 1 failed (the reason is on standard error), "
    "2 wrong command line or conf (nothing was touched).",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.add_typer(keys.app)
app.add_typer(lab.app)
app.add_typer(bench.app)
app.add_typer(manage.app)
app.add_typer(capture.app)
app.add_typer(top.app)
app.add_typer(trace.app)
app.add_typer(doctor.app)
app.add_typer(service.app, name="service")


def run() -> None:
    """The console script's entry point."""
    app(prog_name="tunnel")


@app.command()
def up(
    conf: Name,
    foreground: Annotated[
        bool, typer.Option("--foreground", "-f", help="Stay, and log to standard error.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Log one JSON object a line, for programs.")
    ] = False,
    ready_fd: Annotated[int, typer.Option(hidden=True)] = -1,
    log_file: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Set up the tunnel of a conf: interface, addresses, routes, peers.

    Returns as soon as packets can flow, and leaves a daemon behind that logs to
    /run/tunnel/NAME.log. Undo it with `tunnel down`.
    """
    loaded = load_config(conf)
    if not foreground:
        try:
            flags = (("--verbose", verbose), ("--log-json", log_json))
            background.start(
                loaded,
                options=[flag for flag, given in flags if given],
                note=lambda text: complain(f"warning: {text}", logging.WARNING),
            )
        except background.StartError as error:
            fail(error)
        return
    if log_file is None:
        logs.log_to_stream(verbose=verbose, as_json=log_json)
    else:
        logs.log_to_file(log_file, verbose=verbose, as_json=log_json)
    notifier = Notifier.from_environment()
    with background.Readiness(ready_fd) as readiness:

        def ready() -> None:
            avoid_pauses()
            readiness.ready()

        try:
            running = daemon.Daemon(loaded, notifier=notifier)
            trio.run(lambda: running.run(ready=ready, handle_signals=True))
        except daemon.SETUP_ERRORS as error:
            notifier.status(str(error))
            readiness.failed(str(error))
            if log_file is None and not log_json:
                fail(error)
            # Whoever reads the log expects lines of the log there.
            logging.getLogger("tunnel").error("%s", error)
            raise typer.Exit(EXIT_FAILED) from None


@app.command()
def down(
    conf: Name,
    leftovers: Annotated[
        bool,
        typer.Option(
            "--leftovers", help="Only clean up after a killed daemon; nothing to do is no failure."
        ),
    ] = False,
) -> None:
    """Take a tunnel down and remove all that `tunnel up` set up, and only that.

    Works too when its daemon was killed: what it left behind is found and removed.
    """
    name = interface_name(conf)
    try:
        if leftovers:
            if daemon.clean_up(name):
                typer.echo(f"removed what was left of {name}")
        elif not daemon.take_down(name):
            fail(f"no tunnel named {name} is up, and nothing is left of one")
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
    watching: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on showing them, until ^C.")
    ] = False,
) -> None:
    """Show running tunnels: peers, endpoints, handshakes, transfer, drops by reason."""
    names = [interface_name(name)] if name else json_socket.running_names()
    if watching:
        if not names:
            fail("no tunnel is running on this host")
        with refusals_printed():
            watch(names, Console(highlight=False), secrets=secrets)
        return
    statuses = []
    for each in names:
        try:
            with TunnelClient(each) as client:
                statuses.append(client.status(secrets=secrets))
        except json_socket.ControlError as error:
            # Without a name: one that is not up yet, ended meanwhile, or left its socket behind.
            if name or error.code not in ("not_running", "state", "closed"):
                fail(error)
            if isinstance(error, json_socket.NotRunningError) and error.killed:
                complain(f"tunnel: {error}")
    if as_json:
        typer.echo(json.dumps([status.to_json() for status in statuses], indent=2))
        return
    console = Console(highlight=False)
    for place, status in enumerate(statuses):
        if place:
            console.print()
        print_status(console, status)
