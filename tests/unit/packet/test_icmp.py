"""ICMP errors: their form, and when there is none."""

from __future__ import annotations

import pytest

from tests.support.packets import ones_sum
from tunnel.packet.icmp import unreachable

A4, B4 = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 9])
A6, B6 = bytes([0xFD]) + bytes(14) + b"\1", bytes([0xFD]) + bytes(14) + b"\2"


def v4(
    body: bytes = bytes(64),
    *,
    protocol: int = 17,
    source: bytes = A4,
    destination: bytes = B4,
    fragment: int = 0,
) -> bytes:
    size = 20 + len(body)
    head = b"\x45\0" + size.to_bytes(2, "big") + bytes(2) + fragment.to_bytes(2, "big")
    return head + bytes([64, protocol, 0, 0]) + source + destination + body


def v6(
    body: bytes = bytes(64), *, protocol: int = 17, source: bytes = A6, destination: bytes = B6
) -> bytes:
    head = b"\x60\0\0\0" + len(body).to_bytes(2, "big") + bytes([protocol, 64])
    return head + source + destination + body


@pytest.mark.parametrize("size", [0, 8, 64, 1000, 1400])
def test_ipv4(size: int) -> None:
    packet = v4(bytes(range(256)) * 6)[: 20 + size]
    answer = unreachable(packet)
    assert answer is not None
    assert len(answer) == int.from_bytes(answer[2:4], "big") == min(576, 28 + len(packet))
    assert (answer[12:16], answer[16:20]) == (B4, A4)
    assert (answer[9], answer[20:22]) == (1, b"\3\1")
    assert packet.startswith(answer[28:])
    assert ones_sum(answer[:20]) == ones_sum(answer[20:]) == 0xFFFF


@pytest.mark.parametrize("size", [0, 8, 64, 1000, 1400])
def test_ipv6(size: int) -> None:
    packet = v6(bytes(range(256)) * 6)[: 40 + size]
    answer = unreachable(packet)
    assert answer is not None
    assert len(answer) == 40 + int.from_bytes(answer[4:6], "big") == min(1280, 48 + len(packet))
    assert (answer[8:24], answer[24:40]) == (B6, A6)
    assert (answer[6], answer[40:42]) == (58, b"\1\3")
    assert packet.startswith(answer[48:])
    pseudo = answer[8:40] + (len(answer) - 40).to_bytes(4, "big") + bytes(3) + b"\x3a"
    assert ones_sum(pseudo + answer[40:]) == 0xFFFF


@pytest.mark.parametrize("kind", [0, 8, 13])
def test_an_icmp_query_is_answered(kind: int) -> None:
    assert unreachable(v4(bytes([kind]) + bytes(20), protocol=1))
    assert unreachable(v6(bytes([128 + kind]) + bytes(20), protocol=58))


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\x45\0\0",
        b"\x75" + bytes(60),
        v4(b"\3\1" + bytes(30), protocol=1),
        v4(b"\5\1" + bytes(30), protocol=1),
        v4(b"", protocol=1),
        v4(fragment=0x2001),
        v4(source=bytes(4)),
        v4(source=bytes([127, 0, 0, 1])),
        v4(source=bytes([224, 0, 0, 1])),
        v4(source=b"\xff\xff\xff\xff"),
        v4(destination=bytes([239, 1, 1, 1])),
        v4(destination=b"\xff\xff\xff\xff"),
        v6(b"\1\0" + bytes(30), protocol=58),
        v6(b"", protocol=58),
        v6(source=bytes(16)),
        v6(source=b"\xff\2" + bytes(14)),
        v6(destination=b"\xff\2" + bytes(14)),
    ],
)
def test_no_answer_where_none_is_allowed(packet: bytes) -> None:
    assert unreachable(packet) is None
