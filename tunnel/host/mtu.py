"""The MTU of the tunnel, computed as wg-quick(8) does: from the paths to the endpoints.

But of a peer that is reached by a relay on this host (udp2raw, wstunnel), the loopback interface
says nothing: its 65536 bytes are not those of the path that the relay takes.
"""

import errno
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from tunnel.host.iproute import IPRoute
from tunnel.host.route_messages import LOCAL, RouteEntry, dump, look_up
from tunnel.host.rtnetlink import VERSIONS, find_ifindex, inside, rtnetlink, step
from tunnel.host.state import MAIN_TABLE, IpAddress

OVERHEAD = 80
"""IPv6 header 40, UDP header 8, WireGuard transport header and tag 32."""
FALLBACK = 1500
# No route, and the three kinds of routes which lead nowhere on purpose.
_UNREACHABLE = frozenset(
    {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL, errno.ESRCH}
)


def choose_mtu(endpoints: Iterable[int | None], default_route: Callable[[], int | None]) -> int:
    """The inner MTU for these outer ones (None = unknown), in bytes.

    The smallest over the routes to the endpoints, else that of the default route, else 1500; each
    minus the overhead.
    """
    return (_smallest(endpoints) or default_route() or FALLBACK) - OVERHEAD


def compute_mtu(
    endpoints: Iterable[IpAddress],
    *,
    interface: str | None = None,
    mark: int = 0,
    netns: Path | str | None = None,
) -> int:
    """The inner MTU for a tunnel to these endpoints, in bytes, from the machine's routes now.

    Routes through `interface` (the tunnel itself, when it is up already) do not count; `mark` is
    the fwmark of our UDP, which a full tunnel routes by.
    """
    with inside(netns), rtnetlink() as netlink, step("find", "the route to the endpoints"):
        own = find_ifindex(netlink, interface) if interface else None
        return choose_mtu(
            [_endpoint_mtu(netlink, address, mark, own) for address in endpoints],
            partial(_default_route_mtu, netlink, own),
        )


def _endpoint_mtu(netlink: IPRoute, address: IpAddress, mark: int, own: int | None) -> int | None:
    try:
        route = look_up(address.packed, mark=mark)
    except OSError as error:
        if error.errno in _UNREACHABLE:
            return None
        raise
    return _route_mtu(netlink, route, own)


def _default_route_mtu(netlink: IPRoute, own: int | None) -> int | None:
    for version in VERSIONS:
        defaults = [entry for entry in dump(version, table=MAIN_TABLE) if not entry.bits]
        # The kernel uses the one of the lowest metric.
        for entry in sorted(defaults, key=lambda entry: entry.metric):
            mtu = _route_mtu(netlink, entry, own)
            if mtu:
                return mtu
    return None


def _route_mtu(netlink: IPRoute, route: RouteEntry, own: int | None) -> int | None:
    """The route's own MTU, else that of its device (the smallest of several); 1500 to ourselves."""
    devices = set(route.devices) - {own}
    if not devices:
        return None
    if route.mtu:
        return route.mtu
    if route.type == LOCAL:
        return FALLBACK
    return _smallest(
        int(link.get_attr("IFLA_MTU"))
        for device in devices
        for link in netlink.link("get", index=device)
    )


def _smallest(values: Iterable[int | None]) -> int | None:
    return min((value for value in values if value), default=None)
