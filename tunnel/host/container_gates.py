"""The firewall and address translation of a network of containers, as gates of its bridge.

Only their tunnel leads into the network, and what was published. Out of it leads the tunnel and,
unless it is internal, the way out of this host, under this host's address. Other networks of
containers are not reached, as between Docker's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tunnel.host.gateway import REJECT, Gate, IpAddress, Network

WAY_OUT = "way out"
"""The entry of the gate by which containers leave this host under its address."""

_BRIDGES = ("docker0", "docker_gwbridge", "tn-*", *(f"br-{digit}*" for digit in "0123456789abcdef"))
"""Bridges of networks of containers: Docker's have br- and twelve hexadecimal digits."""
_UPLINKS = ("br-en*", "br-et*", "br-ex*")
"""Bridges of an Ethernet card, as people name them, which would be taken for Docker's."""


@dataclass(frozen=True, slots=True)
class NameServer:
    """Where the names of a network are answered on this host: the `address` of its bridge.

    Queries of containers to port 53 of anywhere are led to `port`; those of other hosts, which
    come through the tunnel to `asked` of any address of the network, to `peer_port`.
    """

    address: IpAddress
    port: int
    peer_port: int
    asked: int


@dataclass(frozen=True, slots=True)
class PublishedPort:
    """Port `outer` of this host, of `address` or of all, leads to `inner` of a container."""

    protocol: str
    address: IpAddress | None
    outer: int
    target: IpAddress
    inner: int

    def __str__(self) -> str:
        at = "" if self.address is None else f"{self.address}:"
        if self.address is not None and self.address.version == 6:
            at = f"[{self.address}]:"
        return f"{at}{self.outer}:{self.inner}/{self.protocol}"


def network_gates(
    bridge: str,
    tunnel: str,
    pools: Iterable[Network],
    *,
    internal: bool,
    names: NameServer | None,
) -> Iterator[Gate]:
    """What a network of containers is surrounded by, without its published ports.

    Without a `tunnel`, that is a port of the bridge, which may have others that are no containers.
    """
    pools = tuple(pools)
    if names is not None:
        yield _names(bridge, tunnel or bridge, pools, names)
    if tunnel:
        yield _isolation(bridge, tunnel, pools, internal=internal)
    else:
        yield _shared_isolation(bridge, pools, internal=internal)
    if not internal:
        inside = ", ".join(f'"{name}"' for name in ("lo", bridge, tunnel) if name)
        rules = tuple(
            f'iifname "{bridge}" oifname != {{ {inside} }} '
            f"{_ip(pool)} saddr {pool} counter masquerade"
            for pool in pools
        )
        yield Gate(WAY_OUT, tuple(("srcnat", rule) for rule in rules))


def publish_gates(
    bridge: str, pools: Iterable[Network], ports: Iterable[PublishedPort]
) -> Iterator[Gate]:
    """Lead ports of this host to containers. The source stays as it is, but for the network's."""
    pools = tuple(pools)
    for port in ports:
        ip = "ip" if port.target.version == 4 else "ip6"
        place = f"[{port.target}]" if port.target.version == 6 else str(port.target)
        family = "ipv4" if port.target.version == 4 else "ipv6"
        here = f"{ip} daddr {port.address} " if port.address else f"meta nfproto {family} "
        rule = (
            f"{here}fib daddr type local {port.protocol} dport {port.outer} counter "
            f"dnat {ip} to {place}:{port.inner}"
        )
        # A container that asks for its own host has to get the answer from there, and so has this
        # host where it asks for 127.0.0.1. With ::1 that cannot be: no packet from it is routed.
        to = (
            f'oifname "{bridge}" ct status dnat {ip} daddr {port.target} '
            f"{port.protocol} dport {port.inner}"
        )
        # From the wire, the kernel refuses a packet for 127.0.0.1 only after the translation.
        wire = "ip daddr != 127.0.0.0/8 " if ip == "ip" else ""
        found = [
            ("dstnat", wire + rule),
            ("dstnat-local", rule if ip == "ip" else f"ip6 daddr != ::1 {rule}"),
            *(
                # Not by iifname, which is empty where the bridge itself has translated.
                ("srcnat", f"{ip} saddr {pool} {to} counter masquerade")
                for pool in pools
                if pool.version == port.target.version
            ),
        ]
        if ip == "ip":
            found.append(("srcnat", f"ip saddr 127.0.0.0/8 {to} counter masquerade"))
            # The bridge lets the host's own 127.0.0.1 through, and no other.
            found.append(("guard", f'iifname "{bridge}" ip daddr 127.0.0.0/8 counter drop'))
        yield Gate(f"published {port}", tuple(found))


