"""What a bad wire does to frames, as values in and out: no clock, no sockets, seeded chance.

A `Spoiler` stands for one direction of a wire. Packets of IP are lost, doubled, damaged, held back
and sent out of order; what is for all, ARP and neighbour discovery are only late, or a host would
look for its neighbour for seconds. A `Rebinding` is what a NAT does that forgets its mappings.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

_ETHERNET = 14
_IPV4, _IPV6 = b"\x08\x00", b"\x86\xdd"
_UDP, _ICMPV6 = b"\x11", b"\x3a"
_IPV6_HEADER = 40
_UDP_HEADER = 8
_FINDS = {bytes([kind]) for kind in range(133, 138)}
"""Types of ICMPv6 messages that are for neighbour discovery."""
_FRAGMENT = 0x3FFF
"""More fragments, and the offset: both are 0 in a whole packet."""
_EPHEMERAL = range(32_768, 61_000)


@dataclass(frozen=True)
class Faults:
    """What happens to each packet, in each direction; the shares are between 0 and 1.

    `delay` is in seconds, `jitter` is added to it, uniformly up to that many seconds; the order
    stays. A reordered packet is held back for `reorder_delay` seconds more, and others pass it. A
    corrupt one has one bit flipped: of UDP in its payload, with a checksum that fits, so that it
    arrives. Every `rebind` seconds the first host's datagrams get another source port; 0 is never.
    """

    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    reorder: float = 0.0
    reorder_delay: float = 0.01
    rebind: float = 0.0


class Spoiler:
    """One direction. Counts what it did: "lost", "duplicated", "corrupted", "reordered"."""

    def __init__(self, seed: str, counts: Counter[str]) -> None:
        self._random = random.Random(seed)
        self._counts = counts
        self._last = 0.0

    def spoil(self, frame: bytes, faults: Faults, now: float) -> list[tuple[float, bytes]]:
        """The frames that come of one, each with the time at which it arrives."""
        chance = self._random.random
        late = now + faults.delay + faults.jitter * chance()
        if not is_packet(frame):
            return [(late, frame)]
        if chance() < faults.loss:
            self._counts["lost"] += 1
            return []
        copies = 1
        if chance() < faults.duplicate:
            self._counts["duplicated"] += 1
            copies = 2
        if chance() < faults.corrupt:
            self._counts["corrupted"] += 1
            frame = self._damaged(frame)
        if chance() < faults.reorder:
            self._counts["reordered"] += 1
            late += faults.reorder_delay
        else:
            late = self._last = max(self._last, late)
        return [(late, frame)] * copies

    def _damaged(self, frame: bytes) -> bytes:
        udp = udp_header(frame)
        start = _ETHERNET if udp is None else udp + _UDP_HEADER
        end = len(frame) if udp is None else udp + int.from_bytes(frame[udp + 4 : udp + 6], "big")
        if start >= end or end > len(frame):
            start, end = _ETHERNET, len(frame)
            udp = None
        damaged = bytearray(frame)
        place = self._random.randrange(start, end)
        damaged[place] ^= 1 << self._random.randrange(8)
        if udp is not None:
            word = place - (place - udp) % 2
            _correct(damaged, udp, _word(frame, word, end), _word(damaged, word, end))
        return bytes(damaged)


class Rebinding:
    """Translates the UDP source ports of one host, as a NAT does; other ones now and then."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)
        self._epoch = 0
        self._outside: dict[int, int] = {}
        self._inside: dict[int, int] = {}
        self._forgotten: set[int] = set()

    def outward(self, frame: bytes, interval: float, now: float) -> bytes:
        """A frame from that host as the others get it; `now` are seconds since the start."""
        self._look_at_the_time(interval, now)
        udp = udp_header(frame)
        if udp is None:
            return frame
        port = int.from_bytes(frame[udp : udp + 2], "big")
        other = self._outside.get(port)
        if other is None:
            other = self._random.choice(_EPHEMERAL)
            while other in self._inside or other in self._forgotten:
                other = self._random.choice(_EPHEMERAL)
            self._outside[port], self._inside[other] = other, port
        return _with_port(frame, udp, udp, other)

    def inward(self, frame: bytes, interval: float, now: float) -> bytes | None:
        """A frame to that host as it gets it; None if it is for a mapping that is forgotten."""
        self._look_at_the_time(interval, now)
        udp = udp_header(frame)
        if udp is None:
            return frame
        port = int.from_bytes(frame[udp + 2 : udp + 4], "big")
        if port in self._forgotten:
            return None
        # A port without a mapping is open, as one that was forwarded by hand: who knows the host
        # by its own port can begin.
        return _with_port(frame, udp, udp + 2, self._inside.get(port, port))

    def _look_at_the_time(self, interval: float, now: float) -> None:
        epoch = int(now / interval)
        if epoch != self._epoch:
            self._epoch = epoch
            self._forgotten = set(self._inside)
            self._outside.clear()
            self._inside.clear()


def is_packet(frame: bytes) -> bool:
    """Whether it carries a packet of IP for one host, not for finding a neighbour."""
    if not frame or frame[0] & 1:
        return False
    kind, packet = frame[12:_ETHERNET], frame[_ETHERNET:]
    if kind == _IPV6:
        finds = packet[6:7] == _ICMPV6 and packet[_IPV6_HEADER : _IPV6_HEADER + 1] in _FINDS
        return not finds
    return kind == _IPV4


def udp_header(frame: bytes) -> int | None:
    """Where the UDP header of a frame begins, if it carries one, and whole."""
    kind, packet = frame[12:_ETHERNET], frame[_ETHERNET:]
    if kind == _IPV4:
        found = packet[9:10] == _UDP and not int.from_bytes(packet[6:8], "big") & _FRAGMENT
        start = (packet[0] & 15) * 4 if found else 0
    else:
        found = kind == _IPV6 and packet[6:7] == _UDP
        start = _IPV6_HEADER
    return _ETHERNET + start if found and len(packet) >= start + _UDP_HEADER else None


def _with_port(frame: bytes, udp: int, place: int, port: int) -> bytes:
    changed = bytearray(frame)
    changed[place : place + 2] = port.to_bytes(2, "big")
    _correct(changed, udp, frame[place : place + 2], bytes(changed[place : place + 2]))
    return bytes(changed)


def _word(data: bytes | bytearray, place: int, end: int) -> bytes:
    """The 16 bits there, of which the second half may be past the end of the datagram."""
    return bytes(data[place : min(place + 2, end)]).ljust(2, b"\0")


def _correct(frame: bytearray, udp: int, old: bytes, new: bytes) -> None:
    """The UDP checksum of a datagram in which 16 bits changed (RFC 1624); 0 is none."""
    place = udp + 6
    before = int.from_bytes(frame[place : place + 2], "big")
    if before:
        total = (before ^ 0xFFFF) + (int.from_bytes(old, "big") ^ 0xFFFF)
        total += int.from_bytes(new, "big")
        total = (total & 0xFFFF) + (total >> 16)
        total = (total & 0xFFFF) + (total >> 16)
        # A sum of 0 is sent as all ones (RFC 768).
        frame[place : place + 2] = ((total ^ 0xFFFF) or 0xFFFF).to_bytes(2, "big")
