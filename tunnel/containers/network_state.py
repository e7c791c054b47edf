"""What a host has around the bridge of a network of containers, whoever asked for the network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tunnel import host
from tunnel.host import container_links
from tunnel.host.gateway import Gate, Network
from tunnel.host.state import Connected, InterfaceAddress


def network_state(
    bridge: str,
    pools: Sequence[Network],
    gateways: Iterable[InterfaceAddress],
    mtu: int,
    gates: Iterable[Gate],
    *,
    state_dir: Path,
    shared: bool = False,
) -> host.DesiredState:
    """The gateways' addresses, forwarding, and the firewall of `gates`.

    A `shared` bridge is a tunnel's, too. Raises HostError; blocks.
    """
    versions = {pool.version for pool in pools}
    # In one Ethernet, no two hosts may have the same: there the kernel's own will do.
    own = 6 in versions and not shared
    return host.DesiredState(
        bridge,
        (*gateways, *((container_links.LINK_LOCAL,) if own else ())),
        mtu,
        sysctls=tuple(host.forwarding(bridge, versions, state_dir=state_dir)),
        firewall=host.Firewall(gates=tuple(gates)),
        docker=host.DockerPasses(),
        connected=tuple(map(Connected, pools)),
        shared=shared,
    )
