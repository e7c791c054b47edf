"""ICMP errors: what a router answers to a packet that it cannot pass on.

Sources: RFC 792, RFC 1122 section 3.2.2, RFC 1812 section 4.3.2; RFC 4443 sections 2.4 and 3.1.
"""

from __future__ import annotations

import struct

from tunnel.linux.kernel import IPV6_MIN_MTU
from tunnel.packet.checksum import checksum
from tunnel.packet.headers import ICMP, ICMPV6, Headers

_HOST_UNREACHABLE = 3, 1
_ADDRESS_UNREACHABLE = 1, 3
_MOST_V4, _MOST_V6 = 576, IPV6_MIN_MTU
"""Bytes of the whole answer at most."""
_TOS = 0xC0  # internetwork control, as Linux marks them
_TTL = 64
_DF = 0x4000
_ICMP_QUERIES = frozenset({0, 8, 13, 14, 15, 16, 17, 18})
_V4 = struct.Struct(">BBHHHBBH4s4s")
_V6 = struct.Struct(">IHBB16s16s")
_ERROR = struct.Struct(">BBHI")  # type, code, checksum, unused


def unreachable(packet: bytes) -> bytes | None:
    """The answer to `packet`, IPv4 or IPv6, that its destination cannot be reached.

    None where no answer is allowed: to an ICMP error, a later fragment, a multicast or broadcast
    destination, or a source that is no single host. The answer comes from the destination itself:
    Linux takes none that carries an address of its own, and none that another interface leads to.
    """
    headers = Headers.parse(packet)
    if headers is None:
        return None
    return _from_v4(packet, headers) if headers.version == 4 else _from_v6(packet, headers)


def _from_v4(packet: bytes, headers: Headers) -> bytes | None:
    source, destination = headers.source, headers.destination
    is_later_fragment = int.from_bytes(packet[6:8], "big") & 0x1FFF
    # 0/8, loopback; multicast, class E and the broadcast address.
    no_host = source[0] in (0, 127) or source[0] >= 224 or destination[0] >= 224
    no_query = headers.protocol == ICMP and (
        not headers.transport or headers.transport[0] not in _ICMP_QUERIES
    )
    if is_later_fragment or no_host or no_query:
        return None
    body = packet[: _MOST_V4 - _V4.size - _ERROR.size]
    body = _error(_HOST_UNREACHABLE, body, pseudo=b"")
    size = _V4.size + len(body)
    header = [0x45, _TOS, size, 0, _DF, _TTL, ICMP, 0, destination, source]
    header[7] = checksum(_V4.pack(*header))
    return _V4.pack(*header) + body


def _from_v6(packet: bytes, headers: Headers) -> bytes | None:
    source, destination = headers.source, headers.destination
    no_host = source == bytes(16) or source[0] == 0xFF or destination[0] == 0xFF
    no_query = headers.protocol == ICMPV6 and (not headers.transport or headers.transport[0] < 128)
    if no_host or no_query:
        return None
    body = packet[: _MOST_V6 - _V6.size - _ERROR.size]
    pseudo = destination + source + struct.pack(">II", _ERROR.size + len(body), ICMPV6)
    body = _error(_ADDRESS_UNREACHABLE, body, pseudo)
    return _V6.pack(6 << 28, len(body), ICMPV6, _TTL, destination, source) + body


def _error(kind: tuple[int, int], body: bytes, pseudo: bytes) -> bytes:
    value = checksum(pseudo + _ERROR.pack(*kind, 0, 0) + body)
    return _ERROR.pack(*kind, value, 0) + body
