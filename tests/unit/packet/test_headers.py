"""What the first bytes of a packet tell."""

from __future__ import annotations

import socket
import struct

from tunnel.packet.headers import ICMP, ICMPV6, TCP, UDP, Headers


def v4(protocol: int, transport: bytes, *, ttl: int = 64, length: int = 60) -> Headers:
    addresses = socket.inet_aton("10.0.0.1") + socket.inet_aton("10.0.0.2")
    header = struct.pack("!BBHHHBBH", 0x45, 0, length, 7, 0x4000, ttl, protocol, 0) + addresses
    found = Headers.parse(header + transport)
    assert found is not None
    return found


def tcp(checksum: int = 0) -> bytes:
    return struct.pack("!HHIIBBHHH", 5000, 443, 99, 1, 0x50, 0x18, 512, checksum, 0)


def test_words() -> None:
    headers = v4(TCP, tcp())
    assert headers.kind() == "TCP ACK PSH, sequence 99"
    assert headers.flow() == "10.0.0.1:5000 → 10.0.0.2:443"
    assert headers.size == 60


def test_what_hops_and_offloads_change_leaves_it_the_same_packet() -> None:
    assert v4(TCP, tcp(1), ttl=64).key == v4(TCP, tcp(2), ttl=63, length=1500).key
    assert v4(TCP, tcp()).key != v4(UDP, tcp()).key


def test_a_transport_message_shows_its_session_and_counter() -> None:
    udp = struct.pack("!HHHH", 51820, 51820, 40, 0)
    message = struct.pack("<BxxxIQ", 4, 0x01020304, 0x1_0000_0005)
    assert v4(UDP, udp + message).wireguard == (4, 0x01020304, 5)
    assert v4(UDP, udp + b"\x05" + message[1:]).wireguard is None
    assert v4(UDP, udp + b"\x01" + message[1:]).wireguard == (1, 0x01020304, 0)


def test_ipv6_with_an_extension_header() -> None:
    addresses = socket.inet_pton(socket.AF_INET6, "fd00::1") * 2
    ping = struct.pack("!BBHHH", 128, 0, 0, 9, 3)
    header = struct.pack("!IHBB", 6 << 28, 16, 60, 64) + addresses
    extension = bytes([ICMPV6, 0]) + bytes(6)
    headers = Headers.parse(header + extension + ping)
    assert headers is not None
    assert headers.protocol == ICMPV6
    assert headers.kind() == "ICMPv6 echo request, id 9, sequence 3"
    assert headers.flow() == "fd00::1 → fd00::1"
    assert headers.size == 56


def test_a_later_fragment_has_no_ports() -> None:
    addresses = socket.inet_aton("10.0.0.1") + socket.inet_aton("10.0.0.2")
    header = struct.pack("!BBHHHBBH", 0x45, 0, 60, 7, 185, 64, UDP, 0) + addresses
    headers = Headers.parse(header + bytes(20))
    assert headers is not None
    assert headers.ports is None
    assert headers.kind() == "UDP, a later fragment"


def test_pings_are_known_by_type_and_a_later_fragment_is_none() -> None:
    request = struct.pack("!BBHHH", 8, 0, 0, 7, 1)
    assert v4(ICMP, request).is_echo
    assert not v4(ICMP, b"\x03" + request[1:]).is_echo
    assert not v4(UDP, request).is_echo
    first = v4(ICMP, request)
    later = Headers(first.network[:6] + b"\x00\x10" + first.network[8:], request)
    assert not later.is_echo
