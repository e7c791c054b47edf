"""`tunnel show`: the running tunnels as they are now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console

from tunnel.cli.common import (
    EXIT_FAILED,
    EXIT_USAGE,
    Json,
    complain,
    fail,
    interface_name,
    print_json,
    refusals_printed,
    running_names,
)
from tunnel.cli.fields import FIELDS, SECRET_FIELDS, field_lines
from tunnel.cli.status import print_status
from tunnel.control.client import TunnelClient
from tunnel.control.json_client import NotRunningError
from tunnel.control.json_protocol import ControlError
from tunnel.control.messages.status import TunnelStatus

app = typer.Typer()


@app.command()
def show(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="One interface, `all` (the default), or `interfaces` for their names.",
        ),
    ] = None,
    field: Annotated[
        str | None,
        typer.Argument(metavar="[FIELD]", help=f"As `wg show` prints it: {', '.join(FIELDS)}."),
    ] = None,
    as_json: Json = False,
    secrets: Annotated[
        bool, typer.Option("--secrets", help="Print private and preshared keys too.")
    ] = False,
    whole: Annotated[
        bool, typer.Option("--all", "-a", help="Print all peers and allowed IPs, however many.")
    ] = False,
    watching: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on showing them, until ^C.")
    ] = False,
) -> None:
    """Show running tunnels: peers, endpoints, handshakes, transfer, drops by reason.

    With FIELD, print only that, tab-separated, for scripts. `dump` prints all, with secret keys.

    Examples:

        tunnel show office
        tunnel show office latest-handshakes
        tunnel show all dump
    """
    if field is not None and field not in FIELDS:
        fail(f"unknown field {field!r}; choose from {', '.join(FIELDS)}", EXIT_USAGE)
    if field is not None and (as_json or watching):
        fail("FIELD cannot be combined with --json or --watch", EXIT_USAGE)
    every = name in (None, "all", "interfaces")
    names = running_names() if every else [interface_name(str(name))]
    if name == "interfaces":
        typer.echo(" ".join(names))
        return
    if watching:
        if not names:
            fail("no tunnel is running on this host")
        from tunnel.cli.watch import watch

        with refusals_printed():
            watch(names, Console(highlight=False), secrets=secrets)
        return
    needs_secrets = secrets or field in SECRET_FIELDS
    statuses, is_silent = _statuses(names, patient=every, secrets=needs_secrets)
    if field is not None:
        for status in statuses:
            for line in field_lines(status, field):
                typer.echo(f"{status.name}\t{line}" if name == "all" else line)
    elif statuses or not is_silent:
        _print_statuses(statuses, as_json=as_json, whole=whole)
    if is_silent:
        raise typer.Exit(EXIT_FAILED)


def _statuses(
    names: Sequence[str], *, patient: bool, secrets: bool
) -> tuple[list[TunnelStatus], bool]:
    """What the daemons answer, and whether one of them did not answer us; if `patient`, one that
    cannot be asked keeps none of the others from being shown.
    """
    statuses, is_silent = [], False
    for each in names:
        try:
            with TunnelClient(each) as client:
                client.ping()
                statuses.append(client.status(secrets=secrets))
        except ControlError as error:
            # If patient: one that is not up yet, ended meanwhile, or left its socket behind.
            if not patient or error.code not in (
                "not_running",
                "state",
                "closed",
                "timeout",
                "permission",
            ):
                fail(error)
            silent = error.code in ("timeout", "permission")
            is_silent = is_silent or silent
            if silent or (isinstance(error, NotRunningError) and error.killed):
                complain(f"tunnel: {error}")
    return statuses, is_silent


def _print_statuses(statuses: Sequence[TunnelStatus], *, as_json: bool, whole: bool) -> None:
    if as_json:
        print_json(statuses)
        return
    console = Console(highlight=False)
    for place, status in enumerate(statuses):
        if place:
            console.print()
        print_status(console, status, whole=whole)
