"""From a frame of the TUN or TAP to plaintexts: segmentation (TSO, USO) and checksums.

The rules stand in `interface.Session.seal`; they are those of Linux' software segmentation
(net/ipv4/tcp_offload.c, udp_offload.c), so that it makes no difference who segments.
"""

from functools import lru_cache
from struct import Struct
from typing import Final, NamedTuple

from tunnel.datapath import ethernet, ip
from tunnel.datapath.drops import DatapathDrop
from tunnel.datapath.errors import PacketRefusedError
from tunnel.datapath.interface import (
    MAX_PACKET,
    MAX_SEALED_FRAME,
    MESSAGE_OVERHEAD,
    PADDING,
    ReadableBuffer,
)
from tunnel.datapath.virtio import (
    GSO_ECN,
    GSO_NONE,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    LAYOUT,
    NEEDS_CSUM,
    VIRTIO_NET_HDR_LEN,
)
from tunnel.packet.checksum import checksum, residue, short_residue
from tunnel.packet.ethernet import ETHERIP, HEADER_LENGTH, OVERHEAD
from tunnel.packet.headers import header_length

_IPV4: Final = Struct(">4sH4sH")
"""Version to total length; identification; flags to protocol; checksum."""

_FIN_PSH: Final = 0x09
_CWR: Final = 0x80
_VERSIONS: Final = {GSO_TCPV4: (4,), GSO_TCPV6: (6,), GSO_UDP_L4: (4, 6)}


