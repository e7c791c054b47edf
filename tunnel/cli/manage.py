"""`tunnel reload`, `diff`, `save` and `events`: what a running tunnel's daemon is asked to do."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Iterator, Sequence

import typer
from rich.console import Console
from rich.text import Text

from tunnel.cli.common import Json, Name, complain, interface_name, print_json, refusals_printed
from tunnel.control.client import TunnelClient, follow
from tunnel.control.json_client import NotRunningError
from tunnel.control.messages.changes import Change, ReloadResult
from tunnel.control.messages.events import TunnelEvent
from tunnel.control.messages.sentences import describe
from tunnel.log.redact import printable

app = typer.Typer()

MANY, FEW = 20, 5
"""More changes of a kind than this are summed up behind the first few."""

_STYLES = {"+": "green", "-": "red", "~": "yellow"}


@app.command()
def reload(name: Name, as_json: Json = False) -> None:
    """Make a running tunnel equal to its conf, which the daemon reads again.

    Addresses, routes, rules, DNS, MTU, port, keys, peers, allowed IPs: what did not change is not
    touched, and its packets flow on. A mistake in the conf leaves everything as it was.

    Example:

        tunnel reload office
    """
    with refusals_printed(), TunnelClient(interface_name(name)) as client:
        _print(client.reload(), as_json=as_json, nothing="nothing to change")


@app.command()
def diff(name: Name, as_json: Json = False) -> None:
    """Show what `tunnel reload` would change, and change nothing.

    Example:

        tunnel diff office
    """
    with refusals_printed(), TunnelClient(interface_name(name)) as client:
        _print(client.diff(), as_json=as_json, nothing="reload would change nothing")


@app.command()
def save(name: Name) -> None:
    """Write what runs now into the conf: what was changed by hand since `tunnel up`.

    Lines that still hold, and all comments, stay as they are. What had to change is printed, keys
    hidden.

    Example:

        tunnel save office
    """
    with refusals_printed(), TunnelClient(interface_name(name)) as client:
        saved = client.save()
    for note in saved.notes:
        complain(f"warning: {note}", logging.WARNING)
    if not saved.changed:
        typer.echo(f"{saved.path} is up to date")
        return
    typer.echo(f"saved {saved.path}")
    console = Console(highlight=False)
    for line in saved.lines:
        text = f"{line.sign} line {line.number}: {printable(line.text)}"
        console.print(Text(text, _STYLES[line.sign]), soft_wrap=True)
    if saved.more_lines:
        typer.echo(f"and {saved.more_lines} lines more")


@app.command()
def events(name: Name, as_json: Json = False) -> None:
    """Follow a tunnel's events: handshakes, roaming, drops, reloads; one a line, until ^C.

    After a restart they are those of the next daemon. A line on standard error says when it has
    begun.

    Example:

        tunnel events office
    """
    interface = interface_name(name)

    def wait(announced: bool) -> None:
        what = "ends" if announced else "has ended without a word, as one that was killed"
        complain(f"the daemon of {interface} {what}; waiting for the next one", logging.WARNING)

    with contextlib.suppress(KeyboardInterrupt), refusals_printed():
        events = follow(interface, wait)
        typer.echo(f"following the events of {interface}, until ^C", err=True)
        try:
            for event in events:
                typer.echo(json.dumps(event.to_json()) if as_json else _line(event))
        except NotRunningError:
            # Killed, or that of a command of `tunnel run`, which ends with the command.
            complain(f"the daemon of {interface} has ended, and no other one has come")


def _print(result: ReloadResult, *, as_json: bool, nothing: str) -> None:
    if as_json:
        print_json(result)
        return
    for warning in result.warnings:
        complain(f"warning: {warning}", logging.WARNING)
    console = Console(highlight=False)
    for sign, line in summary(result.changes):
        console.print(Text(line, _STYLES[sign]), soft_wrap=True)
    for note in result.notes:
        console.print(Text(f"note: {note}"), soft_wrap=True)
    if not result.changes:
        typer.echo(nothing)


def summary(changes: Sequence[Change]) -> Iterator[tuple[str, str]]:
    """The sign and the line of each change; of many of a kind the first few, and how many more."""
    kinds: dict[tuple[str, str], list[Change]] = {}
    for change in changes:
        noun, _, rest = change.subject.partition(" ")
        # "peer KEY endpoint" is of another kind than "peer KEY".
        aspect = rest.partition(" ")[2] if noun == "peer" else ""
        kinds.setdefault((change.sign, f"{noun} {aspect}".rstrip()), []).append(change)
    for (sign, kind), found in kinds.items():
        shown = found if len(found) <= MANY else found[:FEW]
        for change in shown:
            yield sign, str(change)
        if len(shown) < len(found):
            noun, _, aspect = kind.partition(" ")
            more = f"{len(found) - len(shown)} {noun}{'es' if noun.endswith('s') else 's'} more"
            yield sign, f"{sign} {more}{f': {aspect}' if aspect else ''} (all of them: --json)"


def _line(event: TunnelEvent) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(event.time))
    return f"{clock} {describe(event)}"
