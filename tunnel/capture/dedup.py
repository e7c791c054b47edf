"""Distinguishes one datagram that is seen on several stacked devices from several datagrams.

A bridge and its port, a bond and its link, a VLAN and the device below it: each shows the same
datagram. The one that counts is closest to the socket: the first on the way out, and the last on
the way in. A datagram that the network doubled is seen twice on the same device, and counts twice.

Devices may cut and join batches differently, so what is compared are single datagrams.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunnel.linux.packet_socket import SeenPacket
from tunnel.packet.headers import UDP_HEADER, header_length

GENERATION_NS = 2_000_000_000
"""Nanoseconds for which a sighting is remembered at least: queues of devices lie in between."""

MAX_GENERATION = 1 << 16
"""Sightings of one generation; with more, the oldest are forgotten earlier."""

MAX_COPIES = 8
"""Equal datagrams remembered of one generation: anyone may send the same again and again."""


@dataclass(slots=True)
class Sighting:
    """A datagram, from its IP header on. Until it is taken, a closer sighting may replace it."""

    seen: SeenPacket
    datagram: bytes
    devices: tuple[str, ...]
    taken: bool = False

    def take(self) -> tuple[SeenPacket, bytes]:
        """What is to be written; call it once."""
        seen, datagram = self.seen, self.datagram
        self.taken = True
        # It may be remembered for long.
        self.seen, self.datagram = SeenPacket(seen.time_ns, seen.outgoing, "", b""), b""
        return seen, datagram


class Sightings:
    """The datagrams of the last seconds."""

    def __init__(self) -> None:
        self._new: dict[int, list[Sighting]] = {}
        self._old: dict[int, list[Sighting]] = {}
        self._began_ns = 0

    def add(self, seen: SeenPacket, datagram: bytes) -> Sighting | None:
        """Take note of a datagram; None if it was seen before on a device above or below."""
        if seen.time_ns - self._began_ns > GENERATION_NS or len(self._new) >= MAX_GENERATION:
            self._old, self._new, self._began_ns = self._new, {}, seen.time_ns
        # Without the headers, of which NAT on a bridge may change what is in them.
        key = hash((seen.outgoing, datagram[header_length(datagram) + UDP_HEADER :]))
        for known in (*self._old.get(key, ()), *self._new.get(key, ())):
            if seen.device in known.devices:
                continue
            known.devices += (seen.device,)
            if not seen.outgoing and not known.taken:
                known.seen, known.datagram = seen, datagram
            return None
        made = Sighting(seen, datagram, (seen.device,))
        copies = self._new.setdefault(key, [])
        copies.append(made)
        del copies[:-MAX_COPIES]
        return made