def _isolation(bridge: str, tunnel: str, pools: tuple[Network, ...], *, internal: bool) -> Gate:
    # What has an address of another network, or of this host, does not come from a container.
    rules = [f'iifname "{bridge}" {_others(pools, version)} counter drop' for version in (4, 6)]
    rules.append(f'iifname "{bridge}" oifname "{bridge}" accept')
    # Other networks of this host have no way to containers of other hosts either.
    rules += [
        f'iifname != {{ "{bridge}", "{tunnel}" }} oifname "{tunnel}" {_ip(pool)} daddr {pool} {end}'
        for pool in pools
        for end in REJECT
    ]
    for way, end in (
        (f'iifname "{tunnel}" oifname "{bridge}"', "saddr"),
        (f'iifname "{bridge}" oifname "{tunnel}"', "daddr"),
    ):
        if internal:
            rules += [f"{way} {_ip(pool)} {end} {pool} accept" for pool in pools]
        else:
            rules.append(f"{way} accept")
    if internal:
        rules += [f'{side} "{bridge}" {end}' for side in ("iifname", "oifname") for end in REJECT]
    else:
        rules.append(f'oifname "{bridge}" ct status dnat accept')
        rules += [f'oifname "{bridge}" {end}' for end in REJECT]
        rules += _no_others(f'iifname "{bridge}"')
    return Gate("internal" if internal else "isolation", tuple(("forward", r) for r in rules))


def _shared_isolation(bridge: str, pools: tuple[Network, ...], *, internal: bool) -> Gate:
    """The same for the addresses of the network only: the bridge carries other traffic, too."""
    rules = [f'iifname "{bridge}" oifname "{bridge}" accept']
    for pool in pools:
        coming = f'oifname "{bridge}" {_ip(pool)} daddr {pool}'
        going = f'iifname "{bridge}" {_ip(pool)} saddr {pool}'
        if internal:
            rules += [f"{side} {end}" for side in (going, coming) for end in REJECT]
        else:
            rules.append(f"{coming} ct status dnat accept")
            rules += [f"{coming} {end}" for end in REJECT]
            rules += _no_others(going)
    return Gate("internal" if internal else "isolation", tuple(("forward", r) for r in rules))


def _no_others(going: str) -> Iterator[str]:
    """Rules by which what is `going` from a network gets into no other one of this host."""
    # One rule each: nft 1.0.6 does not print wildcards that are in a set.
    for name in _UPLINKS:
        yield f'{going} oifname "{name}" accept'
    for name in _BRIDGES:
        for end in REJECT:
            yield f'{going} meta oifkind "bridge" oifname "{name}" {end}'


def _names(bridge: str, tunnel: str, pools: tuple[Network, ...], names: NameServer) -> Gate:
    ip = "ip" if names.address.version == 4 else "ip6"
    place = f"[{names.address}]" if ip == "ip6" else str(names.address)
    rules = []
    for pool in pools:
        if pool.version != names.address.version:
            continue
        here = f'iifname "{bridge}" {ip} daddr {names.address} udp dport 53'
        # A name server in another container of the network is asked itself.
        beyond = f'iifname "{bridge}" {ip} daddr != {pool} udp dport 53'
        answer = f"counter dnat {ip} to {place}:{names.port}"
        rules += [f'{beyond} fib daddr oifname "{name}" {answer}' for name in _UPLINKS]
        # Passed on by this host, it would get into networks that are shut to the container.
        rules += [f'{beyond} fib daddr oifname "{name}" accept' for name in _BRIDGES]
        rules += [f"{query} {answer}" for query in (here, beyond)]
        # Of one Ethernet network, others are asked at their own addresses.
        asked = names.address if tunnel == bridge else pool
        rules.append(
            f'iifname "{tunnel}" {ip} daddr {asked} udp dport {names.asked} counter '
            f"dnat {ip} to {place}:{names.peer_port}"
        )
    # From nowhere else: one that answers anyone is used to flood others.
    shut = [
        f'iifname != "{side}" {ip} daddr {names.address} udp dport {port} counter drop'
        for side, port in ((bridge, names.port), (tunnel, names.peer_port))
    ]
    return Gate("names", (*(("dstnat", rule) for rule in rules), *(("input", r) for r in shut)))


def _others(pools: tuple[Network, ...], version: int) -> str:
    """What matches packets of that IP version whose source is in none of the pools."""
    own = ", ".join(str(pool) for pool in pools if pool.version == version)
    if not own:
        return f"meta nfproto ipv{version}"
    return f"{'ip' if version == 4 else 'ip6'} saddr != {{ {own} }}"


def _ip(pool: Network) -> str:
    return "ip" if pool.version == 4 else "ip6"
