"""`tunnel top`: running tunnels on a screen that keeps up with them."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import termios
import time
import tty
from collections.abc import AsyncIterator, Iterator
from typing import Annotated

import trio
import typer
from rich.console import Console, RenderableType
from rich.live import Live

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
from tunnel.cli.top.poll import Looker, open_looker
from tunnel.cli.top.view import ORDERS, picture

app = typer.Typer()

_INTERRUPT, _END, _ESCAPE = 3, 4, 27
_QUIT = frozenset((*b"qQ", _INTERRUPT, _END))
_LONGEST_FILTER = 64
"""Bytes."""
_SCROLL = {
    b"\x1b[A": -1,
    b"\x1b[B": 1,
    b"\x1b[5~": -10,
    b"\x1b[6~": 10,
    b"k": -1,
    b"j": 1,
}
"""Arrows, page up and down, and the letters of less(1): how many peers each moves on."""
_ONCE = "; for scripts there is --once"

_SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGWINCH,
    signal.SIGTSTP,
    signal.SIGCONT,
)

_TOGETHER = 0.05
"""Seconds in which the answers of several daemons come into one picture."""


@app.command()
def top(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One interface; all if left out.")
    ] = None,
    interval: Annotated[
        float,
        typer.Option(
            "--interval",
            "-i",
            metavar="SECONDS",
            min=0.1,
            max=3600,
            help="Time between updates.",
        ),
    ] = 1.0,
    once: Annotated[
        bool, typer.Option("--once", help="Print one screen, measured over one interval, and exit.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Watch peers, rates, handshake ages, drops, path MTU and CPU live. q or ^C quits.

    s sorts the peers by rate, name, handshake or transfer; arrows and page keys scroll. / filters:
    only peers with the text in their name, key, endpoint or allowed IPs are shown, or those in the
    state connected, disconnected or never.

    With --once the exit code is 1 if a tunnel went down meanwhile, or did not answer.

    Examples:

        tunnel top office
        tunnel top --once --json
    """
    if as_json and not once:
        fail("--json needs --once; for a stream of events there is tunnel events --json", 2)
    if not once:
        _require_terminal()
    names = [interface_name(name)] if name else running_names()
    with refusals_printed():
        try:
            trio.run(_main, names, interval, once, as_json, name is None)
        except* KeyboardInterrupt:
            pass


def _require_terminal() -> None:
    """Leave, with a word about `--once`, where there is nothing to draw on."""
    if not sys.stdout.isatty():
        fail(f"tunnel top needs a terminal{_ONCE}", EXIT_USAGE)
    if not sys.stdin.isatty():
        fail(f"tunnel top reads keys from a terminal{_ONCE}", EXIT_USAGE)
    if Console().is_dumb_terminal:
        fail(
            f"tunnel top cannot draw on a terminal of type {os.environ['TERM']}{_ONCE}", EXIT_USAGE
        )


async def _main(
    names: list[str], interval: float, once: bool, as_json: bool, patient: bool
) -> None:
    async with open_looker(names, patient=patient) as looker:
        if not looker.names:
            fail("no tunnel is running on this host")
        if once:
            await _print_once(looker, interval, as_json=as_json)
            return
        await _Screen(looker, interval).run()
        if not looker.names:
            typer.echo("the tunnels have ended")


async def _print_once(looker: Looker, interval: float, *, as_json: bool) -> None:
    await looker.look_at_all()
    await trio.sleep(interval)
    await looker.look_at_all()
    if as_json:
        print_json(looker.history.to_json(looker.statuses))
    elif looker.statuses:
        console = Console(highlight=False)
        if not console.is_terminal and "COLUMNS" not in os.environ:
            # Scripts want whole lines, whatever width they are run at.
            console = Console(highlight=False, width=170)
        view = picture(looker.statuses, looker.history, console.width, None, now=time.time())
        console.print(view)
    for problem in looker.problems:
        complain(f"tunnel: {problem}")
    if looker.problems:
        raise typer.Exit(EXIT_FAILED)


