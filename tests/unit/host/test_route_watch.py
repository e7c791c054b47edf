"""Asking the kernel for the route to one destination."""

from __future__ import annotations

import errno
import socket
import struct

from tunnel.host.route_watch import NextHop, RouteWatch, parse_route
from tunnel.linux import netlink

_RTM_NEWROUTE = 24


def test_loopback_is_local_and_another_address_of_ours_is_not() -> None:
    with RouteWatch() as watch:
        found = watch.look_up(bytes([127, 0, 0, 1]))
        assert found.is_local
        assert found.ifindex == socket.if_nametoindex("lo")
        # A source that is not ours, without ip_nonlocal_bind.
        refused = watch.look_up(bytes([127, 0, 0, 1]), source=bytes([203, 0, 113, 9]))
        assert refused.error in {errno.EINVAL, errno.ENETUNREACH}


def test_answers_are_parsed() -> None:
    head = struct.pack("=BBBBBBBBI", socket.AF_INET, 32, 0, 0, 254, 0, 0, 1, 0)
    body = head + netlink.attribute(4, struct.pack("=I", 7))
    assert parse_route(_RTM_NEWROUTE, body) == NextHop(7)
    gateway = bytes([192, 0, 2, 1])
    assert parse_route(_RTM_NEWROUTE, body + netlink.attribute(5, gateway)) == NextHop(7, gateway)
    via = struct.pack("=H", socket.AF_INET6) + bytes(16)
    assert parse_route(_RTM_NEWROUTE, body + netlink.attribute(18, via)).gateway == via
    unreachable = struct.pack("=i", -errno.ENETUNREACH)
    assert parse_route(2, unreachable) == NextHop(error=errno.ENETUNREACH)
    assert parse_route(_RTM_NEWROUTE, b"short").error
