"""Addresses of the interface."""

from ipaddress import ip_interface
from typing import Any

from tunnel.host.rtnetlink import absent_is_fine, family, step
from tunnel.host.state import Address


def list_addresses(netlink: Any, index: int) -> set[Address]:
    """The addresses that the interface has now, IPv6 link-local ones included."""
    found = set()
    for message in netlink.get_addr(index=index):
        # IFA_LOCAL is ours on a point-to-point link; IPv6 has only IFA_ADDRESS there.
        text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        found.add(Address(ip_interface(f"{text}/{message['prefixlen']}")))
    return found


def add_address(netlink: Any, index: int, address: Address) -> None:
    """Add one that is not there yet."""
    with step("add", address):
        netlink.addr("add", **_fields(index, address))


def remove_address(netlink: Any, index: int, address: Address) -> None:
    """Remove one, if it is there."""
    with step("remove", address), absent_is_fine():
        netlink.addr("del", **_fields(index, address))


def _fields(index: int, address: Address) -> dict[str, Any]:
    value = address.value
    return {
        "index": index,
        "family": family(4 if value.version == 4 else 6),
        "address": str(value.ip),
        "prefixlen": value.network.prefixlen,
    }
