"""Routes by rtnetlink messages of our own: asked for, added and deleted.

A host may have routes by the hundred thousand, most of them not ours. pyroute2 reads a whole table
into objects, at 60 µs and 15 kB a route, to find the few that are wanted. Here the kernel is asked
for those alone (NETLINK_GET_STRICT_CHK, Linux 4.20), and what it sends is read as it comes. Numbers
are those of linux/rtnetlink.h.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator
from ipaddress import ip_network
from typing import Literal, NamedTuple

from tunnel.host.rtnetlink import family
from tunnel.host.state import Network
from tunnel.linux import netlink

UNICAST, LOCAL = 1, 2
PROTO_KERNEL, PROTO_BOOT = 2, 3

_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_EXCL, _CREATE, _APPEND = 0x200, 0x400, 0x800
_SOL_NETLINK, _STRICT_CHECK = 270, 12
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC = 1, 2, 4, 5, 6, 7
_RTA_METRICS, _RTA_MULTIPATH, _RTA_TABLE, _RTA_MARK, _RTA_VIA = 8, 9, 15, 16, 18
_RTAX_MTU = 2
_FIB_MATCH = 0x2000  # RTM_F_FIB_MATCH, Linux 4.13
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
# family, bits of destination and source, TOS, table, protocol, scope, type, flags
_RTMSG = struct.Struct("=BBBBBBBBI")
_NEXT_HOP = struct.Struct("=HBBi")  # struct rtnexthop: length, flags, hops, interface
_INT = struct.Struct("=I")
_BUFFER = 1 << 16

_NOTHING_THERE = frozenset({errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP})
"""What the kernel says to a dump where the table, the device or the family is not there."""


class RouteEntry(NamedTuple):
    """A route as the kernel has it. `destination` is packed, `bits` its prefix length.

    `gateway` is packed, too, and empty for a neighbour; for one of the other IP version the family
    comes before it. `devices` are the numbers of its interfaces, several for a multipath route;
    `mtu` is 0 unless the route has one of its own.
    """

    destination: bytes
    bits: int
    table: int
    protocol: int
    type: int
    metric: int
    mtu: int
    gateway: bytes
    devices: tuple[int, ...]

    @property
    def network(self) -> Network:
        """Where it leads to."""
        return ip_network((self.destination, self.bits))


def dump(version: Literal[4, 6], *, table: int = 0, device: int = 0) -> Iterator[RouteEntry]:
    """The routes of one IP version in the caller's namespace, of `table` and by `device` alone.

    0 stands for all. Raises OSError; of a table or device that is not there it gives nothing.
    """
    body = _RTMSG.pack(family(version), 0, 0, 0, 0, 0, _SCOPE_UNIVERSE, 0, 0)
    for kind, number in ((_RTA_TABLE, table), (_RTA_OIF, device)):
        if number:
            body += netlink.attribute(kind, _INT.pack(number))
    with _opened() as sock:
        sock.send(netlink.message(_RTM_GETROUTE, _REQUEST | _DUMP, body))
        while True:
            for kind, answer in netlink.messages(sock.recv(_BUFFER)):
                if kind in (_NLMSG_DONE, _NLMSG_ERROR):
                    _raise(answer, but=_NOTHING_THERE)
                    return
                if kind != _RTM_NEWROUTE:
                    continue
                entry = _route_untrusted(version, answer)
                # An older kernel sends all there are.
                if table in (0, entry.table) and (not device or device in entry.devices):
                    yield entry


def look_up(
    destination: bytes,
    *,
    source: bytes = b"",
    mark: int = 0,
    device: int = 0,
    as_stored: bool = False,
) -> RouteEntry:
    """The route of packets to `destination`, from our address `source` and with `mark` if given.

    Addresses are packed; `device` is the interface of a link-local destination. `as_stored` gives
    the entry of the table: to an address of ours it names the interface that has it, where packets
    go by the loopback interface. Raises OSError where no route leads there, or one that lets
    nothing through.
    """
    version: Literal[4, 6] = 4 if len(destination) == 4 else 6
    bits, flags = 8 * len(destination), _FIB_MATCH if as_stored else 0
    body = _RTMSG.pack(family(version), bits, 8 * len(source), 0, 0, 0, 0, 0, flags)
    body += netlink.attribute(_RTA_DST, destination)
    if source:
        body += netlink.attribute(_RTA_SRC, source)
    for kind, number in ((_RTA_OIF, device), (_RTA_MARK, mark)):
        if number:
            body += netlink.attribute(kind, _INT.pack(number))
    with _opened() as sock:
        sock.send(netlink.message(_RTM_GETROUTE, _REQUEST, body))
        for kind, answer in netlink.messages(sock.recv(_BUFFER)):
            if kind == _NLMSG_ERROR:
                _raise(answer)
            return _route_untrusted(version, answer)
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def add(
    network: Network,
    device: int,
    table: int,
    *,
    protocol: int = PROTO_BOOT,
    source: bytes = b"",
    metric: int = 0,
    beside: bool = False,
) -> None:
    """Add a route; `beside` others to the same network, if there are. Raises OSError."""
    body = _body(network, device, table, protocol)
    if source:
        body += netlink.attribute(_RTA_PREFSRC, source)
    if metric:
        body += netlink.attribute(_RTA_PRIORITY, _INT.pack(metric))
    _request(_RTM_NEWROUTE, _CREATE | (_APPEND if beside else _EXCL), body)


def delete(network: Network, device: int, table: int, *, protocol: int = PROTO_BOOT) -> None:
    """Delete a route. Raises OSError, with ESRCH or ENOENT if there is none."""
    _request(_RTM_DELROUTE, 0, _body(network, device, table, protocol))


def _body(network: Network, device: int, table: int, protocol: int) -> bytes:
    v4 = network.version == 4
    # A table above 255 stands in the attribute alone.
    head = _RTMSG.pack(
        family(4 if v4 else 6),
        network.prefixlen,
        0,
        0,
        table if table < 256 else 0,
        protocol,
        _SCOPE_LINK if v4 else _SCOPE_UNIVERSE,
        UNICAST,
        0,
    )
    return (
        head
        + netlink.attribute(_RTA_DST, network.network_address.packed)
        + netlink.attribute(_RTA_OIF, _INT.pack(device))
        + netlink.attribute(_RTA_TABLE, _INT.pack(table))
    )


def _request(kind: int, flags: int, body: bytes) -> None:
    with _opened() as sock:
        sock.send(netlink.message(kind, _REQUEST | _ACK | flags, body))
        for answered, answer in netlink.messages(sock.recv(_BUFFER)):
            if answered == _NLMSG_ERROR:
                _raise(answer)


def _opened() -> socket.socket:
    sock = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    )
    with contextlib.suppress(OSError):  # an older kernel, which sends more than it was asked for
        sock.setsockopt(_SOL_NETLINK, _STRICT_CHECK, 1)
    return sock


def _raise(answer: bytes, *, but: frozenset[int] = frozenset()) -> None:
    """Raise the error that an answer holds, unless it is 0 or one of `but`."""
    number = -struct.unpack_from("=i", answer)[0] if len(answer) >= 4 else 0
    if number and number not in but:
        raise OSError(number, os.strerror(number))


def _route_untrusted(version: Literal[4, 6], body: bytes) -> RouteEntry:
    if len(body) < _RTMSG.size:
        raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))
    _, bits, _, _, table, protocol, _, kind, _ = _RTMSG.unpack_from(body)
    destination = bytes(4 if version == 4 else 16)
    metric = mtu = 0
    gateway = b""
    devices: tuple[int, ...] = ()
    for attribute, value in netlink.attributes(body[_RTMSG.size :]):
        if attribute == _RTA_DST and len(value) == len(destination):
            destination = value
        elif attribute == _RTA_OIF:
            devices = (int.from_bytes(value, sys.byteorder),)
        elif attribute == _RTA_TABLE:
            table = int.from_bytes(value, sys.byteorder)
        elif attribute == _RTA_PRIORITY:
            metric = int.from_bytes(value, sys.byteorder)
        elif attribute == _RTA_METRICS:
            mtu = int.from_bytes(dict(netlink.attributes(value)).get(_RTAX_MTU, b""), sys.byteorder)
        elif attribute in (_RTA_GATEWAY, _RTA_VIA):
            gateway = value
        elif attribute == _RTA_MULTIPATH:
            devices = tuple(_next_hops(value))
    return RouteEntry(destination, bits, table, protocol, kind, metric, mtu, gateway, devices)


def _next_hops(value: bytes) -> Iterator[int]:
    start = 0
    while start + _NEXT_HOP.size <= len(value):
        length, _, _, device = _NEXT_HOP.unpack_from(value, start)
        if length < _NEXT_HOP.size:
            return
        yield device
        start += (length + 3) & ~3
