"""What a switch must know of a frame: MAC addresses, VLAN, and the IP addresses in it.

Sources: IEEE 802.1Q; RFC 826 and 5227 (ARP), 4861 and 4862 (neighbour discovery), 6980 (which is
not fragmented).
"""

from typing import Final

from tunnel.packet.ethernet import ARP, HEADER_LENGTH, IPV4, IPV6, TAGS, ethertype_untrusted
from tunnel.packet.headers import ICMPV6

LOOKED_AT: Final = 256
"""Bytes at the start of a frame that are enough to judge it."""

_ARP_IPV4: Final = b"\0\1\x08\0\6\4"
"""Hardware and protocol type, and their lengths: IPv4 on Ethernet."""
_ARP_LENGTH: Final = 28
_REQUEST: Final = b"\0\1"
_NO_IPV4: Final = bytes(4)
_NO_IPV6: Final = bytes(16)

_SOLICITATION, _ADVERTISEMENT = 135, 136
_EXTENSIONS: Final = frozenset({0, 43, 60})
_FRAGMENT: Final = 44
_MOST_EXTENSIONS: Final = 8


class Frame:
    """A frame, of whose first `LOOKED_AT` bytes it is made. Those are hostile.

    `destination` and `source` are MAC addresses. `key` is the source as the MAC table knows it,
    with its VLAN. `claims` are the IP addresses that the sender says are its own, None if the
    frame has some that cannot be read; `asks` is the one that it is for, or asks for, None for
    all. `is_ip` says whether it is ARP, IPv4 or IPv6.
    """

    __slots__ = ("_vlan", "asks", "claims", "destination", "is_ip", "source")

    def __init__(self, data: bytes) -> None:
        """Read a frame that has its Ethernet header."""
        self.destination = data[:6]
        self.source = data[6:12]
        kind, place = ethertype_untrusted(data)
        outer = data[12] << 8 | data[13]
        # The lower 12 bits of the first tag; 0 is a priority only (802.1Q, table 9-2).
        tagged = outer in TAGS and place > HEADER_LENGTH
        self._vlan = bytes((data[14] & 0x0F, data[15])) if tagged else b"\0\0"
        self.claims: tuple[bytes, ...] | None = ()
        self.asks: bytes | None = None
        self.is_ip = kind in (ARP, IPV4, IPV6)
        if kind == IPV4:
            self._read_ipv4(data, place)
        elif kind == IPV6:
            self._read_ipv6(data, place)
        elif kind == ARP:
            self._read_arp(data[place : place + _ARP_LENGTH])

    @property
    def key(self) -> bytes:
        """The source in its VLAN."""
        return self.source + self._vlan

    @property
    def destination_key(self) -> bytes:
        """The destination in its VLAN."""
        return self.destination + self._vlan

    @property
    def is_for_group(self) -> bool:
        """Whether the destination is a group of stations, or all."""
        return bool(self.destination[0] & 1)

    @property
    def is_from_station(self) -> bool:
        """Whether the source is an address that a station can have."""
        return not self.source[0] & 1 and any(self.source)

    @property
    def is_for_next_bridge(self) -> bool:
        """Whether a bridge must not pass it on (802.1Q, table 8-1).

        Those of the spanning tree pass: the switch takes no part in it, and the bridges around it
        find a loop by them.
        """
        destination = self.destination
        return destination.startswith(b"\1\x80\xc2\0\0") and 0 < destination[5] < 16

    def _read_ipv4(self, data: bytes, place: int) -> None:
        if len(data) < place + 20 or data[place] >> 4 != 4:
            self.claims = None
            return
        source = data[place + 12 : place + 16]
        # A host that asks for an address has none.
        self.claims = () if source == _NO_IPV4 else (source,)
        if not self.is_for_group:
            self.asks = data[place + 16 : place + 20]

    def _read_arp(self, message: bytes) -> None:
        if len(message) < _ARP_LENGTH or not message.startswith(_ARP_IPV4):
            self.claims = None
            return
        sender, target = message[14:18], message[24:28]
        # A probe asks for the address that the sender is about to use.
        self.claims = (target if sender == _NO_IPV4 else sender,)
        if message[6:8] == _REQUEST and sender not in (target, _NO_IPV4):
            self.asks = target

    def _read_ipv6(self, data: bytes, place: int) -> None:
        if len(data) < place + 40 or data[place] >> 4 != 6:
            self.claims = None
            return
        source = data[place + 8 : place + 24]
        claims = () if source == _NO_IPV6 else (source,)
        if not self.is_for_group:
            self.asks = data[place + 24 : place + 40]
        kind, place = data[place + 6], place + 40
        for _ in range(_MOST_EXTENSIONS):
            if kind not in _EXTENSIONS or len(data) < place + 8:
                break
            kind, place = data[place], place + 8 + 8 * data[place + 1]
        if kind in _EXTENSIONS:
            # What follows cannot be seen, and might be an advertisement.
            self.claims = None
            return
        if kind == _FRAGMENT and len(data) > place and data[place] in (ICMPV6, *_EXTENSIONS):
            # Hosts take no neighbour discovery in fragments (RFC 6980), and a large ping to one of
            # them is no more than that. To a group there is no need of it.
            self.claims = None if self.is_for_group else claims
            return
        if kind != ICMPV6:
            self.claims = claims
            return
        message = data[place : place + 24]
        if not message or (message[0] in (_SOLICITATION, _ADVERTISEMENT) and len(message) < 24):
            self.claims = None
            return
        if message[0] in (_SOLICITATION, _ADVERTISEMENT):
            target = message[8:24]
            if message[0] == _ADVERTISEMENT or not claims:
                claims = (*claims, target)
            else:
                self.asks = target
        self.claims = claims
