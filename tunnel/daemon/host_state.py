"""From a conf to the state of the machine around its tunnel, wanted and applied."""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address

import trio

from tunnel import host
from tunnel.config import TunnelConfig, place_of
from tunnel.daemon.gateway import with_gateway
from tunnel.io.endpoint import Endpoint
from tunnel.io.errors import UdpError
from tunnel.linux.kernel import IPV6_MIN_MTU

log = logging.getLogger("tunnel")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What should be around the tunnel. `slot` is the place of its default route, if it has one,
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


@contextlib.contextmanager
def line_of_port(config: TunnelConfig) -> Iterator[None]:
    """Let a refusal of the UDP port that `config` asks for name the line that asks for it."""
    try:
        yield
    except UdpError as error:
        place = place_of(config, "ListenPort")
        if error.errno != errno.EADDRINUSE or not place or not config.interface.listen_port:
            raise
        raise UdpError(error.reason, error.errno, f"{error.remedy} ({place})") from error


@dataclass(frozen=True, slots=True)
class HostState:
    """What was done to the machine, and the surroundings that it comes from."""

    applied: host.Applied
    surroundings: Surroundings


async def settle(
    config: TunnelConfig,
    surroundings: Surroundings,
    endpoints: Iterable[Endpoint],
    *,
    moved: Callable[[Surroundings], Awaitable[None]],
    apply: Callable[[host.DesiredState], host.Applied],
) -> HostState:
    """Apply `surroundings` to the machine, by `apply`.

    Where another full tunnel has taken the place of our default route meanwhile, another one is
    chosen; `moved` is called with the new surroundings before they are applied. Raises HostError,
    and then nothing was changed. Not abandoned on cancellation: half a state must not be left.
    """
    known = list(endpoints)
    applied: host.Applied | None = None
    with trio.CancelScope(shield=True):
        while applied is None:
            try:
                applied = await trio.to_thread.run_sync(apply, surroundings.state)
            except host.SlotTakenError:
                surroundings = await compute(config, known)
                await moved(surroundings)
    if applied is None:
        raise RuntimeError("a shielded scope was cancelled")
    return HostState(applied, surroundings)


def _compute(
    config: TunnelConfig, endpoints: list[Endpoint], slot: host.DefaultRouteSlot | None
) -> Surroundings:
    interface = config.interface
    netns = interface.options.netns_path
    table, dns = interface.table, interface.dns
    if netns:
        # Our datagrams are outside: nothing need be kept from catching them.
        table = host.MAIN_TABLE if table == "auto" else table
        if dns:
            log.warning(
                "DNS is not set in the network namespace %s: programs there need a resolv.conf of "
                "their own (ip netns exec NAME uses /etc/netns/NAME/resolv.conf)",
                netns,
            )
            dns = ()
    networks = config.networks
    if not host.has_default_route(networks, table):
        slot = None
    elif slot is None:
        slot = host.find_default_route_slot()
    mark = interface.fwmark or (slot.mark if slot else 0)
    mtu = interface.mtu
    if mtu is None:
        addresses = [ip_address(endpoint.address) for endpoint in endpoints]
        mtu = host.compute_mtu(addresses, interface=config.name, mark=mark)
        if mtu < IPV6_MIN_MTU and any(a.version == 6 for a in interface.addresses):
            log.warning(
                "the way to the peers leaves an MTU of %d, and IPv6 needs at least %d: the tunnel "
                "has IPv4 only (set MTU = %d to have IPv6, in fragments)",
                mtu,
                IPV6_MIN_MTU,
                IPV6_MIN_MTU,
            )
    state = host.desired_state(
        config.name,
        interface.addresses,
        networks,
        mtu=mtu,
        table=table,
        fwmark=interface.fwmark,
        slot=slot,
        dns=dns,
        dns_search=interface.dns_search,
    )
    with host.inside(netns):
        state = with_gateway(config, state)
    if interface.hooks_change_routes:
        # As where a LAN has the same network: the route that a hook took away is to stay away.
        state = replace(state, connected=())
    return Surroundings(state, slot, mark)
