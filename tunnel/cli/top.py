"""`tunnel top`: running tunnels on a screen that keeps up with them."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from tunnel.cli.common import Json, fail, interface_name, refusals_printed
from tunnel.cli.topview import History, picture
from tunnel.control.client import TunnelClient
from tunnel.control.json_socket import ControlError, running_names
from tunnel.observe.status import TunnelStatus

app = typer.Typer()

_QUIT = frozenset(b"qQ\x03\x04")


@app.command()
def top(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One interface; all if left out.")
    ] = None,
    interval: Annotated[
        float, typer.Option("--interval", "-i", min=0.1, max=3600, help="Seconds between looks.")
    ] = 1.0,
    once: Annotated[
        bool, typer.Option("--once", help="Print one picture, of one interval, and leave.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Watch peers, rates, handshake ages, drops, path MTU and CPU live. q or ^C leaves."""
    if as_json and not once:
        fail("--json needs --once; for a stream of events there is tunnel events --json", 2)
    if not once and not sys.stdout.isatty():
        fail("tunnel top needs a terminal; for scripts there is --once", 2)
    names = [interface_name(name)] if name else running_names()
    if not names:
        fail("no tunnel is running on this host")
    with refusals_printed(), contextlib.ExitStack() as stack:
        looker = _Looker(names, stack, patient=name is None)
        with contextlib.suppress(KeyboardInterrupt):
            if once:
                _print_once(looker, interval, as_json=as_json)
            else:
                _live(looker, interval)


class _Looker:
    """The connections to the daemons, and what was seen over them."""

    def __init__(self, names: list[str], stack: contextlib.ExitStack, *, patient: bool) -> None:
        self.history = History()
        self._clients: dict[str, TunnelClient] = {}
        for name in names:
            try:
                self._clients[name] = stack.enter_context(TunnelClient(name))
            except ControlError as error:
                if not patient or error.code != "not_running":
                    raise
        if not self._clients:
            fail("no tunnel is running on this host")

    def look(self) -> list[TunnelStatus]:
        """The tunnels now; those that have ended are left out from then on."""
        found = []
        for name, client in list(self._clients.items()):
            try:
                found.append(client.status(paths=True))
            except ControlError as error:
                if error.code not in ("closed", "state"):
                    raise
                if error.code == "closed":
                    del self._clients[name]
        self.history.add(found, time.monotonic())
        return found

    @property
    def ended(self) -> bool:
        """Whether no daemon is left."""
        return not self._clients


def _print_once(looker: _Looker, interval: float, *, as_json: bool) -> None:
    looker.look()
    time.sleep(interval)
    statuses = looker.look()
    if as_json:
        typer.echo(json.dumps(looker.history.to_json(statuses), indent=2))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        # Scripts want whole lines, whatever width they are run at.
        console = Console(highlight=False, width=170)
    console.print(picture(statuses, looker.history, console.width, None, now=time.time()))


def _live(looker: _Looker, interval: float) -> None:
    console = Console(highlight=False)
    with (
        _keyboard() as keyboard,
        _resizes() as resized,
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        statuses = looker.look()
        due = time.monotonic() + interval
        while not looker.ended:
            width, height = console.size
            view = picture(statuses, looker.history, width, height, now=time.time())
            live.update(view, refresh=True)
            ready, _, _ = select.select(
                [keyboard, resized], [], [], max(0.0, due - time.monotonic())
            )
            if keyboard in ready:
                keys = os.read(keyboard, 64)
                # An empty read is the end of the terminal, as when ssh goes away.
                if not keys or _QUIT & set(keys):
                    return
            if resized in ready:
                os.read(resized, 64)
                # What stood there at the old width would show through.
                console.clear()
            if time.monotonic() >= due:
                statuses = looker.look()
                due = time.monotonic() + interval
    typer.echo("the tunnels have ended")


@contextlib.contextmanager
def _keyboard() -> Iterator[int]:
    """Standard input, each key at once and not echoed; as it was before, afterwards."""
    descriptor = sys.stdin.fileno()
    if not os.isatty(descriptor):
        fail("tunnel top reads keys from a terminal; for scripts there is --once", 2)
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield descriptor
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _resizes() -> Iterator[int]:
    """A descriptor that is readable when the terminal has got another size."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def tell(number: int, frame: object) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(writer, b"r")

    before = signal.signal(signal.SIGWINCH, tell)
    try:
        yield reader
    finally:
        signal.signal(signal.SIGWINCH, before)
        os.close(reader)
        os.close(writer)
