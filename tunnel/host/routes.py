"""Routes through the interface: those that we add, and the kernel's own to connected networks.

The kernel's own come and go with the addresses. So they are in no record, and are added only if a
program deleted one alone: with the attributes that the kernel would have set, so that it treats
them as its own.
"""

import errno
from collections.abc import Iterable
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, Literal

from tunnel.host.errors import HostError
from tunnel.host.links import is_enslaved
from tunnel.host.rtnetlink import absent_is_fine, family, step
from tunnel.host.state import MAIN_TABLE, Connected, Route

_UNICAST = 1
_SCOPE_LINK = 253
_PROTO_BOOT = 3  # what `ip route add` sets
_SECONDARY = 0x01
_NO_PREFIX_ROUTE = 0x200  # linux/if_addr.h
_PROTO_KERNEL = 2
_METRIC_IPV6 = 256


def list_routes(netlink: Any, index: int) -> set[Route]:
    """The unicast routes through the interface, of all tables; the kernel's own included."""
    found = set()
    for version in (4, 6):
        for message in netlink.get_routes(family=family(version), oif=index):
            if message["type"] != _UNICAST or message.get_attr("RTA_OIF") != index:
                continue
            prefix = message.get_attr("RTA_DST") or ("0.0.0.0" if version == 4 else "::")
            network = ip_network(f"{prefix}/{message['dst_len']}")
            found.add(Route(network, int(message.get_attr("RTA_TABLE") or message["table"])))
    return found


def add_route(netlink: Any, index: int, route: Route) -> None:
    """Add one that is not there yet; one to the same network by another device is an error."""
    try:
        with step("add", route):
            netlink.route("add", **_route_fields(index, route))
    except HostError as error:
        if error.errno == errno.EEXIST:
            raise _taken(netlink, route) from error
        raise


def _taken(netlink: Any, route: Route) -> HostError:
    """The error for a route that is there already: who holds it, and what that means."""
    subject, network = str(route), route.destination
    version: Literal[4, 6] = 4 if network.version == 4 else 6
    # The whole table, which may be long: the kernel cannot be asked for one network of it.
    for message in netlink.get_routes(family=family(version), table=route.table):
        prefix = message.get_attr("RTA_DST") or ("0.0.0.0" if version == 4 else "::")
        if message["dst_len"] != network.prefixlen or ip_address(prefix) != network.network_address:
            continue
        index = message.get_attr("RTA_OIF")
        device = netlink.get_links(index)[0].get_attr("IFLA_IFNAME") if index else "no device"
        if message["proto"] == _PROTO_KERNEL:
            return HostError(
                "add",
                subject,
                f"File exists: {device} has an address in {network}, so this is a network that the "
                "host itself is in",
                f"take {network} out of AllowedIPs; to reach the network of the same numbers on "
                "the other side, one of the two must get others",
            )
        return HostError(
            "add",
            subject,
            f"File exists: {device} has this route already",
            f"take down what set it (ip route show {network}), or take {network} out of AllowedIPs",
        )
    return HostError.from_errno("add", subject, errno.EEXIST)


def remove_route(netlink: Any, index: int, route: Route) -> None:
    """Remove one, if it is there."""
    with step("remove", route), absent_is_fine():
        netlink.route("del", **_route_fields(index, route))


def has_routes(netlink: Any, table: int) -> bool:
    """Whether there is any route in that table, in either family."""
    return any(
        message.get_attr("RTA_TABLE") == table
        for version in (4, 6)
        for message in netlink.get_routes(family=family(version), table=table)
    )


def _route_fields(index: int, route: Route, *, proto: int = _PROTO_BOOT) -> dict[str, Any]:
    """The route as pyroute2's keyword arguments."""
    version = 4 if route.destination.version == 4 else 6
    fields: dict[str, Any] = {
        "family": family(4 if version == 4 else 6),
        # dst="default" with only oif is refused; a network of length 0 is not.
        "dst": str(route.destination),
        "oif": index,
        "table": route.table or MAIN_TABLE,
        "proto": proto,
    }
    if version == 4:
        fields["scope"] = _SCOPE_LINK
    return fields


def standing_connected(
    netlink: Any, index: int, wanted: Iterable[Connected], routes: Iterable[object]
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


def add_connected(netlink: Any, index: int, item: Connected) -> None:
    """Add one that is not there; others to the same network may stand beside it."""
    with step("add", item):
        particulars = _connected_reasons(netlink, index).get(item)
        if particulars is not None:  # else it went away together with its address
            netlink.route("append", **_connected_fields(index, item), **particulars)


def remove_connected(netlink: Any, index: int, item: Connected) -> None:
    """Remove one, if it is there."""
    with step("remove", item), absent_is_fine():
        netlink.route("del", **_connected_fields(index, item))


def _connected_reasons(netlink: Any, index: int) -> dict[Connected, dict[str, Any]]:
    """Each route that the kernel has a reason for, and what makes it the kernel's own.

    By its source and its metric the kernel knows the route when the address goes.
    """
    found: dict[Connected, dict[str, Any]] = {}
    for message in netlink.get_addr(index=index):
        flags = message.get_attr("IFA_FLAGS") or message["flags"]
        if flags & (_SECONDARY | _NO_PREFIX_ROUTE):
            continue
        text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        address = ip_interface(f"{text}/{message['prefixlen']}")
        is_v4 = address.version == 4
        particulars: dict[str, Any] = {"prefsrc": str(address.ip)} if is_v4 else {}
        metric = message.get_attr("IFA_RT_PRIORITY") or (0 if is_v4 else _METRIC_IPV6)
        if metric:
            particulars["priority"] = metric
        found.setdefault(Connected(address.network), particulars)
    return found


def _connected_fields(index: int, item: Connected) -> dict[str, Any]:
    return _route_fields(index, _connected_route(item), proto=_PROTO_KERNEL)


def _connected_route(item: Connected) -> Route:
    return Route(item.network, MAIN_TABLE)
