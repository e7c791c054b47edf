"""`tunnel show`: the running tunnels as they are now."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console

from tunnel.cli.common import EXIT_FAILED, Json, complain, fail, interface_name, refusals_printed
from tunnel.cli.status import print_status
from tunnel.control import run_folder
from tunnel.control.client import TunnelClient
from tunnel.control.json_client import NotRunningError
from tunnel.control.json_protocol import ControlError
from tunnel.control.messages.status import TunnelStatus

app = typer.Typer()


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
    names = [interface_name(name)] if name else run_folder.running_names()
    if watching:
        if not names:
            fail("no tunnel is running on this host")
        from tunnel.cli.watch import watch

        with refusals_printed():
            watch(names, Console(highlight=False), secrets=secrets)
        return
    statuses, is_silent = [], False
    for each in names:
        try:
            with TunnelClient(each) as client:
                client.ping()
                statuses.append(client.status(secrets=secrets))
        except ControlError as error:
            # Without a name: one that is not up yet, ended meanwhile, or left its socket behind.
            if name or error.code not in (
                "not_running",
                "state",
                "closed",
                "timeout",
                "permission",
            ):
                fail(error)
            # One that does not answer us keeps none of the others from being shown.
            is_silent = is_silent or error.code in ("timeout", "permission")
            if is_silent or (isinstance(error, NotRunningError) and error.killed):
                complain(f"tunnel: {error}")
    _print_statuses(statuses, as_json=as_json)
    if is_silent:
        raise typer.Exit(EXIT_FAILED)


def _print_statuses(statuses: Sequence[TunnelStatus], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([status.to_json() for status in statuses], indent=2))
        return
    console = Console(highlight=False)
    for place, status in enumerate(statuses):
        if place:
            console.print()
        print_status(console, status)
