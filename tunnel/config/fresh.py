"""New confs for a pair, a hub with members or a mesh: prefixes, addresses and keys."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import (
    IPv4Interface,
    IPv4Network,
    IPv6Interface,
    IPv6Network,
    ip_interface,
    ip_network,
)
from itertools import combinations
from typing import Final

from crypto.keys import PresharedKey, PrivateKey
from tunnel.config.model import InterfaceConfig, PeerConfig, TunnelConfig, TunnelOptions
from tunnel.config.peers import KEEPALIVE, Random
from tunnel.config.problems import Mistake, quote
from tunnel.config.render import dump
from tunnel.config.values import AllowedIP, EndpointConfig
from tunnel.linux.networks import Network

__all__ = [
    "MAX_HOSTS",
    "FreshHost",
    "Shape",
    "check_hosts",
    "choose_networks",
    "conf_text",
    "is_host_name",
    "make_confs",
    "nth_addresses",
]

MAX_HOSTS: Final = 250
"""Hosts whose addresses the IPv4 prefix has room for, and some to spare."""

_TRIES: Final = 1000

_NAME: Final = "up to 63 letters, digits, -, _ and ., with a letter, digit or _ first"


class Shape(StrEnum):
    """Who is whose peer."""

    PAIR = "pair"
    HUB = "hub"
    MESH = "mesh"


@dataclass(frozen=True, slots=True)
class FreshHost:
    """A host to make a conf for. `endpoint` is where the others reach it, None if they cannot."""

    name: str
    endpoint: EndpointConfig | None = None


def choose_networks(taken: Iterable[Network], random: Random) -> tuple[IPv4Network, IPv6Network]:
    """A private IPv4 prefix (/24, RFC 1918) and a unique local one (/64, RFC 4193) at random, which
    overlap with none that is taken.

    Raises Mistake if there is none.
    """
    taken = [network for network in taken if network.prefixlen]
    for _ in range(_TRIES):
        # Few networks are in the upper three quarters of 10/8; many begin at its lower end.
        second, third = random(2)
        v4 = IPv4Network((bytes((10, 64 + second % 192, third, 0)), 24))
        v6 = IPv6Network((b"\xfd" + random(5) + bytes(10), 64))
        if not any(_overlap(each, other) for each in (v4, v6) for other in taken):
            return v4, v6
    raise Mistake("no private prefix is free on this host", "give one with --network")


def _overlap(one: Network, other: Network) -> bool:
    if isinstance(one, IPv4Network):
        return isinstance(other, IPv4Network) and one.overlaps(other)
    return isinstance(other, IPv6Network) and one.overlaps(other)


def is_host_name(name: str) -> bool:
    """Whether a host may be called that in a conf."""
    fits = name and len(name) <= 63 and all(each.isalnum() or each in "-_." for each in name)
    return bool(fits) and not name.startswith((".", "-"))


def nth_addresses(
    networks: Sequence[Network], number: int
) -> tuple[IPv4Interface | IPv6Interface, ...]:
    """The addresses of the host of that number, from 1 on, each with the length of its network."""
    return tuple(ip_interface(f"{each[number]}/{each.prefixlen}") for each in networks)


def check_hosts(hosts: Sequence[FreshHost], shape: Shape) -> None:
    """Raise Mistake for hosts that cannot make a tunnel of that shape."""
    names = [host.name for host in hosts]
    if len(hosts) < 2 or (shape is Shape.PAIR and len(hosts) > 2):
        count = "two hosts" if shape is Shape.PAIR else "two hosts or more"
        raise Mistake(f"a {shape} has {count}, not {len(hosts)}", "name them")
    if len(hosts) > MAX_HOSTS:
        raise Mistake(
            f"{len(hosts)} hosts are more than {MAX_HOSTS}", "add the others with tunnel peer add"
        )
    for name in names:
        if not is_host_name(name):
            raise Mistake(f"{quote(name)} is not a valid name for a host", "use " + _NAME)
        if names.count(name) > 1:
            raise Mistake(f"{quote(name)} is named twice", "give each host a name of its own")
    for one, other in _links(hosts, shape):
        if one.endpoint is None and other.endpoint is None:
            who = f"{one.name} nor {other.name}"
            remedy = f"give one of them an endpoint: {one.name}=vpn.example.com"
            raise Mistake(f"neither {who} can be reached by the other", remedy)


def _links(hosts: Sequence[FreshHost], shape: Shape) -> list[tuple[FreshHost, FreshHost]]:
    if shape is Shape.HUB:
        return [(hosts[0], member) for member in hosts[1:]]
    return list(combinations(hosts, 2))


def make_confs(
    name: str,
    hosts: Sequence[FreshHost],
    shape: Shape,
    networks: Sequence[Network],
    random: Random,
) -> dict[str, str]:
    """The text of each host's conf of the tunnel `name`, by the host's name.

    Of a hub, the first host is the hub. Raises Mistake for hosts that cannot make that shape.
    """
    check_hosts(hosts, shape)
    keys = {host.name: PrivateKey.from_random(random(32)) for host in hosts}
    numbers = {host.name: number for number, host in enumerate(hosts, 1)}
    peers: dict[str, list[PeerConfig]] = {host.name: [] for host in hosts}

    def peer_of(of: FreshHost, other: FreshHost, secret: PresharedKey) -> PeerConfig:
        # A member reaches all others by the hub; else each host is reached directly.
        reached = (
            [*networks]
            if shape is Shape.HUB and other is hosts[0]
            else [ip_network(str(network[numbers[other.name]])) for network in networks]
        )
        is_hidden = of.endpoint is None and other.endpoint is not None
        return PeerConfig(
            keys[other.name].public_key(),
            secret,
            allowed_ips=tuple(AllowedIP(network) for network in reached),
            endpoint=other.endpoint,
            persistent_keepalive=KEEPALIVE if is_hidden else 0,
            friendly_name=other.name,
        )

    for one, other in _links(hosts, shape):
        secret = PresharedKey.from_bytes(random(32))
        peers[one.name].append(peer_of(one, other, secret))
        peers[other.name].append(peer_of(other, one, secret))
    confs = {}
    for host in hosts:
        confs[host.name] = conf_text(
            name,
            InterfaceConfig(
                private_key=keys[host.name],
                addresses=nth_addresses(networks, numbers[host.name]),
                listen_port=host.endpoint.port if host.endpoint is not None else 0,
                options=TunnelOptions(forward=shape is Shape.HUB and host is hosts[0]),
            ),
            peers[host.name],
            host.endpoint,
        )
    return confs


def conf_text(
    name: str,
    interface: InterfaceConfig,
    peers: Sequence[PeerConfig],
    endpoint: EndpointConfig | None,
) -> str:
    """The text of a host's conf of the tunnel `name`, which others reach at `endpoint`."""
    text = dump(TunnelConfig(name, interface, tuple(peers)))
    if endpoint is not None:
        # `tunnel peer add` takes it from there.
        text = text.replace("[Interface]\n", f"[Interface]\n# endpoint = {endpoint}\n", 1)
    return text
