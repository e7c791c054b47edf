"""What is refused of a new network, or of a new container in it, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tunnel.containers.docker import parts
from tunnel.containers.docker.protocol import CreateEndpoint, CreateNetwork, Subnet
from tunnel.containers.docker.store import NetworkRecord
from tunnel.containers.docker.tunnels import TunnelFacts
from tunnel.containers.errors import ContainerError
from tunnel.host.gateway import Network
from tunnel.host.state import InterfaceAddress
from tunnel.linux.kernel import IPV6_MIN_MTU

CONF: Final = "conf"
MODE: Final = "mode"
MTU: Final = "com.docker.network.driver.mtu"
_OPTIONS: Final = (CONF, MODE, MTU)
_SMALLEST, _LARGEST = 576, 65535


def conf_of(options: Mapping[str, str]) -> str:
    """The tunnel that the options of a new network name. Raises ContainerError."""
    unknown = [name for name in options if name not in _OPTIONS]
    if unknown:
        raise ContainerError(f"unknown option -o {unknown[0]}; known: {', '.join(_OPTIONS)}")
    if options.get(MODE, "tun") != "tun":
        raise ContainerError(
            f"-o mode={options[MODE]} is not supported: networks of this driver are routed (layer "
            "3); remove the option, or for one Ethernet network of several hosts use a tunnel "
            "with Mode = tap and Bridge (examples/tap)"
        )
    conf = options.get(CONF, "")
    if not conf:
        raise ContainerError(
            "the network needs the name of a tunnel: -o conf=NAME, as in docker network create "
            "-d tunnel --ipam-driver tunnel --ipam-opt conf=office --subnet 10.90.0.0/24 "
            "-o conf=office NETWORK"
        )
    return conf


def mtu_of(request: CreateNetwork, tunnel: TunnelFacts) -> int:
    """The MTU of a new network: that of the tunnel, or of the options. Raises ContainerError."""
    text = request.options.get(MTU)
    if text is None:
        return tunnel.mtu
    has_six = any(subnet.pool.version == 6 for subnet in request.subnets)
    least = IPV6_MIN_MTU if has_six else _SMALLEST
    if not (text.isascii() and text.isdecimal() and least <= int(text) <= _LARGEST):
        raise ContainerError(f"{MTU}={text}: the MTU must be from {least} to {_LARGEST}")
    return int(text)


def check_pool(subnet: Subnet, tunnel: TunnelFacts, others: Mapping[str, NetworkRecord]) -> None:
    """Raise ContainerError if a new network beside `others` cannot have these addresses."""
    pool, conf = subnet.pool, tunnel.name
    if subnet.gateway is None:
        raise ContainerError(f"{pool} has no gateway: --gateway {parts.first_host(pool)}")
    whole = [each for each in tunnel.allowed if each == pool]
    if whole:
        raise ContainerError(
            f"AllowedIPs of {conf} give all of {pool} to one peer: give each peer the part of "
            f"its host, as {_half(pool)}, and tunnel reload {conf}"
        )
    taken = parts.others(pool, tunnel.allowed)
    if not taken:
        raise ContainerError(
            f"no peer of {conf} has a part of {pool}: put the part of each other host into "
            f"AllowedIPs of its peer, as {_half(pool)}, and this host's into theirs; then "
            f"tunnel reload {conf}"
        )
    gateway = subnet.gateway.ip
    if gateway != parts.first_host(pool) and parts.holds(taken, gateway):
        raise ContainerError(
            f"the gateway {gateway} is in another host's part; take the first address of the "
            f"pool, which is the gateway on all hosts: --gateway {parts.first_host(pool)}"
        )
    for other, record in others.items():
        for each in record.pools:
            if each.overlaps(pool):
                raise ContainerError(
                    f"{pool} overlaps {each} of the network {other:.12} on this host; choose "
                    f"other addresses, or remove that one: docker network rm {other:.12}"
                )


def check_address(
    request: CreateEndpoint, address: InterfaceAddress, record: NetworkRecord
) -> None:
    """Raise ContainerError if a container cannot have the address in the network."""
    pool = next((pool for pool in record.pools if address.ip in pool), None)
    if pool is None:
        raise ContainerError(f"{address.ip} is in none of {parts.listing(record.pools)}")
    if any(address.ip == gateway.ip for gateway in record.gateways):
        raise ContainerError(f"{address.ip} is the gateway of the network; choose another")
    taken = parts.others(pool, record.allowed)
    if parts.holds(taken, address.ip):
        mine = max(parts.own(pool, taken), key=lambda part: part.num_addresses, default=None)
        ranges = f"--ip-range {mine} or " if mine else ""
        raise ContainerError(
            f"{address.ip} is another host's: AllowedIPs of {record.conf} lead to it through "
            f"the tunnel. Make the network again with addresses of this host alone: {ranges}"
            f"--ipam-driver tunnel --ipam-opt conf={record.conf}"
        )
    for name, endpoint in record.endpoints.items():
        if name != request.endpoint and any(a.ip == address.ip for a in endpoint.addresses):
            raise ContainerError(
                f"{address.ip} is in use by another container of this network (endpoint "
                f"{name:.12}); choose another address"
            )


def _half(pool: Network) -> str:
    return str(list(pool.subnets())[-1]) if pool.prefixlen < pool.max_prefixlen else str(pool)
