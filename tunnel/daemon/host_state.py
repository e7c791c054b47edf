"""From a conf to the state of the machine around its tunnel, wanted and applied."""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_address

import trio

from tunnel import host
from tunnel.config import TunnelConfig, place_of
from tunnel.daemon.gateway import with_gateway
from tunnel.io.endpoint import Endpoint
from tunnel.io.errors import UdpError
from tunnel.linux.kernel import IPV6_MIN_MTU
from tunnel.packet import ethernet

log = logging.getLogger("tunnel")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What should be around the tunnel. `slot` is the place of its default route, if it has one,
    `mark` that of our UDP packets (0: none).
    """

    state: host.DesiredState
    slot: host.DefaultRouteSlot | None
    mark: int


@dataclass(frozen=True, slots=True)
class Location:
    """The network namespace of the interface: its path, or None for the daemon's own.

    `resolv_conf` is the file with the name servers of its programs, empty if there is none to be
    written. In a `spare` one the interface waits for another: nothing but its link is set up.
    """

    netns: str | None = None
    resolv_conf: str = ""
    spare: bool = False


HOME = Location()


def place_in_conf(config: TunnelConfig) -> Location:
    """Where the conf wants the interface."""
    netns = config.interface.options.netns_path
    return Location(netns, host.resolv_conf_of(netns) if netns else "")


async def compute(
    config: TunnelConfig,
    endpoints: Iterable[Endpoint],
    *,
    slot: host.DefaultRouteSlot | None = None,
    place: Location | None = None,
) -> Surroundings:
    """The surroundings that `config` asks for, at `place` or where it says. `slot` is what the
    tunnel holds already.

    Raises HostError. Looks at the machine's routes, and changes nothing.
    """
    where = place or place_in_conf(config)
    return await trio.to_thread.run_sync(_compute, config, list(endpoints), slot, where)


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
    place: Location = HOME,
    apply: Callable[..., host.Applied] = host.apply,
) -> HostState:
    """Apply `surroundings` to the machine, by `apply`, at `place`.

    Where another full tunnel has taken the place of our default route meanwhile, another one is
    chosen; `moved` is called with the new surroundings before they are applied. Raises HostError,
    and then nothing was changed. Not abandoned on cancellation: half a state must not be left.
    """
    known = list(endpoints)
    applied: host.Applied | None = None
    apply_there = partial(apply, netns=place.netns)
    with trio.CancelScope(shield=True):
        while applied is None:
            try:
                applied = await trio.to_thread.run_sync(apply_there, surroundings.state)
            except host.SlotTakenError:
                surroundings = await compute(config, known, place=place)
                await moved(surroundings)
    if applied is None:
        raise RuntimeError("a shielded scope was cancelled")
    return HostState(applied, surroundings)


def _compute(
    config: TunnelConfig,
    endpoints: list[Endpoint],
    slot: host.DefaultRouteSlot | None,
    place: Location,
) -> Surroundings:
    interface = config.interface
    netns = place.netns
    table, dns = interface.table, interface.dns
    options = interface.options
    # An address of a tunnel of frames is found by ARP, in the network of our own.
    networks = [] if options.is_tap else config.networks
    if netns:
        if table == "auto" and not slot and not host.has_default_way(networks, config.name, netns):
            # Our datagrams are outside: nothing need be kept from catching them.
            table = host.MAIN_TABLE
        if dns and not place.resolv_conf and not place.spare:
            log.warning(
                "DNS is not set in the network namespace %s: its programs read the resolv.conf of "
                "this host, or one of their own that is not known here",
                netns,
            )
            dns = ()
    if not host.has_default_route(networks, table):
        slot = None
    elif slot is None:
        slot = host.find_default_route_slot(netns=netns)
    # Out here, the number of a table in there means nothing.
    mark = interface.fwmark or (slot.mark if slot and not netns else 0)
    mtu = interface.mtu
    if mtu is None:
        addresses = [ip_address(endpoint.address) for endpoint in endpoints]
        mtu = host.compute_mtu(addresses, interface=config.name, mark=mark)
        if options.is_tap:
            mtu -= ethernet.OVERHEAD
        if mtu < IPV6_MIN_MTU and any(a.version == 6 for a in interface.addresses):
            log.warning(
                "the way to the peers leaves an MTU of %d, and IPv6 needs at least %d: the tunnel "
                "has IPv4 only (set MTU = %d to have IPv6, in fragments)",
                mtu,
                IPV6_MIN_MTU,
                IPV6_MIN_MTU,
            )
    if place.spare:
        return Surroundings(host.DesiredState(config.name, mtu=mtu), None, mark)
    state = host.desired_state(
        config.name,
        interface.addresses,
        networks,
        mtu=mtu,
        table=table,
        fwmark=0 if netns else interface.fwmark,
        slot=slot,
        dns=dns,
        dns_search=interface.dns_search,
        dns_file=place.resolv_conf,
    )
    if options.is_tap:
        state = replace(state, bridge=options.bridge, link_local=not options.bridge)
    with host.inside(netns):
        state = with_gateway(config, state)
    if interface.hooks_change_routes:
        # As where a LAN has the same network: the route that a hook took away is to stay away.
        state = replace(state, connected=())
    return Surroundings(state, slot, mark)
