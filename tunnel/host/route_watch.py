"""By which way packets leave: asked of the kernel for one destination, and when that may change.

Answers to RTM_GETROUTE come with the request itself, so nothing here waits but `changed`. See
rtnetlink(7); numbers are those of linux/rtnetlink.h.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import sys
from typing import NamedTuple, Self

import trio

from tunnel.host.errors import HostError
from tunnel.linux import netlink

_GROUPS = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400
"""RTMGRP_LINK, and IFADDR, ROUTE of both families, RULE of IPv4. A link that goes down takes its
routes along without a message for each."""
_RTNLGRP_IPV6_RULE, _RTNLGRP_NEXTHOP = 19, 32
_NETLINK_ADD_MEMBERSHIP = 1
_SOL_NETLINK = 270

_NLMSG_ERROR = 2
_RTM_GETROUTE = 26
_NLM_F_REQUEST = 1
_RTN_LOCAL = 2
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_GATEWAY, _RTA_MARK, _RTA_VIA = 1, 2, 4, 5, 16, 18
# family, bits of destination and source, TOS, table, protocol, scope, type, flags
_RTMSG = struct.Struct("=BBBBBBBBI")
_INT = struct.Struct("=I")
_BUFFER = 65536


class NextHop(NamedTuple):
    """Where the kernel sends packets: by which interface, and over which gateway (packed, empty
    for a neighbour). `error` is an errno where it sends none, else 0.
    """

    ifindex: int = 0
    gateway: bytes = b""
    is_local: bool = False
    error: int = 0


class RouteWatch:
    """The routes of the network namespace it is made in; use as a context manager.

    Raises HostError when the kernel refuses a socket.
    """

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        with contextlib.ExitStack() as undo:
            try:
                self._events = undo.enter_context(
                    socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
                )
                self._queries = undo.enter_context(
                    socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
                )
                # That something has changed is all that is read of it. Of a table that is filled
                # by the ten thousand, the kernel drops what does not fit.
                self._events.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
                self._events.bind((0, _GROUPS))
                for group in (_RTNLGRP_IPV6_RULE, _RTNLGRP_NEXTHOP):
                    with contextlib.suppress(OSError):  # a kernel without the family, or older
                        self._events.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
                self._queries.bind((0, 0))
            except OSError as error:
                raise HostError.from_errno("watch", "routes", error.errno or 0) from error
            undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._events.close()
        self._queries.close()

    async def changed(self) -> None:
        """Wait until a route, rule, address or link may have changed, and forget that it has."""
        await trio.lowlevel.wait_readable(self._events)
        self.drain()

    def drain(self) -> None:
        """Forget the changes so far."""
        while True:
            try:
                self._events.recv(_BUFFER)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise HostError.from_errno("watch", "routes", error.errno or 0) from error

    def look_up(
        self, destination: bytes, *, source: bytes | None = None, mark: int = 0, ifindex: int = 0
    ) -> NextHop:
        """The route of packets to `destination`, from `source` and with `mark` if given.

        Addresses are packed; `ifindex` is the interface of a link-local destination.
        """
        bits = 8 * len(destination)
        family = socket.AF_INET if bits == 32 else socket.AF_INET6
        body = _RTMSG.pack(family, bits, bits if source else 0, 0, 0, 0, 0, 0, 0)
        body += netlink.attribute(_RTA_DST, destination)
        if source is not None:
            body += netlink.attribute(_RTA_SRC, source)
        for kind, number in ((_RTA_OIF, ifindex), (_RTA_MARK, mark)):
            if number:
                body += netlink.attribute(kind, _INT.pack(number))
        try:
            self._queries.send(netlink.message(_RTM_GETROUTE, _NLM_F_REQUEST, body))
            answer = self._queries.recv(_BUFFER)
        except OSError as error:
            return NextHop(error=error.errno or errno.EIO)
        for kind, found in netlink.messages(answer):
            return parse_route(kind, found)
        return NextHop(error=errno.EIO)


def parse_route(kind: int, body: bytes) -> NextHop:
    """The answer to RTM_GETROUTE, of message type `kind`."""
    if kind == _NLMSG_ERROR and len(body) >= 4:
        return NextHop(error=-struct.unpack_from("=i", body)[0] or errno.EIO)
    if len(body) < _RTMSG.size:
        return NextHop(error=errno.EIO)
    is_local = _RTMSG.unpack_from(body)[7] == _RTN_LOCAL
    found = dict(netlink.attributes(body[_RTMSG.size :]))
    ifindex = int.from_bytes(found.get(_RTA_OIF, b""), sys.byteorder)
    # RTA_VIA is a gateway of the other family, with the family before it.
    gateway = found.get(_RTA_GATEWAY) or found.get(_RTA_VIA, b"")
    return NextHop(ifindex, gateway, is_local)
