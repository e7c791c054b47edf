"""Which addresses the doctor sends probes to, and from which address of ours they come."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

from tunnel.control.messages.status import PeerStatus, TunnelStatus
from tunnel.doctor.facts import (
    Facts,
    Network,
    Probe,
    covering,
    has_written_place,
    is_fresh,
    networks_of,
)

MAX_PROBES = 32
"""Peers that are probed; the first ones of many."""


def choose(facts: Facts, status: TunnelStatus) -> tuple[Probe, ...]:
    """Where to send probes: the address asked for, or one of each peer that should be there."""
    wanted = facts.options.address
    if wanted is not None:
        found = covering(status.peers, wanted)
        if found is None:
            return (Probe(wanted, None, guessed=False),)
        key = found[0].public_key
        asked = Probe(wanted, key, guessed=False)
        # Whether the peer itself is there shows where the silence of an address begins.
        own = _guess(status, found[0])
        if own is None or own == wanted:
            return (asked,)
        return asked, Probe(own, key, guessed=True)
    probes = []
    for peer in status.peers:
        # One that initiates by itself, and has not lately, would be woken for nothing.
        there = has_written_place(facts.conf, peer) or is_fresh(peer, facts.now)
        address = _guess(status, peer) if peer.endpoint and there else None
        if address is not None:
            probes.append(Probe(address, peer.public_key, guessed=True))
    return tuple(probes[:MAX_PROBES])


def _guess(status: TunnelStatus, peer: PeerStatus) -> str | None:
    """An address that is most likely the peer's own: a single one, else a network's first."""
    own = {ip_interface(text).ip for text in status.addresses}
    versions = {address.version for address in own}
    networks = sorted(networks_of(peer), key=lambda n: (n.is_link_local, _host_bits(n)))
    for network in networks:
        if network.version not in versions or network.prefixlen == 0:
            continue
        first = network.network_address
        candidates = [first] if network.num_addresses == 1 else [first + 1, first + 2]
        for address in candidates:
            found = covering(status.peers, str(address))
            if address not in own and found is not None and found[0] is peer:
                return str(address)
    return None


def _host_bits(network: Network) -> int:
    return network.max_prefixlen - network.prefixlen


def own_address(status: TunnelStatus, address: str) -> str | None:
    """Our address in the tunnel that packets to `address` should come from."""
    wanted = ip_address(address)
    own = [ip_interface(text) for text in status.addresses]
    own = [each for each in own if each.version == wanted.version]
    own.sort(key=lambda each: (wanted not in each.network, each.is_link_local))
    return str(own[0].ip) if own else None
