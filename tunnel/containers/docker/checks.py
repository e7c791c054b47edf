"""What is refused of a new network, or of a new container in it, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tunnel.containers.docker import ipam, parts
from tunnel.containers.docker.protocol import CreateEndpoint, CreateNetwork, Subnet
from tunnel.containers.docker.store import NetworkRecord
from tunnel.containers.docker.tunnels import TunnelFacts
from tunnel.containers.errors import ContainerError
from tunnel.host.gateway import IpAddress, Network
from tunnel.host.state import InterfaceAddress
from tunnel.linux.kernel import IPV6_MIN_MTU

CONF: Final = "conf"
MODE: Final = "mode"
MTU: Final = "com.docker.network.driver.mtu"
_OPTIONS: Final = (CONF, MODE, MTU)
_SMALLEST, _LARGEST = 576, 65535


MODES: Final = ("tun", "tap")


def conf_of(options: Mapping[str, str]) -> str:
    """The tunnel that the options of a new network name. Raises ContainerError."""
    unknown = [name for name in options if name not in _OPTIONS]
    if unknown:
        raise ContainerError(f"unknown option -o {unknown[0]}; known: {', '.join(_OPTIONS)}")
    if options.get(MODE, MODES[0]) not in MODES:
        raise ContainerError(
            f"-o mode={options[MODE]}: the mode is tun (also without the option), a routed "
            "network, or tap, one Ethernet network of all hosts"
        )
    conf = options.get(CONF, "")
    if not conf:
        raise ContainerError(
            "the network needs the name of a tunnel: -o conf=NAME, as in docker network create "
            "-d tunnel --ipam-driver tunnel --ipam-opt conf=office --subnet 10.90.0.0/24 "
            "-o conf=office NETWORK"
        )
    return conf


def check_mode(
    options: Mapping[str, str], tunnel: TunnelFacts, others: Mapping[str, NetworkRecord]
) -> None:
    """Raise ContainerError if the tunnel has another mode than the options of a new network, or
    its bridge has a network already, one of `others`.
    """
    conf = tunnel.name
    if options.get(MODE, MODES[0]) == "tap" and not tunnel.bridge:
        raise ContainerError(
            f"-o mode=tap is for a tunnel of Ethernet frames, and {conf} carries packets: remove "
            "the option, or name another tunnel, whose conf has Mode = tap and Bridge"
        )
    if options.get(MODE, MODES[0]) == "tun" and tunnel.bridge:
        raise ContainerError(
            f"the tunnel {conf} carries Ethernet frames (Mode = tap): add -o mode=tap, or name a "
            "tunnel without Mode in its conf"
        )
    for other, record in others.items():
        if tunnel.bridge and record.bridge == tunnel.bridge:
            raise ContainerError(
                f"the bridge {tunnel.bridge} of {conf} is that of the network {other:.12} already: "
                f"start containers in that one, or remove it: docker network rm {other:.12}"
            )


def check_bridge(tunnel: TunnelFacts, record: NetworkRecord) -> None:
    """Raise ContainerError if the tunnel is not in the bridge that a network was made for."""
    if tunnel.bridge != record.bridge:
        was, now = (
            f"Mode = tap and Bridge = {b}" if b else "Mode = tun"
            for b in (record.bridge, tunnel.bridge)
        )
        raise ContainerError(
            f"the network was made for {was}, and the conf of {tunnel.name} has {now}: make the "
            "network again: docker network rm, docker network create"
        )


def mtu_of(request: CreateNetwork, tunnel: TunnelFacts) -> int:
    """The MTU of a new network: that of the tunnel, or of the options. Raises ContainerError."""
    text = request.options.get(MTU)
    if text is None:
        return tunnel.mtu
    has_six = any(subnet.pool.version == 6 for subnet in request.subnets)
    least = IPV6_MIN_MTU if has_six else _SMALLEST
    # A bridge drops frames that are too long for the tunnel, and reports it to no one.
    most = tunnel.mtu if tunnel.bridge else _LARGEST
    if not (text.isascii() and text.isdecimal() and least <= int(text) <= most):
        raise ContainerError(f"{MTU}={text}: the MTU must be from {least} to {most}")
    return int(text)


def check_pool(
    subnet: Subnet,
    tunnel: TunnelFacts,
    others: Mapping[str, NetworkRecord],
    part: Network | None = None,
) -> None:
    """Raise ContainerError if a new network beside `others` cannot have these addresses.

    `part` is what this host may give of them, where the user has named it to our own IPAM.
    """
    pool, conf = subnet.pool, tunnel.name
    whole = [each for each in tunnel.allowed if each == pool]
    if whole:
        raise ContainerError(
            f"AllowedIPs of {conf} give all of {pool} to one peer: give each peer the part of "
            f"its host, as {_half(pool)}, and tunnel reload {conf}"
        )
    taken = parts.others(pool, tunnel.allowed)
    if not taken and not (tunnel.bridge and part):
        raise ContainerError(
            f"no peer of {conf} has a part of {pool}: put the part of each other host into "
            f"AllowedIPs of its peer, as {_half(pool)}, and this host's into theirs; then "
            f"tunnel reload {conf}"
        )
    first = ipam.gateway(pool, part, tunnel)
    if first is None:
        raise ContainerError(
            f"no address of {pool} is left for this host: take its part out of AllowedIPs of the "
            f"peers of {conf}; then tunnel reload {conf}"
        )
    if subnet.gateway is None:
        raise ContainerError(f"{pool} has no gateway: --gateway {first}")
    gateway = subnet.gateway.ip
    if tunnel.bridge:
        _check_ethernet(subnet, tunnel, gateway, first)
    elif gateway != first and parts.holds(taken, gateway):
        raise ContainerError(
            f"the gateway {gateway} is in another host's part; take the first address of the "
            f"pool, which is the gateway on all hosts: --gateway {first}"
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


def _check_ethernet(
    subnet: Subnet, tunnel: TunnelFacts, gateway: IpAddress, first: IpAddress
) -> None:
    if gateway != first:
        raise ContainerError(
            f"the gateway {gateway}: in one Ethernet network each host has a gateway of its own, "
            f"the first address of its part; on this host --gateway {first}"
        )
    for address in tunnel.addresses:
        if address.ip in subnet.pool and address.ip != gateway:
            raise ContainerError(
                f"Address {address} of {tunnel.name} is in {subnet.pool}, and is not the gateway "
                f"of this host: write Address = {gateway}/{subnet.pool.prefixlen} in its conf; "
                f"then tunnel reload {tunnel.name}, if it is up"
            )


def _half(pool: Network) -> str:
    return str(list(pool.subnets())[-1]) if pool.prefixlen < pool.max_prefixlen else str(pool)
