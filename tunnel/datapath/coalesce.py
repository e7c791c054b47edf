"""From plain packets to frames for the TUN: generic receive offload for TCP and UDP.

The rules stand in `interface.Session.open`. They are a little stricter than Linux' own GRO: a
packet is merged only if splitting the frame again gives back every byte of it that has a meaning.
"""

from functools import lru_cache
from struct import Struct
from typing import Final, TypeAlias

from tunnel.datapath import ip
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
from tunnel.packet.checksum import folded, residue, short_residue

_IPV4_PLAIN: Final = 0x45
_IPV4_DF: Final = 0x40
_IPV4_NOT_PLAIN: Final = 0xBF
"""In byte 6: the reserved flag, MF and the upper bits of the fragment offset."""
_ACK: Final = 0x10
_PSH: Final = 0x08

_TCP: Final = Struct(">12xBB")
"""Data offset and reserved bits; flags."""
_UDP: Final = Struct(">4xHH")
"""Length; checksum."""
_FIELDS: Final = {
    Offload.TCP4: Struct(">4xH4xH12xI5xB"),
    Offload.TCP6: Struct(">44xI5xB"),
    Offload.UDP4: Struct(">4xH4xH12xHH"),
    Offload.UDP6: Struct(">44xHH"),
}
"""What varies within a run. IPv4: identification; header checksum. TCP: sequence; flags.
UDP: length; checksum."""


