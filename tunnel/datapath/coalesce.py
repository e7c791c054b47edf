"""From plain packets to frames for the TUN: generic receive offload for TCP and UDP.

The rules stand in `interface.Session.open`. They are a little stricter than Linux' own GRO: a
packet is merged only if splitting the frame again gives back every byte of it that has a meaning.
"""

from functools import lru_cache
from struct import Struct
from typing import Final

from tunnel.datapath import ip
from tunnel.datapath.checksum import folded, residue, short_residue
from tunnel.datapath.interface import MAX_BATCH_SEGMENTS, MAX_FRAME_PACKET, Offload
from tunnel.datapath.virtio import (
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    NEEDS_CSUM,
    NO_OFFLOAD,
    VIRTIO_NET_HDR_LEN,
    VirtioNetHdr,
)

_IPV4_PLAIN: Final = 0x45
_IPV4_DF: Final = 0x40
_IPV4_NOT_PLAIN: Final = 0xBF
"""In byte 6: the reserved flag, MF and the upper bits of the fragment offset."""
_ACK: Final = 0x10
_PSH: Final = 0x08

_IPV4_ID: Final = Struct(">4xH")
_TCP: Final = Struct(">4xI4xBB")
"""Sequence; data offset and reserved bits; flags."""
_UDP: Final = Struct(">4xHH")
"""Length; checksum."""


class _Kind:
    """One of the four kinds of packets that can be merged, with the places of its fields."""

    __slots__ = (
        "csum_offset",
        "flow",
        "gso_type",
        "is_tcp",
        "is_v4",
        "number",
        "offload",
        "protocol",
        "pseudo_from",
        "transport",
    )

    def __init__(self, number: int, offload: Offload, gso_type: int) -> None:
        self.number = number
        self.offload = offload
        self.gso_type = gso_type
        self.is_v4 = offload in (Offload.TCP4, Offload.UDP4)
        self.is_tcp = offload in (Offload.TCP4, Offload.TCP6)
        self.protocol = ip.TCP if self.is_tcp else ip.UDP
        self.csum_offset = 16 if self.is_tcp else 6
        self.transport = ip.IPV4_HEADER_LEN if self.is_v4 else ip.IPV6_HEADER_LEN
        # Addresses stand right before the transport header: one slice is the flow, and one sum
        # covers the pseudo-header's addresses together with the transport packet.
        self.pseudo_from = 12 if self.is_v4 else 8
        self.flow = slice(self.pseudo_from, self.transport + 4)


_KINDS: Final = (
    _Kind(0, Offload.TCP4, GSO_TCPV4),
    _Kind(1, Offload.TCP6, GSO_TCPV6),
    _Kind(2, Offload.UDP4, GSO_UDP_L4),
    _Kind(3, Offload.UDP6, GSO_UDP_L4),
)
_IPV4_KINDS: Final = {ip.TCP: _KINDS[0], ip.UDP: _KINDS[2]}
_IPV6_KINDS: Final = {ip.TCP: _KINDS[1], ip.UDP: _KINDS[3]}


@lru_cache(maxsize=128)
def _constant_fields(number: int, headers: int) -> int:
    """Return the mask, over the headers as a little-endian number, of what must not differ."""
    kind = _KINDS[number]
    mask = bytearray(b"\xff" * headers)
    at = kind.transport
    if kind.is_v4:
        for varying in (2, 3, 4, 5, 10, 11):  # total length, identification, checksum
            mask[varying] = 0
    else:
        mask[4:6] = b"\0\0"  # payload length
    if kind.is_tcp:
        mask[at + 4 : at + 8] = b"\0\0\0\0"  # sequence number
        mask[at + 13] = 0xFF & ~_PSH
        mask[at + 16 : at + 18] = b"\0\0"
    else:
        mask[at + 4 : at + 8] = b"\0\0\0\0"  # length, checksum
    return int.from_bytes(mask, "little")


class _Run:
    """A frame in the making: packets of one flow, each the continuation of the one before."""

    __slots__ = (
        "count",
        "headers",
        "identification",
        "is_open",
        "kind",
        "length",
        "parts",
        "psh",
        "sequence",
        "size",
        "template",
    )

    def __init__(self, packet: bytes) -> None:
        self.parts = [packet]
        self.count = 1
        self.length = len(packet)
        self.is_open = False
        self.template = -1

    def begin(self, kind: _Kind, headers: int, template: int, sequence: int, psh: int) -> None:
        """Let other packets join this one."""
        packet = self.parts[0]
        self.kind = kind
        self.headers = headers
        self.template = template
        self.size = self.length - headers
        self.sequence = sequence + self.size & 0xFFFFFFFF
        # Without DF the identification must count up; with DF it has no meaning (RFC 6864).
        counts = kind.is_v4 and not packet[6] & _IPV4_DF
        self.identification = packet[4] << 8 | packet[5] if counts else -1
        self.psh = 0
        self.is_open = not psh

    def takes(self, packet: bytes, headers: int, template: int, sequence: int) -> bool:
        """Whether a mergeable packet of this open run's flow continues it."""
        size = len(packet) - headers
        if template != self.template or size > self.size or self.length + size > MAX_FRAME_PACKET:
            return False
        if self.identification >= 0:
            expected = self.identification + self.count & 0xFFFF
            if packet[4] << 8 | packet[5] != expected:
                return False
        if self.kind.is_tcp:
            return sequence == self.sequence
        return self.count < MAX_BATCH_SEGMENTS

    def join(self, payload: bytes, psh: int) -> None:
        """Append a packet that `takes` accepted."""
        size = len(payload)
        self.parts.append(payload)
        self.count += 1
        self.length += size
        self.sequence = self.sequence + size & 0xFFFFFFFF
        self.psh = psh
        if psh or size < self.size:
            self.is_open = False

    def finish(self) -> list[bytes]:
        """Return the pieces of the frame."""
        parts = self.parts
        if self.count == 1:
            return [NO_OFFLOAD, *parts]
        kind, first = self.kind, parts[0]
        at = kind.transport
        headers = bytearray(first[: self.headers])
        if kind.is_v4:
            headers[2:4] = self.length.to_bytes(2, "big")
            headers[10:12] = b"\0\0"
            value = -(short_residue(bytes(headers[: ip.IPV4_HEADER_LEN])) << 8) % 65_535
            headers[10:12] = value.to_bytes(2, "big")
        else:
            headers[4:6] = (self.length - ip.IPV6_HEADER_LEN).to_bytes(2, "big")
        length = self.length - at
        if kind.is_tcp:
            headers[at + 13] |= self.psh
        else:
            headers[at + 4 : at + 6] = length.to_bytes(2, "big")
        addresses = folded(first[kind.pseudo_from : at])
        pseudo = (addresses + kind.protocol + length) % 65_535 or 65_535
        field = at + kind.csum_offset
        headers[field : field + 2] = pseudo.to_bytes(2, "big")
        virtio = VirtioNetHdr(
            NEEDS_CSUM, kind.gso_type, self.headers, self.size, at, kind.csum_offset
        )
        return [virtio.pack(), bytes(headers), first[self.headers :], *parts[1:]]


