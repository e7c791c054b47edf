"""Packets seen where they cross: on the interfaces of hosts, by packet sockets, as they pass."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from tunnel.lab.host import Host
from tunnel.linux.packet_socket import PacketSocket, SeenPacket
from tunnel.packet.headers import Headers


@dataclass(frozen=True)
class LabPacket:
    """An IP packet on an interface of a host, as the kernel showed and time-stamped it."""

    host: str
    interface: str
    seen: SeenPacket
    headers: Headers


def watch(
    places: Sequence[tuple[Host, str]], during: Callable[[], object], *, linger: float = 0.2
) -> list[LabPacket]:
    """Every IP packet on the (host, interface) pairs while `during` runs, in order of time.

    Goes on for `linger` seconds after it has returned, for what is still under way.
    """
    found = []
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for host, interface in places:
            opened = host.call(lambda interface=interface: PacketSocket(interface))  # type: ignore[misc]
            stack.enter_context(opened)
            selector.register(opened.socket, selectors.EVENT_READ, (host.name, interface, opened))
        during()
        end = time.monotonic() + linger
        while ready := selector.select(max(0.0, end - time.monotonic())):
            for key, _ in ready:
                name, interface, opened = key.data
                seen = opened.read()
                headers = None if seen is None else Headers.parse(seen.packet)
                if headers is not None:
                    found.append(LabPacket(name, interface, seen, headers))
    return sorted(found, key=lambda packet: packet.seen.time_ns)
