"""The kernel's own routes to the networks of the interface's addresses.

They come and go with the address. So they are in no record, and are added only where somebody
deleted one alone: as the kernel would have, that it takes them for its own.
"""

from collections.abc import Iterable
from ipaddress import ip_interface
from typing import Any

from tunnel.host.links import is_enslaved
from tunnel.host.rtnetlink import absent_is_fine, family, step
from tunnel.host.state import MAIN_TABLE, Connected, IpAddress, Route

_SECONDARY = 0x01
_NO_PREFIX_ROUTE = 0x200  # linux/if_addr.h
_SCOPE_LINK = 253
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
    lacking = [item for item in wanted if Route(item.network, MAIN_TABLE) not in there]
    if not lacking or is_enslaved(netlink, index):
        return set(wanted)
    due = _sources(netlink, index)
    return {item for item in wanted if item not in lacking or item not in due}


def add_connected(netlink: Any, index: int, item: Connected) -> None:
    """Add one that is not there; others to the same network may stand beside it."""
    with step("add", item):
        source = _sources(netlink, index).get(item)
        if source is not None:  # else it went away together with its address
            netlink.route("append", **_fields(index, item), **_particulars(source))


def remove_connected(netlink: Any, index: int, item: Connected) -> None:
    """Remove one, if it is there."""
    with step("remove", item), absent_is_fine():
        netlink.route("del", **_fields(index, item))


def _sources(netlink: Any, index: int) -> dict[Connected, IpAddress]:
    """Each route that the kernel has a reason for, and the address that it is for."""
    found: dict[Connected, IpAddress] = {}
    for message in netlink.get_addr(index=index):
        flags = message.get_attr("IFA_FLAGS") or message["flags"]
        if flags & (_SECONDARY | _NO_PREFIX_ROUTE):
            continue
        text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        address = ip_interface(f"{text}/{message['prefixlen']}")
        found.setdefault(Connected(address.network), address.ip)
    return found


def _particulars(source: IpAddress) -> dict[str, Any]:
    # By its source the kernel knows the route when an IPv4 address goes.
    return {"prefsrc": str(source)} if source.version == 4 else {"priority": _METRIC_IPV6}


def _fields(index: int, item: Connected) -> dict[str, Any]:
    version = 4 if item.network.version == 4 else 6
    fields: dict[str, Any] = {
        "family": family(4 if version == 4 else 6),
        "dst": str(item.network),
        "oif": index,
        "table": MAIN_TABLE,
        "proto": _PROTO_KERNEL,
    }
    if version == 4:
        fields["scope"] = _SCOPE_LINK
    return fields
