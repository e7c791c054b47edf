"""The MTU of the tunnel, computed as wg-quick(8) does: from the paths to the endpoints."""

import errno
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

from tunnel.host.rtnetlink import absent_is_fine, family, find_ifindex, inside, rtnetlink, step
from tunnel.host.state import MAIN_TABLE, IpAddress

OVERHEAD = 80
"""IPv6 header 40, UDP header 8, WireGuard transport header and tag 32."""
FALLBACK = 1500
# No route, and the three kinds of routes which lead nowhere on purpose.
_UNREACHABLE = frozenset(
    {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL, errno.ESRCH}
)


def choose_mtu(endpoints: Iterable[int | None], default_route: int | None) -> int:
    """The inner MTU for these outer ones (None = unknown), in bytes.

    The smallest over the routes to the endpoints, else that of the default route, else 1500; each
    minus the overhead.
    """
    known = [mtu for mtu in endpoints if mtu]
    outer = min(known) if known else default_route or FALLBACK
    return outer - OVERHEAD


def compute_mtu(
    endpoints: Iterable[IpAddress],
    *,
    interface: str | None = None,
    mark: int = 0,
    netns: Path | str | None = None,
) -> int:
    """The inner MTU for a tunnel to these endpoints, from the routes of the machine now.

    Routes through `interface` (the tunnel itself, when it is up already) do not count; `mark` is
    the fwmark of our UDP, which a full tunnel routes by.
    """
    with inside(netns), rtnetlink() as netlink, step("find", "the route to the endpoints"):
        own = find_ifindex(netlink, interface) if interface else None
        return choose_mtu(
            [_endpoint_mtu(netlink, address, mark, own) for address in endpoints],
            _default_route_mtu(netlink, own),
        )


def _endpoint_mtu(netlink: Any, address: IpAddress, mark: int, own: int | None) -> int | None:
    marked = {"mark": mark} if mark else {}
    replies: list[Any] = []
    with absent_is_fine(_UNREACHABLE):
        replies = list(netlink.route("get", dst=str(ip_address(address)), **marked))
    return _smallest(_route_mtu(netlink, reply, own) for reply in replies)


def _default_route_mtu(netlink: Any, own: int | None) -> int | None:
    versions: tuple[Literal[4, 6], ...] = (4, 6)
    for version in versions:
        defaults = [
            route
            for route in netlink.get_routes(family=family(version), table=MAIN_TABLE)
            if route["dst_len"] == 0 and route.get_attr("RTA_TABLE") == MAIN_TABLE
        ]
        # The kernel uses the one of the lowest metric.
        defaults.sort(key=lambda route: route.get_attr("RTA_PRIORITY") or 0)
        for route in defaults:
            mtu = _route_mtu(netlink, route, own)
            if mtu:
                return mtu
    return None


def _route_mtu(netlink: Any, route: Any, own: int | None) -> int | None:
    """The route's own MTU, else that of its device (the smallest of several)."""
    devices = {route.get_attr("RTA_OIF")}
    devices |= {hop["oif"] for hop in route.get_attr("RTA_MULTIPATH") or ()}
    devices -= {None, own}
    if not devices:
        return None
    metrics = route.get_attr("RTA_METRICS")
    if metrics is not None and metrics.get_attr("RTAX_MTU"):
        return int(metrics.get_attr("RTAX_MTU"))
    return _smallest(
        int(link.get_attr("IFLA_MTU")) for device in devices for link in netlink.get_links(device)
    )


def _smallest(values: Iterable[int | None]) -> int | None:
    return min((value for value in values if value), default=None)
