"""Routes through the interface: those that we add, and the kernel's own to connected networks.

The kernel's own come and go with the addresses. So they are in no record, and are added only if a
program deleted one alone: with the attributes that the kernel would have set, so that it treats
them as its own.
"""

import errno
from collections.abc import Iterable
from ipaddress import ip_interface
from pathlib import Path

from tunnel.host import route_messages
from tunnel.host.errors import HostError
from tunnel.host.iproute import IPRoute
from tunnel.host.links import is_enslaved
from tunnel.host.rtnetlink import (
    VERSIONS,
    absent_is_fine,
    find_ifindex,
    inside,
    rtnetlink,
    step,
)
from tunnel.host.state import MAIN_TABLE, Connected, Network, Route

_SECONDARY = 0x01
_NO_PREFIX_ROUTE = 0x200  # linux/if_addr.h
_METRIC_IPV6 = 256
_OUR_METRIC = {4: 0, 6: 1024}
"""What the kernel gives routes that are added without one, by IP version (linux/ipv6_route.h)."""


def list_routes(index: int) -> set[Route]:
    """The unicast routes through the interface, of all tables; the kernel's own included."""
    return {
        Route(entry.network, entry.table)
        for version in VERSIONS
        for entry in route_messages.dump(version, device=index)
        if entry.type == route_messages.UNICAST and entry.devices == (index,)
    }


def has_default_way(networks: Iterable[Network], interface: str, netns: Path | str) -> bool:
    """Whether the namespace has a default route past the interface, for a version in which
    `networks` have one, too.
    """
    versions = {4 if each.version == 4 else 6 for each in networks if not each.prefixlen}
    with inside(netns), rtnetlink() as netlink:
        own = find_ifindex(netlink, interface)
        return any(
            not entry.network.prefixlen
            and entry.type == route_messages.UNICAST
            and own not in entry.devices
            for version in VERSIONS
            if version in versions
            for entry in route_messages.dump(version, table=MAIN_TABLE)
        )


def add_route(netlink: IPRoute, index: int, route: Route) -> None:
    """Add one that is not there yet; one to the same network by another device is an error."""
    try:
        with step("add", route):
            route_messages.add(route.destination, index, route.table or MAIN_TABLE)
    except HostError as error:
        if error.errno == errno.EEXIST:
            raise (find_taken(netlink, [route]) or [error])[0] from error
        raise


def find_taken(netlink: IPRoute, wanted: Iterable[Route]) -> list[HostError]:
    """The errors of `add_route` for those that are there already: who holds them."""
    found = []
    by_place = {(route.table, route.destination): route for route in wanted}
    # Whole tables: the kernel cannot be asked for one network of them.
    for version, table in {(net.version, table) for table, net in by_place}:
        for entry in route_messages.dump(4 if version == 4 else 6, table=table):
            if entry.metric != _OUR_METRIC[version]:
                continue  # it may stand beside ours
            route = by_place.pop((table, entry.network), None)
            if route is not None:
                found.append(_taken(netlink, route, entry))
    return found


def _taken(netlink: IPRoute, route: Route, entry: route_messages.RouteEntry) -> HostError:
    subject, network = str(route), route.destination
    index = entry.devices[0] if entry.devices else 0
    device = netlink.link("get", index=index)[0].get_attr("IFLA_IFNAME") if index else "no device"
    if entry.protocol == route_messages.PROTO_KERNEL:
        return HostError(
            "add",
            subject,
            f"File exists: {device} has an address in {network}, so this is a network that the "
            "host itself is in",
            f"take {network} out of AllowedIPs; to reach a network with the same addresses "
            "on the other side, renumber one of the two",
        )
    return HostError(
        "add",
        subject,
        f"File exists: {device} has this route already",
        f"take down what set it (ip route show {network}), or take {network} out of AllowedIPs",
    )


def remove_route(index: int, route: Route) -> None:
    """Remove one, if it is there."""
    with step("remove", route), absent_is_fine():
        route_messages.delete(route.destination, index, route.table or MAIN_TABLE)


def has_routes(table: int) -> bool:
    """Whether there is any route in that table, in either family."""
    return any(any(route_messages.dump(version, table=table)) for version in VERSIONS)


def standing_connected(
    netlink: IPRoute, index: int, wanted: Iterable[Connected], routes: Iterable[object]
) -> set[Connected]:
    """Those of `wanted` that need not be added, `routes` being those through the interface.

    Either they are there, or the kernel has no reason for them: their address is missing or has the
    flag noprefixroute, or a VRF keeps them in its table.
    """
    there = set(routes)
    lacking = [item for item in wanted if _connected_route(item) not in there]
    if not lacking or is_enslaved(netlink, index):
        return set(wanted)
    due = _connected_reasons(netlink, index)
    return {item for item in wanted if item not in lacking or item not in due}


def add_connected(netlink: IPRoute, index: int, item: Connected) -> None:
    """Add one that is not there; others to the same network may stand beside it."""
    with step("add", item):
        particulars = _connected_reasons(netlink, index).get(item)
        if particulars is not None:  # else it went away together with its address
            source, metric = particulars
            route_messages.add(
                item.network,
                index,
                MAIN_TABLE,
                protocol=route_messages.PROTO_KERNEL,
                source=source,
                metric=metric,
                beside=True,
            )


def remove_connected(index: int, item: Connected) -> None:
    """Remove one, if it is there."""
    with step("remove", item), absent_is_fine():
        route_messages.delete(item.network, index, MAIN_TABLE, protocol=route_messages.PROTO_KERNEL)


def _connected_reasons(netlink: IPRoute, index: int) -> dict[Connected, tuple[bytes, int]]:
    """Each route that the kernel has a reason for, and what makes it the kernel's own.

    By its source (packed) and its metric the kernel knows the route when the address goes.
    """
    found: dict[Connected, tuple[bytes, int]] = {}
    for message in netlink.addr("dump", index=index):
        flags = message.get_attr("IFA_FLAGS") or message["flags"]
        if flags & (_SECONDARY | _NO_PREFIX_ROUTE):
            continue
        text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        address = ip_interface(f"{text}/{message['prefixlen']}")
        is_v4 = address.version == 4
        metric = message.get_attr("IFA_RT_PRIORITY") or (0 if is_v4 else _METRIC_IPV6)
        source = address.ip.packed if is_v4 else b""
        found.setdefault(Connected(address.network), (source, int(metric)))
    return found


def _connected_route(item: Connected) -> Route:
    return Route(item.network, MAIN_TABLE)
