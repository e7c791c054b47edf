"""Which address a container gets: one of this host's part of the network's pool.

Docker asks again for all it knows whenever it starts, so asking for a pool or for an address by
name does the same twice. Whether an address is in use by another container is decided when its end
of the network is made (`driver.py`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from tunnel.containers.docker import parts
from tunnel.containers.docker.protocol import OfAddress, RequestPool
from tunnel.containers.docker.store import PoolRecord
from tunnel.containers.docker.tunnels import TunnelFacts
from tunnel.containers.errors import ContainerError
from tunnel.host.gateway import IpAddress, Network

OPTION = "conf"


def new_pool(request: RequestPool, tunnel: TunnelFacts) -> tuple[str, PoolRecord]:
    """The pool that is asked for, and its identifier. Raises ContainerError."""
    pool, part = request.pool, request.part
    if pool is None:
        raise ContainerError(
            "the network has no addresses: --subnet 10.90.0.0/24, the same on all hosts"
        )
    if tunnel.bridge and part is None and not parts.others(pool, tunnel.allowed):
        raise ContainerError(
            f"no peer of {tunnel.name} has a part of {pool} in its AllowedIPs, so this host's part "
            "is not known: name it, on each host another one, as --ip-range "
            f"{next(iter(pool.subnets()), pool)}"
        )
    if part is not None:
        taken = [other for other in parts.others(pool, tunnel.allowed) if other.overlaps(part)]
        if taken:
            raise ContainerError(
                f"--ip-range {part} is in part another host's: AllowedIPs of {tunnel.name} have "
                f"{parts.listing(taken)}; this host's part of {pool} is "
                f"{parts.listing(own_parts(pool, None, tunnel.allowed))}"
            )
    name = f"{tunnel.name}/{pool}" + (f"/{part}" if part else "")
    return name, PoolRecord(tunnel.name, pool, part)


def own_parts(pool: Network, part: Network | None, allowed: Collection[Network]) -> list[Network]:
    """What this host may give of a pool: `part`, or all that is no peer's."""
    taken = parts.others(pool, allowed)
    return parts.own(part or pool, taken)


def gateway(pool: Network, part: Network | None, tunnel: TunnelFacts) -> IpAddress | None:
    """The address of this host in the network; None if no address of the pool is this host's.

    Where packets are routed, it is the same on all hosts: no container ever gets it. In one
    Ethernet it is the first of the host's part: of `part`, if AllowedIPs of no peer say another.
    """
    if not tunnel.bridge:
        return parts.first_host(pool)
    is_known = bool(parts.others(pool, tunnel.allowed))
    own = own_parts(pool, None if is_known else part, tunnel.allowed)
    return next(parts.hosts(pool, own), None)


def choose(
    record: PoolRecord, request: OfAddress, tunnel: TunnelFacts
) -> tuple[IpAddress, PoolRecord]:
    """The address for a request, and the pool with it given. Raises ContainerError."""
    pool, address = record.pool, request.address
    own = own_parts(pool, record.part, tunnel.allowed)
    first = gateway(pool, record.part, tunnel)
    if request.is_gateway and first is not None and address in (None, first):
        return first, record
    if address is None:
        kept = {first, *(each.ip for each in tunnel.addresses)}
        free = (each for each in parts.hosts(pool, own) if each not in kept)
        address = next((each for each in free if each not in record.given), None)
        if address is None:
            raise ContainerError(
                f"no address is left of this host's part of {pool} ({parts.listing(own)}): remove "
                "containers, or give this host more by taking it out of AllowedIPs of its peers"
            )
    elif address not in pool:
        raise ContainerError(f"{address} is not in {pool}, the addresses of this network")
    elif not parts.holds(own, address):
        raise ContainerError(
            f"{address} is another host's: this host's part of {pool} is {parts.listing(own)}"
        )
    return address, replace(record, given=record.given | {address})
