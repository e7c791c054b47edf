"""The first bytes of a packet, and what they say: source, destination, kind and size.

The kernel's trace events and the daemon's records carry the same bytes: the IP header, and the
first `TRANSPORT_ROOM` bytes behind it. So equal bytes mean the same packet, wherever it was seen.

Sources: RFC 791, RFC 8200, RFC 9293, RFC 768, RFC 792, RFC 4443; WireGuard whitepaper section 5.4.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from functools import cached_property

TRANSPORT_ROOM = 20
"""Bytes behind the IP header that are kept: what the kernel copies into a trace event."""

HEADER_ROOM = 128
"""Bytes of a packet that are looked at."""

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
UDP_HEADER = 8
"""Bytes of the header of UDP."""
TRANSPORT_DATA = 4
"""Type of the WireGuard message that carries a packet; its first byte, behind the UDP header."""

_EXTENSIONS = frozenset({0, 43, 60})

_NAMES = {ICMP: "ICMP", TCP: "TCP", UDP: "UDP", ICMPV6: "ICMPv6"}
_ICMP_KINDS = {0: "echo reply", 3: "unreachable", 8: "echo request", 11: "time exceeded"}
_ICMPV6_KINDS = {
    1: "unreachable",
    2: "packet too big",
    3: "time exceeded",
    128: "echo request",
    129: "echo reply",
    133: "router solicitation",
    134: "router advertisement",
    135: "neighbour solicitation",
    136: "neighbour advertisement",
    143: "listener report",
}
_TCP_FLAGS = ((0x02, "SYN"), (0x10, "ACK"), (0x08, "PSH"), (0x01, "FIN"), (0x04, "RST"))


def header_length(packet: bytes) -> int:
    """Bytes of the IP header of a packet of IPv4 or IPv6; without IPv6 extension headers."""
    return (packet[0] & 15) * 4 if packet[0] >> 4 == 4 else 40


@dataclass(frozen=True)
class Headers:
    """`network` is an IP header (with its options or extension headers), `transport` what follows.

    Make one with `parse` or, from a trace event, `of_parts`.
    """

    network: bytes
    transport: bytes

    @classmethod
    def parse(cls, packet: bytes) -> Headers | None:
        """The headers at the start of `packet`; None if it is no IP packet."""
        version = packet[0] >> 4 if packet else 0
        if version == 4 and len(packet) >= 20 and packet[0] & 15 >= 5:
            end = header_length(packet)
        elif version == 6 and len(packet) >= 40:
            end = _end_of_extensions(packet)
        else:
            return None
        return cls(packet[:end], packet[end : end + TRANSPORT_ROOM])

    @classmethod
    def of_parts(cls, network: bytes, transport: bytes) -> Headers | None:
        """From the two pieces of a trace event; None if the first is no whole IP header."""
        return None if cls.parse(network) is None else cls(network, transport[:TRANSPORT_ROOM])

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.network[0] >> 4

    @cached_property
    def protocol(self) -> int:
        """What follows the network header."""
        if self.version == 4:
            return self.network[9]
        protocol, place = self.network[6], 40
        while place < len(self.network):
            protocol, place = self.network[place], place + _extension_length(self.network, place)
        return protocol

    @property
    def size(self) -> int:
        """Bytes of the whole packet, as its IP header says."""
        if self.version == 4:
            return int.from_bytes(self.network[2:4], "big")
        return 40 + int.from_bytes(self.network[4:6], "big")

    @property
    def source(self) -> bytes:
        """The source address, packed."""
        return self.network[12:16] if self.version == 4 else self.network[8:24]

    @property
    def destination(self) -> bytes:
        """The destination address, packed."""
        return self.network[16:20] if self.version == 4 else self.network[24:40]

    @cached_property
    def ports(self) -> tuple[int, int] | None:
        """Source and destination port of TCP and UDP; None for others and later fragments."""
        if self.protocol not in (TCP, UDP) or len(self.transport) < 4 or self._later_fragment:
            return None
        return (
            int.from_bytes(self.transport[:2], "big"),
            int.from_bytes(self.transport[2:4], "big"),
        )

    @cached_property
    def wireguard(self) -> tuple[int, int, int] | None:
        """Message type, receiver index and counter (its low 32 bits) if it looks like WireGuard's.

        Of an initiation the index is the sender's, and the counter is 0 but for type 4.
        """
        data = self.transport[8:]
        if self.protocol != UDP or len(data) < 12 or not 1 <= data[0] <= 4 or any(data[1:4]):
            return None
        index = int.from_bytes(data[4:8], "little")
        return data[0], index, int.from_bytes(data[8:12], "little") if data[0] == 4 else 0

    @property
    def is_echo(self) -> bool:
        """Whether it is an echo request or reply of ICMP or ICMPv6: a ping."""
        kinds = {ICMP: (0, 8), ICMPV6: (128, 129)}.get(self.protocol, ())
        return bool(self.transport) and self.transport[0] in kinds and not self._later_fragment

    @cached_property
    def key(self) -> bytes:
        """Equal for what is the same packet: all but the fields that hops and GSO change.

        Left out: TOS, TTL or hop limit, length, checksums of the IP header and of TCP and UDP.
        """
        network = self.network
        if self.version == 4:
            kept = network[4:8] + network[9:10] + network[12:20]
        else:
            kept = network[6:7] + network[8:40]
        transport = bytearray(self.transport)
        place = {TCP: 16, UDP: 6}.get(self.protocol)
        if place is not None and not self._later_fragment:
            transport[place : place + 2] = b"\0\0"
        if self.protocol == UDP and not self._later_fragment:
            transport[4:6] = b"\0\0"
        return kept + bytes(transport)

    @property
    def _later_fragment(self) -> bool:
        return self.version == 4 and bool(int.from_bytes(self.network[6:8], "big") & 0x1FFF)

    def flow(self) -> str:
        """Source and destination: `10.0.0.1:5 → 10.0.0.2:80`."""
        ports = self.ports
        source, destination = address_text(self.source), address_text(self.destination)
        if ports is None:
            return f"{source} → {destination}"
        return " → ".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            for host, port in zip((source, destination), ports, strict=True)
        )

    def kind(self) -> str:
        """What it is, in words: `ICMP echo request, id 7, sequence 1`."""
        name = _NAMES.get(self.protocol, f"IP protocol {self.protocol}")
        data = self.transport
        if self._later_fragment:
            return f"{name}, a later fragment"
        if self.protocol in (ICMP, ICMPV6) and len(data) >= 8:
            kinds = _ICMP_KINDS if self.protocol == ICMP else _ICMPV6_KINDS
            text = f"{name} {kinds.get(data[0], f'type {data[0]}')}"
            if "echo" in text:
                identifier, sequence = (int.from_bytes(data[n : n + 2], "big") for n in (4, 6))
                text += f", id {identifier}, sequence {sequence}"
            return text
        if self.protocol == TCP and len(data) >= 14:
            flags = " ".join(word for bit, word in _TCP_FLAGS if data[13] & bit)
            return f"TCP {flags or 'no flags'}, sequence {int.from_bytes(data[4:8], 'big')}"
        return name


def address_text(address: bytes) -> str:
    """A packed address as text."""
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)


def _extension_length(packet: bytes, place: int) -> int:
    return 8 + 8 * packet[place + 1]


def _end_of_extensions(packet: bytes) -> int:
    following, place = packet[6], 40
    while following in _EXTENSIONS and place + 8 <= len(packet):
        following, place = packet[place], place + _extension_length(packet, place)
    return min(place, len(packet))
