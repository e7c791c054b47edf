"""Routes through the interface, and the free place for a full tunnel's default route."""

from ipaddress import ip_network
from pathlib import Path
from typing import Any

from tunnel.host.namespaces import inside
from tunnel.host.rtnetlink import absent_is_fine, family, rtnetlink, step
from tunnel.host.state import (
    BYPASS_PRIORITY,
    FIRST_MARK,
    MAIN_TABLE,
    MARK_PRIORITY,
    DefaultRouteSlot,
    Route,
)

_UNICAST = 1
_SCOPE_LINK = 253
_PROTO_BOOT = 3  # what `ip route add` sets
_LAST_MARK = 0xFFFFFFFE


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
        netlink.route("add", **_fields(index, route))


def remove_route(netlink: Any, index: int, route: Route) -> None:
    """Remove one, if it is there."""
    with step("remove", route), absent_is_fine():
        netlink.route("del", **_fields(index, route))


def find_default_route_slot(*, netns: Path | str | None = None) -> DefaultRouteSlot:
    """A free mark and rule priority for a full tunnel.

    The mark is the first number from 51820 whose table is empty in both families. The priority
    goes before that of every full tunnel already there: as with wg-quick, the newest one carries
    the traffic, and when it is taken down the one before it does again.
    """
    with inside(netns), rtnetlink() as netlink, step("find", "a free routing table"):
        rules = [rule for version in (4, 6) for rule in netlink.get_rules(family=family(version))]
        # A tunnel between its rules and its routes has an empty table which is taken all the same.
        taken = {int(rule.get_attr("FRA_TABLE") or 0) for rule in rules}
        mark = FIRST_MARK
        while mark < _LAST_MARK and (mark in taken or _has_routes(netlink, mark)):
            mark += 1
        used = [
            int(rule.get_attr("FRA_PRIORITY") or 0)
            for rule in rules
            if rule.get_attr("FRA_FWMARK") is not None
            or rule.get_attr("FRA_SUPPRESS_PREFIXLEN") == 0
        ]
    window = [number for number in used if BYPASS_PRIORITY + 2 < number <= MARK_PRIORITY]
    priority = min(window) - 1 if window else MARK_PRIORITY
    return DefaultRouteSlot(mark, max(priority, BYPASS_PRIORITY + 2))


def _has_routes(netlink: Any, table: int) -> bool:
    return any(
        message.get_attr("RTA_TABLE") == table
        for version in (4, 6)
        for message in netlink.get_routes(family=family(version), table=table)
    )


def _fields(index: int, route: Route) -> dict[str, Any]:
    version = 4 if route.destination.version == 4 else 6
    fields: dict[str, Any] = {
        "family": family(4 if version == 4 else 6),
        # dst="default" with only oif is refused; a network of length 0 is not.
        "dst": str(route.destination),
        "oif": index,
        "table": route.table or MAIN_TABLE,
        "proto": _PROTO_BOOT,
    }
    if version == 4:
        fields["scope"] = _SCOPE_LINK
    return fields