def padded_length(length: int, mtu: int) -> int:
    """Return the length of a packet of `length` bytes once it is padded."""
    return min(-(-length // PADDING) * PADDING, max(length, min(mtu, MAX_PACKET)))


class Segments(NamedTuple):
    """The plaintexts of one frame, zero-padded, in order, and the ECN field of their packets.

    All have one length but the last, which may be shorter.
    """

    plains: list[bytes]
    ecn: int


def split_untrusted(frame: ReadableBuffer, mtu: int) -> Segments:
    """Return the packets of one frame, checksums complete.

    Raises PacketRefusedError with the reasons of `interface.Session.seal`.
    """
    if len(frame) <= VIRTIO_NET_HDR_LEN:
        raise PacketRefusedError(DatapathDrop.TRUNCATED)
    packet = bytes(frame[VIRTIO_NET_HDR_LEN:])
    length = ip.length_untrusted(packet)
    if length < len(packet):
        packet = packet[:length]
    return _split(frame, packet, b"", 0, mtu)


def split_ethernet_untrusted(frame: ReadableBuffer, mtu: int) -> Segments:
    """Return the Ethernet frames of one frame as EtherIP, checksums complete.

    Raises PacketRefusedError as `split_untrusted` does.
    """
    if len(frame) < VIRTIO_NET_HDR_LEN:
        raise PacketRefusedError(DatapathDrop.TRUNCATED)
    link, packet = ethernet.parse_untrusted(bytes(frame[VIRTIO_NET_HDR_LEN:]))
    if packet:
        return _split(frame, packet, ETHERIP + link, len(link), mtu + OVERHEAD)
    flags, gso_type, _, _, csum_start, csum_offset = LAYOUT.unpack_from(frame)
    if gso_type != GSO_NONE:
        raise PacketRefusedError(DatapathDrop.GSO_TYPE)
    if flags & NEEDS_CSUM:
        link = _completed(link, csum_start, csum_offset, HEADER_LENGTH)
    plain = ETHERIP + link
    if len(plain) > MAX_PACKET:
        raise PacketRefusedError(DatapathDrop.TOO_LONG)
    # Not padded: nothing would say where the frame ends.
    return Segments([plain], 0)


def _split(frame: ReadableBuffer, packet: bytes, lead: bytes, link: int, mtu: int) -> Segments:
    """Split an IP packet that is as long as it says. `lead` comes before each segment, and `link`
    bytes before the packet in the frame.
    """
    flags, gso_type, _, gso_size, csum_start, csum_offset = LAYOUT.unpack_from(frame)
    csum_start -= link
    length = len(packet)
    ecn = ip.ecn(packet)
    if gso_type == GSO_NONE:
        if flags & NEEDS_CSUM:
            packet = _completed(packet, csum_start, csum_offset, header_length(packet))
        length += len(lead)
        if length > MAX_PACKET:
            raise PacketRefusedError(DatapathDrop.TOO_LONG)
        return Segments([(lead + packet).ljust(padded_length(length, mtu), b"\0")], ecn)

    gso_type &= ~GSO_ECN
    if packet[0] >> 4 not in _VERSIONS.get(gso_type, ()):
        raise PacketRefusedError(DatapathDrop.GSO_TYPE)
    if gso_size == 0:
        raise PacketRefusedError(DatapathDrop.GSO_SIZE)
    protocol, offset = ip.transport_untrusted(packet)
    if protocol != (ip.UDP if gso_type == GSO_UDP_L4 else ip.TCP):
        raise PacketRefusedError(DatapathDrop.GSO_TYPE)
    headers = offset + _transport_header_length(packet, protocol, offset)
    field = 6 if protocol == ip.UDP else 16
    if not flags & NEEDS_CSUM or csum_start != offset or csum_offset != field:
        raise PacketRefusedError(DatapathDrop.CHECKSUM_OFFSET)
    _check_size(length, headers, gso_size, len(lead), mtu)
    split = _split_udp if protocol == ip.UDP else _split_tcp
    return Segments(split(packet, offset, headers, gso_size, lead, mtu), ecn)


def _completed(packet: bytes, csum_start: int, csum_offset: int, least: int) -> bytes:
    """Return the packet with the checksum that the kernel left to the device.

    What it covers begins `least` bytes behind the start, or later.
    """
    at = csum_start + csum_offset
    if csum_start < least or at + 2 > len(packet):
        raise PacketRefusedError(DatapathDrop.CHECKSUM_OFFSET)
    value = checksum(packet[csum_start:])
    return b"".join((packet[:at], value.to_bytes(2, "big"), packet[at + 2 :]))


def _transport_header_length(packet: bytes, protocol: int, offset: int) -> int:
    if protocol == ip.UDP:
        if offset + 8 > len(packet):
            raise PacketRefusedError(DatapathDrop.IP_LENGTH)
        return 8
    if offset + 20 > len(packet):
        raise PacketRefusedError(DatapathDrop.IP_LENGTH)
    length = (packet[offset + 12] >> 4) * 4
    if length < 20 or offset + length > len(packet):
        raise PacketRefusedError(DatapathDrop.IP_LENGTH)
    return length


def _check_size(length: int, headers: int, gso_size: int, lead: int, mtu: int) -> None:
    """Refuse a frame before any work is done for it if its segments can not be sent."""
    whole, rest = divmod(length - headers, gso_size)
    first = lead + headers + min(gso_size, length - headers)
    if first > MAX_PACKET:
        raise PacketRefusedError(DatapathDrop.TOO_LONG)
    size = whole * (padded_length(lead + headers + gso_size, mtu) + MESSAGE_OVERHEAD)
    if rest or not whole:
        size += padded_length(lead + headers + rest, mtu) + MESSAGE_OVERHEAD
    if size > MAX_SEALED_FRAME:
        raise PacketRefusedError(DatapathDrop.TOO_MANY_SEGMENTS)


class _Prefix:
    """What segments of one length begin with, `lead` and the IP headers, and what depends on that
    length. `padding` is how many zero bytes they end with.

    transport_sum is the residue, in network order, of the frame's checksum field with the length of
    its pseudo-header exchanged for the segments' one.
    """

    __slots__ = (
        "_head",
        "_identification",
        "_lead",
        "_middle",
        "_rest",
        "_sum",
        "padding",
        "transport_sum",
    )

    def __init__(
        self, packet: bytes, offset: int, field: int, length: int, lead: bytes, mtu: int
    ) -> None:
        at = offset + field
        self._lead = lead
        whole = len(lead) + length
        self.padding = padded_length(whole, mtu) - whole
        pseudo = packet[at] << 8 | packet[at + 1]
        # Subtracting the old length is adding its complement, which keeps the sum positive.
        self.transport_sum = pseudo + 0xFFFF - (len(packet) - offset) + (length - offset)
        self._identification = -1
        if packet[0] >> 4 == 6:
            payload = length - ip.IPV6_HEADER_LEN
            self._rest = packet[:4] + payload.to_bytes(2, "big") + packet[6:offset]
            return
        self._head = packet[:2] + length.to_bytes(2, "big")
        self._identification = packet[4] << 8 | packet[5]
        self._middle = packet[6:10]
        self._rest = packet[12:offset]
        self._sum = short_residue(self._head + self._middle + self._rest) << 8

    def of(self, number: int) -> bytes:
        """Return what segment `number` begins with."""
        if self._identification < 0:
            return self._lead + self._rest
        identification = self._identification + number & 0xFFFF
        value = -(self._sum + identification) % 65_535
        return self._lead + _IPV4.pack(self._head, identification, self._middle, value) + self._rest


@lru_cache(maxsize=256)
def _tcp_layout(prefix: int, header: int, payload: int, padding: int) -> Struct:
    """Prefix; ports; sequence; ack and data offset; flags; window; checksum; rest; payload."""
    return Struct(f">{prefix}s4sI5sB2sH{header - 18}s{payload}s{padding}x")


@lru_cache(maxsize=256)
def _udp_layout(prefix: int, payload: int, padding: int) -> Struct:
    """Prefix; ports; length; checksum; payload."""
    return Struct(f">{prefix}s4sHH{payload}s{padding}x")


def _split_tcp(
    packet: bytes, offset: int, headers: int, gso_size: int, lead: bytes, mtu: int
) -> list[bytes]:
    length = len(packet)
    header = packet[offset:headers]
    ports, window, rest = header[:4], header[14:16], header[18:]
    ack_offset = header[8:13]
    all_flags = header[13]
    # The flags' byte is the lower one of its word: it can be added as the number that it is.
    flags = all_flags & ~_FIN_PSH
    constant = short_residue(ports + ack_offset + b"\0" + window + rest) << 8
    sequence = int.from_bytes(header[4:8], "big")
    size = min(gso_size, length - headers)
    prefix = _Prefix(packet, offset, 16, headers + size, lead, mtu)
    before = len(lead) + offset
    layout = _tcp_layout(before, headers - offset, size, prefix.padding)
    constant_of_all = constant + prefix.transport_sum

    segments: list[bytes] = []
    # A frame without payload is one segment too.
    for number, at in enumerate(range(headers, max(length, headers + 1), gso_size)):
        if at + gso_size >= length:
            flags |= all_flags & _FIN_PSH
            if length - at != size:
                size = length - at
                prefix = _Prefix(packet, offset, 16, headers + size, lead, mtu)
                layout = _tcp_layout(before, headers - offset, size, prefix.padding)
                constant_of_all = constant + prefix.transport_sum
        payload = packet[at : at + size]
        total = constant_of_all + sequence + flags + (residue(payload) << 8)
        segments.append(
            layout.pack(
                prefix.of(number),
                ports,
                sequence,
                ack_offset,
                flags,
                window,
                -total % 65_535 or 65_535,
                rest,
                payload,
            )
        )
        sequence = sequence + size & 0xFFFFFFFF
        flags &= ~_CWR
    return segments


def _split_udp(
    packet: bytes, offset: int, headers: int, gso_size: int, lead: bytes, mtu: int
) -> list[bytes]:
    length = len(packet)
    ports = packet[offset : offset + 4]
    constant = short_residue(ports) << 8
    segments: list[bytes] = []
    size = -1
    for number, at in enumerate(range(headers, max(length, headers + 1), gso_size)):
        payload = packet[at : at + gso_size]
        if len(payload) != size:
            size = len(payload)
            prefix = _Prefix(packet, offset, 6, headers + size, lead, mtu)
            layout = _udp_layout(len(lead) + offset, size, prefix.padding)
        total = constant + prefix.transport_sum + 8 + size + (residue(payload) << 8)
        value = -total % 65_535 or 65_535
        segments.append(layout.pack(prefix.of(number), ports, 8 + size, value, payload))
    return segments
