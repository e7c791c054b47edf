"""Which addresses of a network are this host's to give, and which are other hosts'.

A network has the same pool of addresses on all hosts. The part of another host is what the tunnel's
AllowedIPs give to its peer; what is no peer's is this host's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import cast

from tunnel.host.gateway import IpAddress, Network


def others(pool: Network, allowed: Iterable[Network]) -> list[Network]:
    """The parts of the pool that peers have, as they are written; one may be inside of another.

    Those that hold all of the pool are none: the route to them is no more specific than its own.
    """
    return [each for each in dict.fromkeys(allowed) if each != pool and _is_inside(each, pool)]


def own(pool: Network, taken: Iterable[Network]) -> list[Network]:
    """What is left of the pool without the parts that are `taken`, in order."""
    left = [pool]
    for part in taken:
        rest: list[Network] = []
        for piece in left:
            if _is_inside(piece, part):
                continue
            if _is_inside(part, piece):
                rest += piece.address_exclude(part)  # type: ignore[arg-type]
            else:
                rest.append(piece)
        left = rest
    return _collapsed(left)


def by_host(pool: Network, allowed: Iterable[Network]) -> list[list[Network]]:
    """The parts of others, each in pieces without what longer prefixes give to another one."""
    found = others(pool, allowed)
    inside = {part: [e for e in found if e != part and _is_inside(e, part)] for part in found}
    return [left for part in found if (left := own(part, inside[part]))]


def by_peer(pool: Network, peers: Iterable[Iterable[Network]]) -> list[list[Network]]:
    """The same by peer: all that each of them has, in order, of those that have any host of it."""
    found = [others(pool, peer) for peer in peers]
    pieces = dict.fromkeys(each for peer in found for each in peer)
    every = []
    for peer in found:
        mine: list[Network] = []
        for part in peer:
            inside = [e for e in pieces if e not in peer and _is_inside(e, part)]
            mine += own(part, inside)
        every.append(_collapsed(mine))
    return [left for left in every if next(hosts(pool, left), None) is not None]


def holds(parts: Iterable[Network], address: IpAddress) -> bool:
    """Whether the address is in one of the parts."""
    return any(address in part for part in parts)


def hosts(pool: Network, parts: Sequence[Network]) -> Iterator[IpAddress]:
    """The addresses of `parts` that a host of the pool may have, in order."""
    edges = {pool.network_address}
    if pool.version == 4 and pool.prefixlen < 31:
        edges.add(pool.broadcast_address)
    for part in parts:
        for address in part:
            if address not in edges:
                yield address


def first_host(pool: Network) -> IpAddress:
    """The first address of the pool that a host may have."""
    return next(hosts(pool, [pool]))


def last_host(pool: Network, part: Network, but: Iterable[IpAddress] = ()) -> IpAddress:
    """The last address of the part that a host of the pool may have, and that is none of `but`."""
    unfit = {pool.network_address, pool.broadcast_address, *but}
    last = part.num_addresses - 1
    while last > 0 and part[last] in unfit:
        last -= 1
    return part[last]


def listing(networks: Iterable[Network]) -> str:
    """The networks as a person writes them."""
    return ", ".join(map(str, networks)) or "none"


def _is_inside(network: Network, other: Network) -> bool:
    return network.version == other.version and network.subnet_of(other)  # type: ignore[arg-type]


def _collapsed(networks: Sequence[Network]) -> list[Network]:
    return [
        *collapse_addresses(cast("list[IPv4Network]", [n for n in networks if n.version == 4])),
        *collapse_addresses(cast("list[IPv6Network]", [n for n in networks if n.version == 6])),
    ]
