"""The IP stacks that a packet of the tunnel crosses: one, or two where its interface is elsewhere.

The kernel numbers packets, interfaces and rules of each network namespace by themselves. So that
both flow into one timeline, numbers of the interface's namespace are shifted out of the way of
those here, and its tables are named with their place.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from tunnel.control.messages.status import TunnelStatus
from tunnel.linux.netns import call_inside, namespace_id
from tunnel.trace.nftrace import TraceEvent, TraceSocket, TraceSocketLostEventsError
from tunnel.trace.ruleset import Ruleset

_T = TypeVar("_T")

_PACKETS = 1 << 32
"""Above every number that the kernel gives a packet."""
_INTERFACES = 1 << 31
"""Above every index of an interface."""


@dataclass(frozen=True)
class Stacks:
    """That of the tunnel's datagrams and that of its interface, each at the path of its network
    namespace; empty for the caller's.

    If they are two, `place` says in words where the interface is. `own` is the name of our trace
    table, which is in both.
    """

    own: str
    outer: str = ""
    inner: str = ""
    place: str = ""
    _sockets: list[TraceSocket] = field(default_factory=list)

    @classmethod
    def of(cls, status: TunnelStatus, own: str) -> Stacks:
        """Those of a running tunnel. Raises OSError."""
        if not status.netns:
            return cls(own)
        outer, here = f"/proc/{status.pid}/ns/net", namespace_id()
        place = status.attached or f"network namespace {Path(status.netns).name}"
        return cls(
            own,
            "" if os.stat(outer).st_ino == here else outer,
            "" if os.stat(status.netns).st_ino == here else status.netns,
            place,
        )

    @property
    def places(self) -> list[str]:
        """The paths of all: one, or first the outer one."""
        return [self.outer, self.inner] if self.place else [self.outer]

    def interfaces(self, name: str) -> tuple[dict[int, str], int]:
        """The names of all interfaces by their index, and the index of the one of that name.

        Raises OSError.
        """
        found = dict(_at(self.outer, socket.if_nameindex))
        tun = _at(self.inner, lambda: socket.if_nametoindex(name))
        if not self.place:
            return found, tun
        there = _at(self.inner, socket.if_nameindex)
        found |= {index + _INTERFACES: text for index, text in there}
        return found, tun + _INTERFACES

    def ruleset(self) -> Ruleset:
        """The rules of all. Blocks."""
        found = _at(self.outer, Ruleset.read)
        if self.place:
            found.update(_at(self.inner, Ruleset.read).renamed(self._named))
        return found

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """For `take`. Raises OSError."""
        with contextlib.ExitStack() as stack:
            for place in self.places:
                self._sockets.append(stack.enter_context(_open(place)))
            yield

    def take(self) -> list[TraceEvent]:
        """The events since the last time, in order. Raises TraceSocketLostEventsError."""
        events: list[TraceEvent] = []
        lost: TraceSocketLostEventsError | None = None
        for number, source in enumerate(self._sockets):
            try:
                found = source.take()
            except TraceSocketLostEventsError as error:
                lost = error
                continue
            events += map(self._shifted, found) if number else found
        if lost is not None:
            raise lost
        if len(self._sockets) > 1:
            events.sort(key=lambda event: event.time)
        return events

    def _shifted(self, event: TraceEvent) -> TraceEvent:
        return replace(
            event,
            packet_id=event.packet_id + _PACKETS,
            iif=event.iif and event.iif + _INTERFACES,
            oif=event.oif and event.oif + _INTERFACES,
            table=self._named(event.table),
        )

    def _named(self, table: str) -> str:
        return table if table == self.own else f"{table} in {self.place}"


def _open(place: str) -> TraceSocket:
    return _at(place, lambda: TraceSocket())


def _at(place: str, function: Callable[[], _T]) -> _T:
    """What `function` returns in that network namespace. Raises OSError."""
    return call_inside(place, function) if place else function()
