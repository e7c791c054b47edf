"""Routes as the kernel's messages have them."""

from __future__ import annotations

import socket
import struct

import pytest

from tunnel.host import route_messages
from tunnel.host.route_messages import LOCAL, RouteEntry, look_up
from tunnel.linux import netlink


def test_loopback_is_local_and_a_foreign_source_is_refused() -> None:
    found = look_up(bytes([127, 0, 0, 1]))
    assert found.type == LOCAL
    assert found.devices == (socket.if_nametoindex("lo"),)
    with pytest.raises(OSError, match=r"Invalid argument|unreachable"):
        look_up(bytes([127, 0, 0, 1]), source=bytes([203, 0, 113, 9]))


def test_every_part_of_a_route_is_read() -> None:
    head = struct.pack("=BBBBBBBBI", socket.AF_INET, 24, 0, 0, 252, 3, 0, 1, 0)
    attribute, number = netlink.attribute, struct.Struct("=I").pack
    body = head + attribute(1, bytes([10, 1, 2, 0])) + attribute(15, number(70_000))
    body += attribute(6, number(9)) + attribute(8, attribute(2, number(1280)))
    plain = body + attribute(4, number(7)) + attribute(5, bytes([192, 0, 2, 1]))
    expected = RouteEntry(
        bytes([10, 1, 2, 0]), 24, 70_000, 3, 1, 9, 1280, bytes([192, 0, 2, 1]), (7,)
    )
    assert route_messages._route_untrusted(4, plain) == expected
    assert str(expected.network) == "10.1.2.0/24"
    hops = b"".join(struct.pack("=HBBi", 8, 0, 0, index) for index in (7, 8))
    assert route_messages._route_untrusted(4, body + attribute(9, hops)).devices == (7, 8)
    # What is broken ends the list, and a default route has no destination.
    broken = route_messages._route_untrusted(4, head + attribute(9, bytes(8) + hops))
    assert (broken.devices, broken.destination) == ((), bytes(4))