class _Kind:
    """One of the four kinds of packets that can be merged, with the places of its fields."""

    __slots__ = (
        "csum_offset",
        "fields",
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
        self.fields = _FIELDS[offload]
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


_Flow: TypeAlias = tuple[int, bytes, bytes]
"""The kind of its packets, their addresses and ports, and their Ethernet header."""


class _Run:
    """A frame in the making: packets of one flow, each the continuation of the one before."""

    __slots__ = (
        "_header_sum",
        "_identification",
        "_kind",
        "_mask",
        "_parts",
        "_psh",
        "_sequence",
        "_size",
        "_template",
        "flow",
        "headers",
        "is_open",
        "length",
        "link",
    )

    def __init__(self, packet: bytes, link: bytes) -> None:
        self._parts = [packet]
        self.link = link
        self.length = len(packet)
        self.is_open = False

    def begin(self, kind: _Kind, headers: int, flow: _Flow) -> None:
        """Let others join this packet, which is mergeable."""
        packet = self._parts[0]
        self._kind, self.headers, self.flow = kind, headers, flow
        self._mask = _constant_fields(kind.number, headers)
        self._template = int.from_bytes(packet[:headers], "little") & self._mask
        self._size = self.length - headers
        self._identification = -1
        *ipv4, first, second = kind.fields.unpack_from(packet)
        if kind.is_v4:
            # The header's checksum was right, so the sum of the rest is what these three lack.
            self._header_sum = -(self.length + sum(ipv4)) % 65_535
            if not packet[6] & _IPV4_DF:
                # With DF the identification has no meaning (RFC 6864); without, it counts up.
                self._identification = ipv4[0]
        self._sequence = first + self._size & 0xFFFFFFFF
        self._psh = 0
        self.is_open = not (kind.is_tcp and second & _PSH)

    def extend(self, packet: bytes) -> bool:
        """Append the packet if it is mergeable and continues this open run; say whether it was.

        Headers that equal the first packet's make it plain, of this flow, and its flags right.
        """
        headers = self.headers
        if int.from_bytes(packet[:headers], "little") & self._mask != self._template:
            return False
        kind, parts, length = self._kind, self._parts, len(packet)
        size = length - headers
        if not 0 < size <= self._size or self.length + size > MAX_FRAME_PACKET:
            return False
        if kind.is_v4:
            identification, value, first, second = kind.fields.unpack_from(packet)
            if (self._header_sum + length + identification + value) % 65_535:
                return False
            expected = self._identification
            if expected >= 0 and expected + len(parts) & 0xFFFF != identification:
                return False
        else:
            first, second = kind.fields.unpack_from(packet)
        transport_length = length - kind.transport
        psh = 0
        if kind.is_tcp:
            if first != self._sequence:
                return False
            psh = second & _PSH
        elif first != transport_length or not second or len(parts) >= MAX_BATCH_SEGMENTS:
            return False
        total = (residue(packet[kind.pseudo_from :]) << 8) + kind.protocol + transport_length
        if total % 65_535:
            return False
        parts.append(packet[headers:])
        self.length += size
        self._sequence = self._sequence + size & 0xFFFFFFFF
        if psh or size < self._size:
            self._psh = psh
            self.is_open = False
        return True

    def finish(self) -> list[bytes]:
        """Return the pieces of the frame."""
        parts = self._parts
        link = self.link
        if len(parts) == 1:
            return [NO_OFFLOAD, link, *parts]
        kind, first = self._kind, parts[0]
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
            headers[at + 13] |= self._psh
        else:
            headers[at + 4 : at + 6] = length.to_bytes(2, "big")
        addresses = folded(first[kind.pseudo_from : at])
        pseudo = (addresses + kind.protocol + length) % 65_535 or 65_535
        field = at + kind.csum_offset
        headers[field : field + 2] = pseudo.to_bytes(2, "big")
        virtio = VirtioNetHdr(
            NEEDS_CSUM,
            kind.gso_type,
            len(link) + self.headers,
            self._size,
            len(link) + at,
            kind.csum_offset,
        )
        return [virtio.pack(), link, bytes(headers), first[self.headers :], *parts[1:]]


class Coalescer:
    """Merges the packets of one batch.

    The driver calls `add` for each packet in order of arrival, then `finish` once. Packets must
    have passed `ip.length_untrusted` and be trimmed to the length it gave; beyond that their bytes
    are hostile, and nothing here raises. `link` is the Ethernet header before the packet; a frame
    of Ethernet that holds none is all `link`.
    """

    def __init__(self, offloads: Offload) -> None:
        self._mergeable_kinds = [bool(kind.offload & offloads) for kind in _KINDS]
        self._frames: list[_Run] = []
        self._open: dict[_Flow, _Run] = {}
        self._latest: _Run | None = None

    def add(self, packet: bytes, link: bytes = b"") -> None:
        """Take the next packet."""
        # Usually it continues what the packet before it belongs to.
        latest = self._latest
        if latest is not None and latest.link == link and latest.extend(packet):
            if not latest.is_open:
                self._close(latest.flow)
            return
        kind = _kind_of(packet) if packet else None
        headers = _headers_length(packet, kind) if kind is not None else 0
        if kind is None or not headers:
            # Its flow is unknown: nothing before it may be merged with what comes after it.
            self._frames.append(_Run(packet, link))
            self._open.clear()
            self._latest = None
            return
        flow = kind.number, packet[kind.flow], link
        run = self._open.get(flow)
        if run is None or run is latest or not run.extend(packet):
            run = _Run(packet, link)
            self._frames.append(run)
            if self._mergeable_kinds[kind.number] and _is_mergeable(packet, kind, headers):
                run.begin(kind, headers, flow)
        if run.is_open:
            self._open[flow] = self._latest = run
        else:
            self._close(flow)

    def _close(self, flow: _Flow) -> None:
        """End the run of a flow, if it has one."""
        run = self._open.pop(flow, None)
        if run is not None and run is self._latest:
            self._latest = None

    def finish(self, out: bytearray) -> list[tuple[int, int]]:
        """Write the frames to the start of `out` and return their spans."""
        pieces: list[bytes] = []
        spans: list[tuple[int, int]] = []
        at = 0
        for run in self._frames:
            pieces += run.finish()
            end = at + VIRTIO_NET_HDR_LEN + len(run.link) + run.length
            spans.append((at, end))
            at = end
        out[:at] = b"".join(pieces)
        return spans


def _kind_of(packet: bytes) -> _Kind | None:
    """Return the kind of a packet that is not a fragment, without options or extension headers."""
    if packet[0] == _IPV4_PLAIN:
        whole = not (packet[6] & _IPV4_NOT_PLAIN or packet[7])
        return _IPV4_KINDS.get(packet[9]) if whole else None
    return _IPV6_KINDS.get(packet[6]) if packet[0] >> 4 == 6 else None


def _headers_length(packet: bytes, kind: _Kind) -> int:
    """Return the length of IP and transport header, 0 if they do not fit."""
    length, at = len(packet), kind.transport
    if not kind.is_tcp:
        return at + 8 if length >= at + 8 else 0
    if length < at + 20:
        return 0
    headers = at + (packet[at + 12] >> 4) * 4
    return headers if at + 20 <= headers <= length else 0


def _is_mergeable(packet: bytes, kind: _Kind, headers: int) -> bool:
    """Whether a plain packet may begin a run: payload, flags or length, and all checksums."""
    at = kind.transport
    transport_length = len(packet) - at
    if kind.is_tcp:
        offset, flags = _TCP.unpack_from(packet, at)
        sound = flags | _PSH == _ACK | _PSH and not offset & 15
    else:
        claimed, value = _UDP.unpack_from(packet, at)
        sound = claimed == transport_length and value != 0
    if not sound or len(packet) == headers:
        return False
    if kind.is_v4 and short_residue(packet[: ip.IPV4_HEADER_LEN]):
        return False
    total = (residue(packet[kind.pseudo_from :]) << 8) + kind.protocol + transport_length
    return not total % 65_535
