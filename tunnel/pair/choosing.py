"""What the ends of a new tunnel may have: prefixes and ports that collide with nothing here."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tunnel import config
from tunnel.config.files import folders
from tunnel.config.problems import Mistake
from tunnel.host.in_use import networks_in_use, udp_ports_in_use
from tunnel.linux.networks import Network, read_network

_PORT = 51820
"""The port that WireGuard usually has. If it is taken, the next free one is chosen."""


def _confs() -> list[config.TunnelConfig]:
    """The confs of this host, as far as they can be read: a tunnel that is down has one, too."""
    found = []
    for path in (path for folder in folders() for path in folder.glob("*.conf")):
        try:
            found.append(config.load(path))
        except config.ConfigErrors:
            continue
    return found


def taken_networks() -> list[Network]:
    """The networks that this host has routes to, and those of its confs. Raises OSError.

    Not those that a default route is made of, such as 0.0.0.0/1: all of 10/8, the largest private
    one, has eight bits.
    """
    found = list(networks_in_use())
    for conf in _confs():
        found += [address.network for address in conf.interface.addresses]
        found += conf.networks
    return [each for each in found if each.prefixlen >= 7]


def taken_ports() -> frozenset[int]:
    """The UDP ports of this host that a socket has, or a conf."""
    return udp_ports_in_use() | {conf.interface.listen_port for conf in _confs()}


def free_port(taken: Collection[int]) -> int:
    """The first one from WireGuard's usual port on that is not taken."""
    return next(port for port in range(_PORT, 1 << 16) if port not in taken)


def given_networks(texts: Sequence[str], *, least: int) -> list[Network]:
    """The prefixes that a user gave, of at least so many addresses. Raises Mistake."""
    found: list[Network] = []
    for text in texts:
        try:
            found.append(read_network(text))
        except ValueError as error:
            raise Mistake(
                f"--network {text}: {error}", "write a prefix such as 10.77.0.0/24"
            ) from None
        if found[-1].num_addresses < least:
            bits = 33 - least.bit_length()
            raise Mistake(f"--network {text} is too small", f"use a /{bits} or a larger one")
    return found