class TypedFilter:
    """The text that peers are filtered by, as it is typed behind a `/`, like that of less(1)."""

    def __init__(self) -> None:
        self.is_typed = False
        self._text = b""

    @property
    def text(self) -> str:
        """What was typed so far; a character that is not complete yet is left out."""
        return self._text.decode(errors="ignore")

    def take(self, keys: bytes) -> bytes:
        """Take what is typed for the filter, and leave the other keys."""
        left = b""
        for place, key in enumerate(keys):
            if not self.is_typed:
                if key == _ESCAPE and keys[place:] == b"\x1b":
                    self._text = b""
                elif key == ord("/"):
                    self.is_typed, self._text = True, b""
                else:
                    left += bytes([key])
            elif key in (_INTERRUPT, _END):
                return left + bytes([key])
            elif key in b"\r\n":
                self.is_typed = False
            elif key == _ESCAPE:
                # Of an arrow, too; what follows in it is no text.
                self.is_typed, self._text = False, b""
                return left
            elif key in b"\x7f\b":
                self._text = self.text[:-1].encode()
            elif key >= ord(" ") and len(self._text) < _LONGEST_FILTER:
                self._text += bytes([key])
        return left


class _Screen:
    """The live view, until a key, a signal or the end of all tunnels ends it."""

    def __init__(self, looker: Looker, interval: float) -> None:
        self._looker = looker
        self._interval = interval
        self._wake = trio.Event()
        self._over = False
        self._away = False
        self._stopped = False
        self._resized = False
        self._order = 0
        self._first = 0
        self._filter = TypedFilter()
        looker.changed = self._change

    async def run(self) -> None:
        """Show it. The terminal is as it was before, whatever ended it."""
        # What was ignored before us, as nohup does, stays so.
        numbers = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        with trio.open_signal_receiver(*numbers) as signals:
            async with trio.open_nursery() as nursery:
                for name in self._looker.names:
                    nursery.start_soon(self._looker.follow, name, self._interval)
                nursery.start_soon(self._read_keys)
                nursery.start_soon(self._read_signals, signals)
                while not self._ended:
                    self._away = False
                    await self._show()
                    if self._stopped:
                        self._stopped = False
                        _stop()
                nursery.cancel_scope.cancel()

    @property
    def _ended(self) -> bool:
        return self._over or not self._looker.names

    def _change(self) -> None:
        self._wake.set()

    async def _show(self) -> None:
        """Hold the terminal until it has to be left."""
        console = Console(highlight=False)
        try:
            with _keys_at_once(), Live(console=console, screen=True, auto_refresh=False) as live:
                while not (self._ended or self._away):
                    if self._resized:
                        # What stood there at the old width would show through.
                        self._resized = False
                        console.clear()
                    live.update(self._picture(console), refresh=True)
                    with trio.move_on_after(self._interval):
                        await self._wake.wait()
                        await trio.sleep(_TOGETHER)
                    self._wake = trio.Event()
        except (OSError, termios.error) as error:
            if error.args[0] != errno.EIO:
                raise
            self._over = True  # the terminal has gone, as when ssh does

    def _picture(self, console: Console) -> RenderableType:
        looker = self._looker
        return picture(
            looker.statuses,
            looker.history,
            *console.size,
            now=time.time(),
            problems=looker.problems,
            order=ORDERS[self._order],
            first=self._first,
            wanted=self._filter.text,
            typing=self._filter.is_typed,
        )

    def _obey(self, keys: bytes) -> bool:
        """Sort, scroll and filter; whether to quit. What is typed at once comes in one piece."""
        keys = self._filter.take(keys)
        self._order = (self._order + keys.count(b"s")) % len(ORDERS)
        steps = sum(keys.count(key) * step for key, step in _SCROLL.items())
        most = max((len(status.peers) for status in self._looker.statuses), default=0)
        self._first = min(max(0, self._first + steps), most)
        self._change()
        return bool(_QUIT & set(keys))

    async def _read_keys(self) -> None:
        keyboard = sys.stdin.fileno()
        while True:
            await trio.lowlevel.wait_readable(keyboard)
            try:
                keys = os.read(keyboard, 64)
            except OSError:
                keys = b""
            # None are the end of the terminal.
            if not keys or self._obey(keys):
                break
        self._over = True
        self._change()

    async def _read_signals(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if number == signal.SIGWINCH:
                self._resized = True
            elif number in (signal.SIGTSTP, signal.SIGCONT):
                # Stopped by a signal that cannot be caught, the shell took the terminal back too.
                self._away = True
                self._stopped = number == signal.SIGTSTP
            else:
                self._over = True
            self._change()


def _stop() -> None:
    """Stop the process as ^Z does one that does not catch it; return when it goes on."""
    handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    try:
        os.kill(os.getpid(), signal.SIGTSTP)
    finally:
        signal.signal(signal.SIGTSTP, handler)


@contextlib.contextmanager
def _keys_at_once() -> Iterator[None]:
    """Each key of the terminal at once and not echoed; as it was before, afterwards."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
