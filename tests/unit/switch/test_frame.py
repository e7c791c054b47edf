"""What a frame says: its VLAN, the addresses that it claims, and the one that it asks for."""

from __future__ import annotations

import pytest

from tests.support.frames import (
    BROADCAST,
    arp,
    ethernet,
    ipv4_packet,
    ipv6_packet,
    mac,
    neighbour,
    packed,
)
from tunnel.switch import Frame

A, B = mac(1), mac(2)
ALL_NODES = b"\x33\x33\0\0\0\1"


def test_vlans() -> None:
    plain = Frame(ethernet(A, B, 0x0800, ipv4_packet("10.0.0.1", "10.0.0.2")))
    assert (plain.key, plain.destination_key) == (A + b"\0\0", B + b"\0\0")
    tagged = Frame(ethernet(A, B, 0x0800, ipv4_packet("10.0.0.1", "10.0.0.2"), vlan=0x6ABC))
    assert (tagged.key, tagged.destination_key) == (A + b"\x0a\xbc", B + b"\x0a\xbc")
    assert tagged.claims == (packed("10.0.0.1"),)
    cut = Frame(B + A + b"\x81\0\0")
    assert (cut.key, cut.is_ip) == (A + b"\0\0", False)


@pytest.mark.parametrize(
    ("kind", "payload", "group", "claims", "asks"),
    [
        (0x0800, ipv4_packet("10.0.0.1", "10.0.0.2"), False, ["10.0.0.1"], "10.0.0.2"),
        (0x0800, ipv4_packet("10.0.0.1", "10.0.0.255"), True, ["10.0.0.1"], None),
        (0x0800, ipv4_packet("0.0.0.0", "255.255.255.255"), True, [], None),
        (0x0800, ipv4_packet("10.0.0.1", "10.0.0.2")[:19], False, None, None),
        (0x0800, b"\x65" + ipv4_packet("10.0.0.1", "10.0.0.2")[1:], False, None, None),
        (0x0800, b"", False, None, None),
        (0x0806, arp(1, "10.0.0.1", "10.0.0.2"), True, ["10.0.0.1"], "10.0.0.2"),
        (0x0806, arp(2, "10.0.0.1", "10.0.0.2"), False, ["10.0.0.1"], None),
        (0x0806, arp(1, "10.0.0.1", "10.0.0.1"), True, ["10.0.0.1"], None),
        (0x0806, arp(1, "0.0.0.0", "10.0.0.1"), True, ["10.0.0.1"], None),
        (0x0806, arp(1, "10.0.0.1", "10.0.0.2")[:27], True, None, None),
        (0x0806, b"\0\6" + arp(1, "10.0.0.1", "10.0.0.2")[2:], True, None, None),
        (0x86DD, ipv6_packet("fd00::1", "fd00::2"), False, ["fd00::1"], "fd00::2"),
        (0x86DD, ipv6_packet("fd00::1", "ff02::1"), True, ["fd00::1"], None),
        (0x86DD, ipv6_packet("fd00::1", "fd00::2")[:39], False, None, None),
        (
            0x86DD,
            ipv6_packet("fd00::1", "ff02::1:ff00:2", 58, neighbour(135, "fd00::2")),
            True,
            ["fd00::1"],
            "fd00::2",
        ),
        (
            0x86DD,
            ipv6_packet("::", "ff02::1:ff00:1", 58, neighbour(135, "fd00::1")),
            True,
            ["fd00::1"],
            None,
        ),
        (
            0x86DD,
            ipv6_packet("fe80::1", "ff02::1", 58, neighbour(136, "fd00::1")),
            True,
            ["fe80::1", "fd00::1"],
            None,
        ),
        (
            0x86DD,
            ipv6_packet("fe80::1", "ff02::1", 0, b"\x3c\0" + bytes(6) + b"\x3a\0" + bytes(6))
            + neighbour(136, "fd00::1"),
            True,
            ["fe80::1", "fd00::1"],
            None,
        ),
        (0x86DD, ipv6_packet("fe80::1", "ff02::1", 0, b"\x3c\0" + bytes(6)), True, None, None),
        (0x86DD, ipv6_packet("fe80::1", "ff02::1", 60, b"\x3a\xff" + bytes(6)), True, None, None),
        (0x86DD, ipv6_packet("fe80::1", "ff02::1", 58, b"\x88" + bytes(22)), True, None, None),
        (
            0x86DD,
            ipv6_packet("fe80::1", "ff02::1", 58, b"\x8f" + bytes(7)),
            True,
            ["fe80::1"],
            None,
        ),
        (0x86DD, ipv6_packet("fe80::1", "ff02::1", 44, b"\x3a" + bytes(7)), True, None, None),
        (
            0x86DD,
            ipv6_packet("fd00::1", "fd00::2", 44, b"\x3a" + bytes(7)),
            False,
            ["fd00::1"],
            "fd00::2",
        ),
        (0x88E5, b"anything", False, [], None),
        (0x0026, b"\x42\x42\x03" + bytes(35), True, [], None),
    ],
)
def test_addresses(
    kind: int, payload: bytes, group: bool, claims: list[str] | None, asks: str | None
) -> None:
    frame = Frame(ethernet(A, ALL_NODES if group else B, kind, payload))
    assert frame.is_ip == (kind in (0x0800, 0x0806, 0x86DD))
    assert frame.claims == (None if claims is None else tuple(map(packed, claims)))
    assert frame.asks == (None if asks is None else packed(asks))


def test_a_chain_of_headers_that_hides_what_follows_can_not_be_read() -> None:
    chain = b"\x3c\0" + bytes(6)
    packet = ipv6_packet("fe80::1", "ff02::1", 60, chain * 20 + neighbour(136, "fd00::1"))
    assert Frame(ethernet(A, ALL_NODES, 0x86DD, packet)).claims is None


@pytest.mark.parametrize(
    ("source", "is_from_station"), [(A, True), (bytes(6), False), (BROADCAST, False)]
)
def test_sources(source: bytes, is_from_station: bool) -> None:
    assert Frame(ethernet(source, B, 0x88B5, b"")).is_from_station == is_from_station


@pytest.mark.parametrize(("last", "reserved"), [(0, False), (1, True), (14, True), (16, False)])
def test_groups_of_bridges(last: int, reserved: bool) -> None:
    frame = Frame(ethernet(A, bytes([1, 0x80, 0xC2, 0, 0, last]), 0x88B5, b""))
    assert frame.is_for_next_bridge == reserved
