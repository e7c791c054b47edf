"""`tunnel show --watch`: the status again at every event, and once a second."""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from tunnel.cli.status import status_lines
from tunnel.control.client import TunnelClient
from tunnel.control.json_protocol import ControlError
from tunnel.control.messages.events import TunnelEvent
from tunnel.control.messages.sentences import describe

PERIOD = 1.0
"""Seconds between two looks without an event."""

SETTLE = 0.05
"""Seconds that events are gathered before one look for all of them."""

RECENT = 5
"""Events shown beneath the status."""


class _Watched:
    """One tunnel: a connection to ask, and one that events come by."""

    def __init__(self, name: str, stack: contextlib.ExitStack) -> None:
        self.name = name
        self.client = stack.enter_context(TunnelClient(name))
        self.events = stack.enter_context(TunnelClient(name))
        self.events.subscribe()

    def fileno(self) -> int:
        return self.events.fileno()


def watch(names: Iterable[str], console: Console, *, secrets: bool = False) -> None:
    """Show the tunnels until they have ended or ^C. Raises ControlError if one cannot be had."""
    recent: list[Text] = []
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        watched = [_Watched(name, stack) for name in names]
        # Without a terminal, as in a pipe, one picture follows the other.
        screen = console.is_terminal
        with Live(console=console, screen=screen, auto_refresh=False, transient=False) as live:
            while watched:
                picture = _picture(watched, recent, secrets=secrets)
                if screen:
                    live.update(picture, refresh=True)
                else:
                    console.print(picture)
                watched = _wait(watched, recent)
                del recent[:-RECENT]
    for text in recent:
        console.print(text)


def _picture(watched: list[_Watched], recent: list[Text], *, secrets: bool) -> RenderableType:
    now = time.time()
    parts: list[RenderableType] = []
    for one in watched:
        try:
            parts.extend(status_lines(one.client.status(secrets=secrets), now=now))
        except ControlError as error:
            parts.append(Text(f"{one.name}: {error}"))
        parts.append(Text())
    return Group(*parts, *recent)


def _wait(watched: list[_Watched], recent: list[Text]) -> list[_Watched]:
    """Wait for events, and a moment for those that come along; the tunnels that go on."""
    gone: set[str] = set()
    timeout = PERIOD
    while True:
        waiting = [one for one in watched if one.name not in gone]
        ready, _, _ = select.select(waiting, [], [], timeout)
        if not ready:
            return waiting
        for one in ready:
            events = one.events.read_events()
            recent += [_line(one.name, event) for event in events]
            if not events:
                gone.add(one.name)
        timeout = SETTLE


def _line(name: str, event: TunnelEvent) -> Text:
    clock = time.strftime("%H:%M:%S", time.localtime(event.time))
    line = f"{clock} {name}: {describe(event)}"
    return Text(line, "dim", no_wrap=True, overflow="ellipsis")
