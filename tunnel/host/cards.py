"""The interface of a container: moved into its namespace, given a name, addresses and routes.

All functions block and raise HostError.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path

from tunnel.host import route_messages
from tunnel.host.gateway import IpAddress, Network
from tunnel.host.iproute import IPRoute
from tunnel.host.links import add_address, list_addresses, read_link, require_ifindex
from tunnel.host.rtnetlink import VERSIONS, family, find_ifindex, inside, rtnetlink, step
from tunnel.host.state import MAIN_TABLE, Address

IFA_F_NODAD = 0x02  # linux/if_addr.h


@dataclass(frozen=True, slots=True)
class Card:
    """A container's interface as it should be; each route has its next hop."""

    name: str
    addresses: tuple[IPv4Interface | IPv6Interface, ...]
    routes: tuple[tuple[Network, IpAddress], ...]


def give_card(inner: str, card: Card, netns: Path | str) -> str:
    """Move the interface `inner` into a namespace and set it up there; its MAC address."""
    with inside(netns):
        there = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with rtnetlink() as netlink, step("move", f"{inner} into {netns} as {card.name}"):
            index = require_ifindex(netlink, inner)
            netlink.link("set", index=index, net_ns_fd=there, ifname=card.name)
    finally:
        os.close(there)
    with inside(netns), rtnetlink() as netlink, step("set up", f"{card.name} in {netns}"):
        index = require_ifindex(netlink, card.name)
        for address in card.addresses:
            _add_address(netlink, index, address)
        netlink.link("set", index=index, state="up")
        for network, gateway in card.routes:
            netlink.route(
                "replace",
                dst=str(network),
                gateway=str(gateway),
                oif=index,
                family=family(4 if network.version == 4 else 6),
            )
        return str(netlink.link("get", index=index)[0].get_attr("IFLA_ADDRESS"))


def _add_address(netlink: IPRoute, index: int, address: IPv4Interface | IPv6Interface) -> None:
    if address.version == 4:
        add_address(netlink, index, Address(address))
        return
    # The IPAM plugin vouches for it; else it could not be used for the first second.
    netlink.addr(
        "add",
        index=index,
        family=family(6),
        address=str(address.ip),
        prefixlen=address.network.prefixlen,
        flags=IFA_F_NODAD,
    )


def card_faults(card: Card, netns: Path | str) -> Iterator[str]:
    """What is not as it should be with a container's interface, in words."""
    with inside(netns), rtnetlink() as netlink, step("look at", f"{card.name} in {netns}"):
        index = find_ifindex(netlink, card.name)
        if index is None:
            yield f"the container has no interface {card.name}"
            return
        if not read_link(netlink, index)[1]:
            yield f"{card.name} is down in the container"
        there = {each.value for each in list_addresses(netlink, index)}
        yield from (f"{card.name} lacks {each}" for each in card.addresses if each not in there)
        routed = {
            entry.network
            for version in VERSIONS
            for entry in route_messages.dump(version, table=MAIN_TABLE)
            if index in entry.devices
        }
        yield from (
            f"the container has no route to {network} by {card.name}"
            for network, _ in card.routes
            if network not in routed
        )


def plugged_into(bridge: str) -> list[str]:
    """Names of the interfaces in a bridge; none if there is no such bridge."""
    with rtnetlink() as netlink, step("look at", bridge):
        index = find_ifindex(netlink, bridge)
        if index is None:
            return []
        return [
            str(link.get_attr("IFLA_IFNAME"))
            for link in netlink.link("dump")
            if link.get_attr("IFLA_MASTER") == index
        ]


def hardware_addresses(names: Sequence[str]) -> Iterable[str]:
    """Of interfaces that are there, in order."""
    with rtnetlink() as netlink, step("look at", ", ".join(names)):
        for name in names:
            (link,) = netlink.link("get", index=require_ifindex(netlink, name))
            yield str(link.get_attr("IFLA_ADDRESS"))
