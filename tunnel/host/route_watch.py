"""When the way of packets may have changed: the kernel's events of routes, rules, addresses, links.

Those of nftables too, if asked for. Numbers are those of linux/rtnetlink.h, linux/netlink.h and
linux/netfilter/nfnetlink.h.
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
_NETLINK_NETFILTER = 12
_NFNLGRP_NFTABLES = 7
_BUFFER = 65536


class RouteWatch:
    """The changes in the network namespace it is made in; use as a context manager.

    With `firewall` those of nftables' rules, too. Raises HostError when there is no socket.
    """

    def __init__(self, *, firewall: bool = False) -> None:
        self._sockets: list[socket.socket] = []
        try:
            routes = self._open(socket.NETLINK_ROUTE, _GROUPS)
            for group in (_RTNLGRP_IPV6_RULE, _RTNLGRP_NEXTHOP):
                with contextlib.suppress(OSError):  # a kernel without the family, or older
                    routes.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
            if firewall:
                with contextlib.suppress(OSError):  # a kernel without nf_tables
                    self._open(_NETLINK_NETFILTER, 1 << (_NFNLGRP_NFTABLES - 1))
        except OSError as error:
            self.close()
            raise HostError.from_errno("watch", "routes", error.errno or 0) from error

    def _open(self, protocol: int, groups: int) -> socket.socket:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        opened = socket.socket(socket.AF_NETLINK, kind, protocol)
        try:
            # That something has changed is all that is read of it. Of a table that is filled by the
            # ten thousand, the kernel drops what does not fit.
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            opened.bind((0, groups))
        except OSError:
            opened.close()
            raise
        self._sockets.append(opened)
        return opened

    def close(self) -> None:
        """Close the sockets; idempotent."""
        for opened in self._sockets:
            opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def changed(self, settle: float) -> None:
        """Wait until something may have changed, and `settle` seconds for what changes with it."""
        async with trio.open_nursery() as nursery:

            async def wait(opened: socket.socket) -> None:
                await trio.lowlevel.wait_readable(opened)
                nursery.cancel_scope.cancel()

            for opened in self._sockets:
                nursery.start_soon(wait, opened)
        await trio.sleep(settle)
        self._drain()

    def _drain(self) -> None:
        for opened in self._sockets:
            while True:
                try:
                    opened.recv(_BUFFER)
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise HostError.from_errno("watch", "routes", error.errno or 0) from error
