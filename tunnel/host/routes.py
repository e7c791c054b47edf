"""Routes through the interface, and whether a table has any."""

from ipaddress import ip_network
from typing import Any

from tunnel.host.rtnetlink import absent_is_fine, family, step
from tunnel.host.state import MAIN_TABLE, Route

_UNICAST = 1
_SCOPE_LINK = 253
_PROTO_BOOT = 3  # what `ip route add` sets


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
    with step("add", route):
        netlink.route("add", **route_fields(index, route))


def remove_route(netlink: Any, index: int, route: Route) -> None:
    """Remove one, if it is there."""
    with step("remove", route), absent_is_fine():
        netlink.route("del", **route_fields(index, route))


def has_routes(netlink: Any, table: int) -> bool:
    """Whether anybody has a route in that table, in either family."""
    return any(
        message.get_attr("RTA_TABLE") == table
        for version in (4, 6)
        for message in netlink.get_routes(family=family(version), table=table)
    )


def route_fields(index: int, route: Route, *, proto: int = _PROTO_BOOT) -> dict[str, Any]:
    """What says which route is meant, in pyroute2's words."""
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
