"""The kernel's own routes to the networks of the interface's addresses.

They come and go with the address. So they are in no record, and are added only where somebody
deleted one alone: as the kernel would have, that it takes them for its own.
"""

from collections.abc import Iterable
from ipaddress import ip_interface
from typing import Any

from tunnel.host.links import is_enslaved
from tunnel.host.routes import route_fields
from tunnel.host.rtnetlink import absent_is_fine, step
from tunnel.host.state import MAIN_TABLE, Connected, Route

_SECONDARY = 0x01
_NO_PREFIX_ROUTE = 0x200  # linux/if_addr.h
_PROTO_KERNEL = 2
_METRIC_IPV6 = 256


def standing(
    netlink: Any, index: int, wanted: Iterable[Connected], routes: Iterable[object]
) -> set[Connected]:
    """Those of `wanted` that nobody has to add, `routes` being those through the interface.

    Either they are there, or the kernel has no reason for them: their address is not there, or has
    the flag noprefixroute; or a VRF keeps them in its table.
    """
    there = set(routes)
    lacking = [item for item in wanted if _route(item) not in there]
    if not lacking or is_enslaved(netlink, index):
        return set(wanted)
    due = _reasons(netlink, index)
    return {item for item in wanted if item not in lacking or item not in due}


def add_connected(netlink: Any, index: int, item: Connected) -> None:
    """Add one that is not there; others to the same network may stand beside it."""
    with step("add", item):
        particulars = _reasons(netlink, index).get(item)
        if particulars is not None:  # else it went away together with its address
            netlink.route("append", **_fields(index, item), **particulars)


def remove_connected(netlink: Any, index: int, item: Connected) -> None:
    """Remove one, if it is there."""
    with step("remove", item), absent_is_fine():
        netlink.route("del", **_fields(index, item))


def _reasons(netlink: Any, index: int) -> dict[Connected, dict[str, Any]]:
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


def _fields(index: int, item: Connected) -> dict[str, Any]:
    return route_fields(index, _route(item), proto=_PROTO_KERNEL)


def _route(item: Connected) -> Route:
    return Route(item.network, MAIN_TABLE)
