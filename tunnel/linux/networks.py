"""IP networks of either version, which Python's own methods do not compare with one another."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network


def is_inside(network: IPv4Network | IPv6Network, other: IPv4Network | IPv6Network) -> bool:
    """Whether all of `network` is in `other`, of the same IP version."""
    if isinstance(network, IPv4Network):
        return isinstance(other, IPv4Network) and network.subnet_of(other)
    return isinstance(other, IPv6Network) and network.subnet_of(other)
