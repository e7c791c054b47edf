"""IPv4 and IPv6 headers as far as the data path must understand them.

Sources: RFC 791, RFC 8200, RFC 4302 (length of AH), RFC 6040 (ECN across a tunnel).
"""

from typing import Final, NamedTuple

from tunnel.datapath.drops import DatapathDrop
from tunnel.datapath.errors import PacketRefusedError
from tunnel.packet.checksum import replaced
from tunnel.packet.headers import header_length

IPV4_HEADER_LEN: Final = 20
IPV6_HEADER_LEN: Final = 40
TCP: Final = 6
UDP: Final = 17

_AUTHENTICATION_HEADER: Final = 51
_FRAGMENT_HEADER: Final = 44
_EXTENSION_HEADERS: Final = frozenset({0, 43, 60, _AUTHENTICATION_HEADER})
"""Hop-by-hop options, routing, destination options, authentication: those with a length to skip."""

# RFC 6040, figure 4: rows are the inner field, columns the outer one. Not-ECT inside CE is dropped
# there, and delivered here as by the kernel's WireGuard: a box on the way that marks all packets
# would cut off all that knows no ECN.
_DECAPSULATED_ECN: Final = (
    (0, 0, 0, 0),
    (1, 1, 1, 3),
    (2, 1, 2, 3),
    (3, 3, 3, 3),
)


class UpperLayerHeader(NamedTuple):
    """The header above IP: its protocol number and where it begins in the packet."""

    protocol: int
    offset: int


def length_untrusted(packet: bytes) -> int:
    """Return the length that the IP header claims, which is at most ``len(packet)``.

    Raises PacketRefusedError: truncated, ip_version or ip_length.
    """
    if not packet:
        raise PacketRefusedError(DatapathDrop.TRUNCATED)
    version = packet[0] >> 4
    if version == 4:
        if len(packet) < IPV4_HEADER_LEN:
            raise PacketRefusedError(DatapathDrop.IP_LENGTH)
        header = (packet[0] & 15) * 4
        length = packet[2] << 8 | packet[3]
        if not IPV4_HEADER_LEN <= header <= length <= len(packet):
            raise PacketRefusedError(DatapathDrop.IP_LENGTH)
        return length
    if version == 6:
        if len(packet) < IPV6_HEADER_LEN:
            raise PacketRefusedError(DatapathDrop.IP_LENGTH)
        length = IPV6_HEADER_LEN + (packet[4] << 8 | packet[5])
        if length > len(packet):
            raise PacketRefusedError(DatapathDrop.IP_LENGTH)
        return length
    raise PacketRefusedError(DatapathDrop.IP_VERSION)


def transport_untrusted(packet: bytes) -> UpperLayerHeader:
    """Find the transport header of a packet that `length_untrusted` accepted and that is trimmed.

    It begins inside the packet or right at its end.
    Raises PacketRefusedError (gso_type) for a fragment and for extension headers that run past the
    packet: such a packet has no transport header that one could segment by.
    """
    if packet[0] >> 4 == 4:
        if packet[6] & 0x3F or packet[7]:
            raise PacketRefusedError(DatapathDrop.GSO_TYPE)
        return UpperLayerHeader(packet[9], header_length(packet))
    protocol, offset = packet[6], IPV6_HEADER_LEN
    while protocol in _EXTENSION_HEADERS:
        if offset + 8 > len(packet):
            raise PacketRefusedError(DatapathDrop.GSO_TYPE)
        unit = 4 if protocol == _AUTHENTICATION_HEADER else 8
        protocol, offset = packet[offset], offset + 8 + packet[offset + 1] * unit
    if protocol == _FRAGMENT_HEADER or offset > len(packet):
        raise PacketRefusedError(DatapathDrop.GSO_TYPE)
    return UpperLayerHeader(protocol, offset)


def ecn(packet: bytes) -> int:
    """Return the ECN field (0 not-ECT, 1 ECT(1), 2 ECT(0), 3 CE) of an IP packet."""
    return packet[1] & 3 if packet[0] >> 4 == 4 else packet[1] >> 4 & 3


def decapsulated(packet: bytes, outer_ecn: int) -> bytes:
    """Return the packet with the ECN field that follows from its own and the outer one."""
    inner = ecn(packet)
    combined = _DECAPSULATED_ECN[inner][outer_ecn]
    if combined == inner:
        return packet
    changed = bytearray(packet)
    if packet[0] >> 4 == 6:
        changed[1] = packet[1] & 0xCF | combined << 4
        return bytes(changed)
    changed[1] = packet[1] & 0xFC | combined
    old, new = packet[0] << 8 | packet[1], packet[0] << 8 | changed[1]
    changed[10:12] = replaced(packet[10] << 8 | packet[11], old, new).to_bytes(2, "big")
    return bytes(changed)
