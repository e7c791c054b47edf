"""What the kernel knows of the way to an endpoint."""

from __future__ import annotations

import contextlib
import socket

from tunnel.io.endpoint import Endpoint
from tunnel.linux import kernel


def path_mtu(endpoint: Endpoint, fwmark: int = 0) -> int | None:
    """Bytes of the largest outer packet to `endpoint`; None without a route.

    It is that of the route, or what an ICMP "fragmentation needed" said since. Sends nothing.
    """
    family = endpoint.family
    level, option = (
        (socket.IPPROTO_IP, kernel.IP_MTU)
        if family == socket.AF_INET
        else (socket.IPPROTO_IPV6, kernel.IPV6_MTU)
    )
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        if fwmark:
            probe.setsockopt(socket.SOL_SOCKET, kernel.SO_MARK, fwmark)
        probe.connect(endpoint.sockaddr)
        return probe.getsockopt(level, option)
    return None
