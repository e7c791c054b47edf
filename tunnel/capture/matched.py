"""Which datagrams carried certain packets, as the daemon reports.

Outside the tunnel, one sealed packet looks like another. But each message of transport
data has a receiver index and a counter, and the daemon says under which it sealed or opened some.
"""

from __future__ import annotations

import struct

from tunnel.packet.headers import TRANSPORT_DATA, UDP, UDP_HEADER, Headers

_DATA_HEADER = struct.Struct("<IIQ")
"""Type and reserved bytes, receiver index, counter (WireGuard whitepaper, section 5.4.6)."""


class Carriers:
    """Receiver indices and counters of datagrams; those of two `turn`s ago are forgotten."""

    def __init__(self) -> None:
        self._new: set[tuple[int, int]] = set()
        self._old: set[tuple[int, int]] = set()

    def add(self, index: int, first: int, count: int) -> None:
        """Take note of `count` datagrams with the receiver `index`, from counter `first` on."""
        self._new.update((index, first + step) for step in range(count))

    def turn(self) -> None:
        """Begin a new set, so that memory is that of the packets between three turns."""
        self._old, self._new = self._new, set()

    def wanted(self, datagram: bytes) -> bool:
        """Whether a datagram, from its IP header on, carried one of the packets.

        Handshakes and cookies are wanted always: what carried a packet makes no sense without.
        """
        headers = Headers.parse(datagram)
        if headers is None or headers.protocol != UDP:
            return False
        message = datagram[len(headers.network) + UDP_HEADER :][: _DATA_HEADER.size]
        if not message or message[0] != TRANSPORT_DATA:
            return True
        if len(message) < _DATA_HEADER.size:
            return False
        _, index, counter = _DATA_HEADER.unpack(message)
        return (index, counter) in self._new or (index, counter) in self._old
