"""Packets seen where they cross: on the interfaces of hosts, by packet sockets, as they pass.

Nothing here is computed from theory: a `Sighting` is a packet that a kernel handed to us, with the
kernel's own time of when it passed.
"""

from __future__ import annotations

import selectors
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from tunnel.lab.host import Host

_ETH_P_ALL = 0x0003
_PACKET_OUTGOING = 4
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("=qq")
_ROOM = 65_536

ICMP, UDP, ICMPV6 = 1, 17, 58


@dataclass(frozen=True)
class Sighting:
    """An IP packet on an interface. `time` is in seconds of the wall clock, kernel-stamped."""

    host: str
    interface: str
    time: float
    outgoing: bool
    packet: bytes

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.packet[0] >> 4

    @property
    def protocol(self) -> int:
        """What is inside the IP header (extension headers are not looked through)."""
        return self.packet[9] if self.version == 4 else self.packet[6]

    @property
    def header_length(self) -> int:
        """Bytes of the IP header."""
        return (self.packet[0] & 15) * 4 if self.version == 4 else 40

    @property
    def payload(self) -> bytes:
        """What follows the IP header."""
        return self.packet[self.header_length :]

    @property
    def addresses(self) -> tuple[str, str]:
        """Source and destination."""
        start, size = (12, 4) if self.version == 4 else (8, 16)
        source = self.packet[start : start + size]
        destination = self.packet[start + size : start + 2 * size]
        return str(ip_address(source)), str(ip_address(destination))

    @property
    def echo(self) -> tuple[str, int] | None:
        """ "request" or "reply" and the sequence number, if it is a ping."""
        kinds = {ICMP: {8: "request", 0: "reply"}, ICMPV6: {128: "request", 129: "reply"}}
        kind = kinds.get(self.protocol, {}).get(self.payload[0] if self.payload else -1)
        if kind is None or len(self.payload) < 8:
            return None
        return kind, int.from_bytes(self.payload[6:8], "big")

    @property
    def transport_message(self) -> tuple[int, int] | None:
        """Receiver index and counter, if it is a WireGuard transport message in UDP."""
        data = self.payload[8:]
        if self.protocol != UDP or len(data) < 32 or data[:4] != b"\4\0\0\0":
            return None
        return int.from_bytes(data[4:8], "little"), int.from_bytes(data[8:16], "little")


def watch(
    places: Sequence[tuple[Host, str]], during: Callable[[], object], *, linger: float = 0.2
) -> list[Sighting]:
    """Every IP packet on the (host, interface) pairs while `during` runs, in order of time.

    Goes on for `linger` seconds after it has returned, for what is still under way.
    """
    with selectors.DefaultSelector() as selector:
        taps = []
        try:
            for host, interface in places:
                tap = _open(host, interface)
                taps.append(tap)
                selector.register(tap, selectors.EVENT_READ, (host.name, interface))
            during()
            sightings = []
            end = time.monotonic() + linger
            while ready := selector.select(max(0.0, end - time.monotonic())):
                for key, _ in ready:
                    name, interface = key.data
                    assert isinstance(key.fileobj, socket.socket)
                    sighting = _receive(key.fileobj, name, interface)
                    if sighting is not None:
                        sightings.append(sighting)
        finally:
            for tap in taps:
                tap.close()
    return sorted(sightings, key=lambda sighting: sighting.time)


def _open(host: Host, interface: str) -> socket.socket:
    def make() -> socket.socket:
        # SOCK_DGRAM leaves the link layer off: a TUN has none, a veth has Ethernet.
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
        tap.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        tap.bind((interface, _ETH_P_ALL))
        tap.setblocking(False)
        return tap

    return host.call(make)


def _receive(tap: socket.socket, name: str, interface: str) -> Sighting | None:
    data, messages, _, address = tap.recvmsg(_ROOM, socket.CMSG_SPACE(_TIMESPEC.size))
    if not data or data[0] >> 4 not in (4, 6):
        return None
    seconds, nanoseconds = _TIMESPEC.unpack(messages[0][2][: _TIMESPEC.size])
    outgoing = address[2] == _PACKET_OUTGOING
    return Sighting(name, interface, seconds + nanoseconds / 1e9, outgoing, data)
