"""Which addresses the doctor sends probes to, and from which address of ours they come."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_interface

from tunnel.control.messages.status import PeerStatus, TunnelStatus
from tunnel.doctor.facts import (
    WIDE,
    Facts,
    IpAddress,
    Network,
    Probe,
    covering,
    has_written_place,
    is_fresh,
    networks_of,
)

MAX_PROBES = 32
"""Peers that are probed; the first ones of many."""
MAX_GUESSES = 3
"""Addresses of one peer that are tried, as none of them is known to be its own."""
NEIGHBOURS = {4: 24, 6: 64}
"""Prefix length of the network that is supposed around an address which names no network."""


def choose(facts: Facts, status: TunnelStatus) -> tuple[Probe, ...]:
    """Where to send probes: the address asked for, or some of each peer that should be there.

    An address that this host forwards to is not reached by a peer.
    """
    wanted = facts.options.address
    found = covering(status.peers, wanted) if wanted is not None else None
    if wanted is not None and (found is not None or not facts.options.forward):
        if found is None:
            return (Probe(wanted, None, guessed=False),)
        peer = found[0]
        asked = Probe(wanted, peer.public_key, guessed=False)
        # Whether the peer itself is there shows where the silence of an address begins.
        own = (each for each in _guesses(facts, status, peer) if each != wanted)
        return asked, *(Probe(each, peer.public_key, guessed=True) for each in own)
    probes: list[Probe] = []
    for peer in status.peers[:MAX_PROBES]:
        if should_answer(facts, peer):
            guesses = _guesses(facts, status, peer)
            probes += (Probe(each, peer.public_key, guessed=True) for each in guesses)
    return tuple(probes)


def should_answer(facts: Facts, peer: PeerStatus) -> bool:
    """Whether the peer is to be probed.

    One that initiates by itself, and has not lately, would be woken for nothing.
    """
    there = has_written_place(facts.conf, peer) or is_fresh(peer, facts.now)
    return bool(peer.endpoint) and there


def _guesses(facts: Facts, status: TunnelStatus, peer: PeerStatus) -> tuple[str, ...]:
    """Addresses by which the peer may answer, the most likely first.

    One is enough where the peer has narrow networks. Behind a default route somebody else is at
    every address, so several are tried. Whether one answers does not matter much: a peer that
    lives sends a handshake, or a keepalive, for any packet.
    """
    own = {ip_interface(text).ip for text in status.addresses}
    versions = {address.version for address in own}
    networks = sorted(networks_of(peer), key=lambda n: (n.is_link_local, _host_bits(n)))
    found: list[IpAddress] = []

    def add(address: IpAddress) -> None:
        holder = covering(status.peers, str(address))
        takes = holder is not None and holder[0] is peer and address.version in versions
        if takes and address not in own and address not in found:
            found.append(address)

    for network in networks:
        if network.prefixlen > WIDE:
            for address in _first_hosts(network):
                add(address)
            if found:
                return (str(found[0]),)
    for address in (*_name_servers(facts), *_beside(status)):
        add(address)
    for network in networks if not found else ():
        if (network.network_address + 1).is_global:
            add(network.network_address + 1)
    return tuple(map(str, found[:MAX_GUESSES]))


def _first_hosts(network: Network) -> Iterator[IpAddress]:
    first = network.network_address
    if network.num_addresses == 1:
        yield first
    else:
        yield from (first + 1, first + 2)


def _name_servers(facts: Facts) -> Iterator[IpAddress]:
    """Those of the conf: with most providers their own end of the tunnel."""
    if facts.conf is not None:
        yield from facts.conf.interface.dns


def _beside(status: TunnelStatus) -> Iterator[IpAddress]:
    """The first addresses of the networks that our own are in; there the other end mostly is."""
    for text in status.addresses:
        own = ip_interface(text)
        network = own.network
        if network.num_addresses == 1:
            network = ip_interface(f"{own.ip}/{NEIGHBOURS[own.version]}").network
        yield from _first_hosts(network)


def _host_bits(network: Network) -> int:
    return network.max_prefixlen - network.prefixlen


def own_address(status: TunnelStatus, address: str) -> str | None:
    """Our address in the tunnel that packets to `address` should come from."""
    wanted = ip_address(address)
    own = [ip_interface(text) for text in status.addresses]
    own = [each for each in own if each.version == wanted.version]
    own.sort(key=lambda each: (wanted not in each.network, each.is_link_local))
    return str(own[0].ip) if own else None
