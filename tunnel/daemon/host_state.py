"""From a conf to the state that the machine around its tunnel shall have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import ip_address

import trio

from tunnel import host
from tunnel.config import TunnelConfig
from tunnel.io.endpoint import Endpoint


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What shall be around the tunnel. `slot` is the place of its default route, if it has one,
    `mark` that of our UDP packets (0: none).
    """

    state: host.DesiredState
    slot: host.DefaultRouteSlot | None
    mark: int


async def compute(
    config: TunnelConfig,
    endpoints: Iterable[Endpoint],
    *,
    slot: host.DefaultRouteSlot | None = None,
) -> Surroundings:
    """The surroundings that `config` asks for. `slot` is what the tunnel holds already.

    Raises HostError. Looks at the machine's routes, and changes nothing.
    """
    return await trio.to_thread.run_sync(_compute, config, list(endpoints), slot)


def _compute(
    config: TunnelConfig, endpoints: list[Endpoint], slot: host.DefaultRouteSlot | None
) -> Surroundings:
    interface = config.interface
    networks = [network for peer in config.peers for network in peer.networks]
    if not host.has_default_route(networks, interface.table):
        slot = None
    elif slot is None:
        slot = host.find_default_route_slot()
    mark = interface.fwmark or (slot.mark if slot else 0)
    mtu = interface.mtu
    if mtu is None:
        addresses = [ip_address(endpoint.address) for endpoint in endpoints]
        mtu = host.compute_mtu(addresses, interface=config.name, mark=mark)
    state = host.desired_state(
        config.name,
        interface.addresses,
        networks,
        mtu=mtu,
        table=interface.table,
        fwmark=interface.fwmark,
        slot=slot,
        dns=interface.dns,
        dns_search=interface.dns_search,
    )
    if interface.hooks_change_routes:
        # As where a LAN has the same network: the route that a hook took away is to stay away.
        state = replace(state, connected=())
    return Surroundings(state, slot, mark)
