"""When the way of packets may have changed: rtnetlink's events of routes, rules, addresses, links.

Numbers are those of linux/rtnetlink.h and linux/netlink.h.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import Self

import trio

from tunnel.host.errors import HostError

_GROUPS = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400
"""RTMGRP_LINK, and IFADDR, ROUTE of both families, RULE of IPv4. A link that goes down takes its
routes along without a message for each."""
_RTNLGRP_IPV6_RULE, _RTNLGRP_NEXTHOP = 19, 32
_NETLINK_ADD_MEMBERSHIP = 1
_SOL_NETLINK = 270
_BUFFER = 65536


class RouteWatch:
    """The routes of the network namespace it is made in; use as a context manager.

    Raises HostError when the kernel refuses a socket.
    """

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        try:
            # That something has changed is all that is read of it. Of a table that is filled by the
            # ten thousand, the kernel drops what does not fit.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            self._socket.bind((0, _GROUPS))
            for group in (_RTNLGRP_IPV6_RULE, _RTNLGRP_NEXTHOP):
                with contextlib.suppress(OSError):  # a kernel without the family, or older
                    self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
        except OSError as error:
            self._socket.close()
            raise HostError.from_errno("watch", "routes", error.errno or 0) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    async def changed(self) -> None:
        """Wait until a route, rule, address or link may have changed, and forget that it has."""
        await trio.lowlevel.wait_readable(self._socket)
        self.drain()

    def drain(self) -> None:
        """Forget the changes so far."""
        while True:
            try:
                self._socket.recv(_BUFFER)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise HostError.from_errno("watch", "routes", error.errno or 0) from error