class Coalescer:
    """Merges the packets of one batch.

    The driver calls `add` for each packet in order of arrival, then `finish` once. Packets must
    have passed `ip.length_untrusted` and be trimmed to the length it gave; beyond that their bytes
    are hostile, and nothing here raises.
    """

    def __init__(self, offloads: Offload) -> None:
        self._mergeable_kinds = [bool(kind.offload & offloads) for kind in _KINDS]
        self._frames: list[_Run] = []
        self._open: dict[tuple[int, bytes], _Run] = {}
        self._latest: _Run | None = None

    def add(self, packet: bytes) -> None:
        """Take the next packet."""
        kind: _Kind | None
        if packet[0] == _IPV4_PLAIN:
            plain = not (packet[6] & _IPV4_NOT_PLAIN or packet[7])
            kind = _IPV4_KINDS.get(packet[9]) if plain else None
        elif packet[0] >> 4 == 6:
            kind = _IPV6_KINDS.get(packet[6])
        else:
            kind = None
        if kind is None:
            self._add_opaque(packet)
            return
        length, at = len(packet), kind.transport
        sequence = flags = 0
        if kind.is_tcp:
            if length < at + 20:
                self._add_opaque(packet)
                return
            sequence, offset, flags = _TCP.unpack_from(packet, at)
            headers = at + (offset >> 4) * 4
            if headers < at + 20 or headers > length:
                self._add_opaque(packet)
                return
            candidate = flags | _PSH == _ACK | _PSH and not offset & 15
        else:
            if length < at + 8:
                self._add_opaque(packet)
                return
            headers = at + 8
            transport_length, value = _UDP.unpack_from(packet, at)
            candidate = transport_length == length - at and value != 0
        candidate = (
            candidate
            and length > headers
            and self._mergeable_kinds[kind.number]
            and _checksums_hold(packet, kind)
        )
        self._add_plain(packet, kind, headers, sequence, flags & _PSH, candidate)

    def _add_opaque(self, packet: bytes) -> None:
        """Take a packet whose flow cannot be told: nothing before it may grow behind it."""
        self._frames.append(_Run(packet))
        self._open.clear()
        self._latest = None

    def _add_plain(
        self, packet: bytes, kind: _Kind, headers: int, sequence: int, psh: int, candidate: bool
    ) -> None:
        header = int.from_bytes(packet[:headers], "little")
        template = header & _constant_fields(kind.number, headers)
        run = self._latest
        flow = None
        if run is None or run.template != template:
            flow = kind.number, packet[kind.flow]
            run = self._open.get(flow)
        if candidate and run is not None and run.takes(packet, headers, template, sequence):
            run.join(packet[headers:], psh)
            if run.is_open:
                self._latest = run
                return
            current = run
        else:
            current = _Run(packet)
            self._frames.append(current)
            if candidate:
                current.begin(kind, headers, template, sequence, psh)
        flow = flow or (kind.number, packet[kind.flow])
        if current.is_open:
            self._open[flow] = self._latest = current
            return
        self._open.pop(flow, None)
        if self._latest is run:
            self._latest = None

    def finish(self, out: bytearray) -> list[tuple[int, int]]:
        """Write the frames to the start of `out` and return their spans."""
        pieces: list[bytes] = []
        spans: list[tuple[int, int]] = []
        at = 0
        for run in self._frames:
            pieces += run.finish()
            end = at + VIRTIO_NET_HDR_LEN + run.length
            spans.append((at, end))
            at = end
        out[:at] = b"".join(pieces)
        return spans


def _checksums_hold(packet: bytes, kind: _Kind) -> bool:
    """Whether the IPv4 header's checksum and the transport checksum are right."""
    if kind.is_v4 and short_residue(packet[: ip.IPV4_HEADER_LEN]):
        return False
    length = len(packet) - kind.transport
    total = (residue(packet[kind.pseudo_from :]) << 8) + kind.protocol + length
    return not total % 65_535
