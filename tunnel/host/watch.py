"""What happens to the tunnel's interface from outside: rtnetlink's link events, on trio.

The messages are struct ifinfomsg and a list of attributes, see rtnetlink(7). pyroute2 is not used
here because it brings its own event loop.
"""

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import trio

from tunnel.host.errors import HostError
from tunnel.host.rtnetlink import inside
from tunnel.linux import netlink

_RTMGRP_LINK = 1
_NLMSG_ERROR = 2
_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_NLM_F_REQUEST = 1
_IFLA_IFNAME, _IFLA_MTU = 3, 4
_IFLA_NEW_NETNSID = 45
_IFF_UP = 1
_IFINFO = struct.Struct("=BxHiII")  # family, type, index, flags, change
_BUFFER = 65536


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """The interface as it is now: `mtu` in bytes, `up` as an administrator sets it."""

    name: str
    mtu: int
    up: bool


@dataclass(frozen=True, slots=True)
class LinkGone:
    """The interface was deleted, or `moved` to another network namespace."""

    moved: bool


LinkEvent = LinkStatus | LinkGone


def watch_link(index: int, *, netns: Path | str | None = None) -> "LinkWatch":
    """Watch the interface of that number in the namespace (None: the caller's).

    Raises HostError when the kernel refuses. Use it so:

        with watch_link(index) as events:
            async for event in events: ...
    """
    with inside(netns):
        try:
            return LinkWatch(index)
        except OSError as error:
            raise HostError.from_errno("watch link", str(index), error.errno or 0) from error


class LinkWatch:
    """The events of one interface, as an asynchronous iterator.

    The first event says how the interface is; then comes one for every change of name, MTU or
    up/down. After LinkGone the iteration ends. Nothing is missed: when the kernel had to drop
    messages, the interface is queried again.
    """

    def __init__(self, index: int) -> None:
        self._index = index
        self._last: LinkEvent | None = None
        self._pending: list[LinkEvent] = []
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._lost = False
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        try:
            self._socket.setblocking(False)
            self._socket.bind((0, _RTMGRP_LINK))
            # Asked for after subscribing, so that no change falls in between.
            self._socket.send(_request(index))
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Stop watching; a task waiting for an event gets trio.ClosedResourceError."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> LinkEvent:
        if isinstance(self._last, LinkGone):
            raise StopAsyncIteration
        await trio.lowlevel.checkpoint()
        while not self._pending:
            await self._receive()
        self._last = self._pending.pop(0)
        return self._last

    async def _receive(self) -> None:
        try:
            data, sender = self._socket.recvfrom(_BUFFER)
        except BlockingIOError:
            if self._lost:
                # Not before: while the queue is full the kernel would drop the answer as well.
                self._lost = False
                self._socket.send(_request(self._index))
            await trio.lowlevel.wait_readable(self._socket)
            return
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                self._lost = True
                return
            raise HostError.from_errno("watch link", str(self._index), error.errno or 0) from error
        if sender[0] != 0:
            return  # another process, not the kernel
        for event in parse_link_messages(data, self._index):
            if event != (self._pending[-1] if self._pending else self._last):
                self._pending.append(event)


def parse_link_messages(data: bytes, index: int) -> Iterator[LinkEvent]:
    """The events that a datagram from the kernel holds for the interface of that number."""
    for kind, body in netlink.messages(data):
        event = _parse_one(kind, body, index)
        if event is not None:
            yield event


def _parse_one(kind: int, body: bytes, index: int) -> LinkEvent | None:
    if kind == _NLMSG_ERROR and len(body) >= 4:
        code = -struct.unpack_from("=i", body)[0]
        return LinkGone(moved=False) if code == errno.ENODEV else None
    if kind not in (_RTM_NEWLINK, _RTM_DELLINK) or len(body) < _IFINFO.size:
        return None
    family, _, which, flags, _ = _IFINFO.unpack_from(body)
    # A bridge reports its ports by the same messages, with its own family.
    if which != index or family != socket.AF_UNSPEC:
        return None
    attributes = dict(netlink.attributes(body[_IFINFO.size :]))
    if kind == _RTM_DELLINK:
        return LinkGone(moved=_IFLA_NEW_NETNSID in attributes)
    name = os.fsdecode(attributes.get(_IFLA_IFNAME, b"").rstrip(b"\0"))
    mtu = int.from_bytes(attributes.get(_IFLA_MTU, b""), sys.byteorder)
    return LinkStatus(name, mtu, bool(flags & _IFF_UP))


def _request(index: int) -> bytes:
    body = _IFINFO.pack(socket.AF_UNSPEC, 0, index, 0, 0)
    return netlink.message(_RTM_GETLINK, _NLM_F_REQUEST, body)
