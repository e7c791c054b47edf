"""IP networks of either version, which Python's own methods do not compare with one another."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network

Network = IPv4Network | IPv6Network


def read_network(text: str, *, strict: bool = True) -> Network:
    """The network that a text of others says, as `ipaddress` reads it. Raises ValueError, also for
    an address with a scope: `ipaddress` takes anything for one, as `%;reboot`, and prints it again.
    """
    if "%" in text:
        raise ValueError(f"{text!r} has a scope")
    return ip_network(text, strict=strict)


def is_inside(network: Network, other: Network) -> bool:
    """Whether all of `network` is in `other`, of the same IP version."""
    if isinstance(network, IPv4Network):
        return isinstance(other, IPv4Network) and network.subnet_of(other)
    return isinstance(other, IPv6Network) and network.subnet_of(other)


def without(networks: Iterable[Network], excluded: Iterable[Network]) -> tuple[Network, ...]:
    """The networks minus the excluded ones, as few as possible, in order of version and address."""
    left = list(networks)
    for hole in excluded:
        kept: list[Network] = []
        for network in left:
            if is_inside(network, hole):
                continue
            kept += _around(network, hole) if is_inside(hole, network) else [network]
        left = kept
    by_version: list[Network] = []
    by_version += collapse_addresses(each for each in left if isinstance(each, IPv4Network))
    by_version += collapse_addresses(each for each in left if isinstance(each, IPv6Network))
    return tuple(by_version)


def _around(network: Network, hole: Network) -> Iterable[Network]:
    if isinstance(network, IPv4Network) and isinstance(hole, IPv4Network):
        return network.address_exclude(hole)
    assert isinstance(network, IPv6Network)
    assert isinstance(hole, IPv6Network)
    return network.address_exclude(hole)
