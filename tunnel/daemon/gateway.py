"""From the gateway's keys of a conf to what the machine should have: gates and sysctls."""

from __future__ import annotations

from collections.abc import Iterator

from tunnel import host
from tunnel.config import PeerConfig, PublicKey, TunnelConfig, find_peer
from tunnel.host import gateway
from tunnel.host.gateway import Gate, PeerSource
from tunnel.linux.networks import is_inside


def with_gateway(config: TunnelConfig, state: host.DesiredState) -> host.DesiredState:
    """`state` with what the conf wants of a gateway. Looks at the machine. Raises HostError."""
    options = config.interface.options
    sysctls = host.forwarding(state.addressed, _versions(config)) if options.forwards else []
    gates = tuple(_gates(config, state.addressed, state.mark))
    return host.with_gateway(state, gates, sysctls, forwards=options.forwards)


def _versions(config: TunnelConfig) -> set[int]:
    """The IP versions that the tunnel has, by its addresses and those of its peers."""
    return {each.version for each in (*config.interface.addresses, *config.networks)}


def _gates(config: TunnelConfig, name: str, mark: int) -> Iterator[Gate]:
    options = config.interface.options
    if options.kill_switch:
        # Without the interface, the way to its own networks would lead by the default route.
        networks = config.networks + host.connected_networks(config.interface.addresses)
        yield gateway.kill_switch(name, networks, mark, dns=bool(config.interface.dns))
    sources: dict[PublicKey, PeerSource] = {}
    for allowance in options.allow:
        peer = find_peer(config.peers, allowance.peer)
        if peer is not None:  # the conf was checked for that
            source = sources.setdefault(peer.public_key, _source(config, allowance.peer, peer))
            yield gateway.allow(name, str(allowance), source, allowance[1:])
    for source in sources.values():
        yield gateway.limit(name, source)
    if options.isolate:
        yield gateway.isolate(name)
    if options.clamp_mss != "off":
        yield gateway.clamp(name, options.clamp_mss)
    for publication in options.publish:
        yield gateway.publish(name, str(publication), publication)
    for mapped in options.netmap:
        yield gateway.netmap(name, str(mapped), *mapped)
    if options.masquerade:
        yield gateway.masquerade(name, options.masquerade)


def _source(config: TunnelConfig, name: str, peer: PeerConfig) -> PeerSource:
    others = tuple(
        network
        for other in config.peers
        if other is not peer
        for network in other.networks
        if any(is_inside(network, own) for own in peer.networks)
    )
    return PeerSource(name, peer.networks, others)
