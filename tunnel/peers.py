"""The key and the peers of a running engine against those of a conf: compare, and make equal.

What is equal is not touched, so a peer that did not change keeps its sessions. Long lists are
worked off in slices, and packets get their turn in between.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

import trio

from tunnel.config import PeerConfig, PresharedKey, PublicKey, TunnelConfig
from tunnel.control.pace import Pace
from tunnel.engine import Engine, Peer, boot_time
from tunnel.io.endpoint import Endpoint
from tunnel.observe.changes import Change
from tunnel.protocol import Network

log = logging.getLogger("tunnel")

_SHOWN = 4
"""Networks named in a change; of more, the number is told."""


def owners(config: TunnelConfig) -> dict[Network, PublicKey]:
    """Which peer each allowed network belongs to: the last that lists it, as in WireGuard."""
    return {network: peer.public_key for peer in config.peers for network in peer.networks}


def wanted_peers(config: TunnelConfig) -> dict[PublicKey, PeerConfig]:
    """The peers of the conf by key, without one that has our own key: WireGuard ignores it."""
    own = config.interface.private_key.public_key()
    return {peer.public_key: peer for peer in config.peers if peer.public_key != own}


def networks_by_peer(config: TunnelConfig) -> dict[PublicKey, set[Network]]:
    """The networks each peer of the conf ends up with."""
    found: dict[PublicKey, set[Network]] = {key: set() for key in wanted_peers(config)}
    for network, key in owners(config).items():
        if key in found:
            found[key].add(network)
    return found


def differences(engine: Engine, old: TunnelConfig, new: TunnelConfig) -> Iterator[Change]:
    """What `apply` would change. `old` is the conf that was applied last.

    An endpoint counts as changed when the conf's has: one that roamed is where it should be.
    """
    protocol = engine.interface
    if protocol.private_key != new.interface.private_key:
        public = new.interface.private_key.public_key().to_base64()
        yield Change("~", "private key", f"the public key becomes {public}")
    wanted = wanted_peers(new)
    networks = networks_by_peer(new)
    before = {peer.public_key: peer for peer in old.peers}
    for key, running in protocol.peers.items():
        if key not in wanted:
            yield Change("-", f"peer {key.to_base64()}")
        else:
            yield from _peer_differences(
                engine, running, before.get(key), wanted[key], networks[key]
            )
    for key, peer in wanted.items():
        if key not in protocol.peers:
            yield Change("+", f"peer {key.to_base64()}", _networks(networks[key]))
            if peer.endpoint is not None:
                yield Change("+", f"peer {key.to_base64()} endpoint", str(peer.endpoint))


def _peer_differences(
    engine: Engine, running: Peer, before: PeerConfig | None, wanted: PeerConfig, nets: set[Network]
) -> Iterator[Change]:
    subject = f"peer {running.public_key.to_base64()}"
    if running.preshared_key != _psk(wanted):
        yield Change("~", f"{subject} preshared key", _how(running, wanted))
    has = set(engine.interface.allowed_ips.of(running))
    if has - nets:
        yield Change("-", f"{subject} allowed IPs", _networks(has - nets))
    if nets - has:
        yield Change("+", f"{subject} allowed IPs", _networks(nets - has))
    if endpoint_changed(before, wanted):
        now = running.endpoint or "unknown"
        yield Change("~", f"{subject} endpoint", f"{now} becomes {wanted.endpoint}")
    if running.persistent_keepalive != wanted.persistent_keepalive:
        detail = f"{running.persistent_keepalive} s becomes {wanted.persistent_keepalive} s"
        yield Change("~", f"{subject} persistent keepalive", detail)


def endpoint_changed(before: PeerConfig | None, wanted: PeerConfig) -> bool:
    """Whether the conf gives the peer another endpoint than the conf before. Taking the line out
    changes nothing: a peer stays where it is.
    """
    if wanted.endpoint is None:
        return False
    return before is None or before.endpoint != wanted.endpoint


async def apply(engine: Engine, new: TunnelConfig, endpoints: Mapping[PublicKey, Endpoint]) -> None:
    """Give the engine the key and the peers of `new`. `endpoints` holds those to set.

    Cannot fail, and is not interrupted half-way. The caller settles the engine.
    """
    protocol = engine.interface
    wanted = wanted_peers(new)
    for ignored in {peer.public_key for peer in new.peers} - wanted.keys():
        log.warning(
            "peer %s ignored: the key is our own; write the other side's public key there",
            ignored.to_base64(),
        )
    networks = networks_by_peer(new)
    pace = Pace()
    with trio.CancelScope(shield=True):
        for _ in protocol.private_key_steps(new.interface.private_key, boot_time()):
            await pace.step()
        for key in [key for key in protocol.peers if key not in wanted]:
            protocol.remove_peer(key)
            await pace.step()
        for key, config in wanted.items():
            peer = protocol.peers.get(key) or protocol.add_peer(key)
            if peer.preshared_key != _psk(config):
                peer.set_preshared_key(_psk(config))
            await _apply_networks(engine, peer, networks[key], pace)
            if key in endpoints:
                peer.set_endpoint(endpoints[key], boot_time())
            if peer.persistent_keepalive != config.persistent_keepalive:
                peer.set_persistent_keepalive(config.persistent_keepalive, boot_time())
            await pace.step()


async def _apply_networks(engine: Engine, peer: Peer, wanted: set[Network], pace: Pace) -> None:
    allowed = engine.interface.allowed_ips
    has = set(allowed.of(peer))
    # Additions first: what moves from one peer to another is never nobody's.
    for network in wanted - has:
        allowed.insert(network, peer)
        await pace.step()
    for network in has - wanted:
        allowed.remove(network, peer)
        await pace.step()


def _psk(peer: PeerConfig) -> PresharedKey:
    return PresharedKey.ZERO if peer.preshared_key is None else peer.preshared_key


def _how(running: Peer, wanted: PeerConfig) -> str:
    if running.preshared_key.is_zero:
        return "is set"
    return "is removed" if _psk(wanted).is_zero else "becomes another"


def _networks(networks: set[Network]) -> str:
    ordered = sorted(networks, key=lambda net: (net.version, int(net.network_address)))
    names = [str(network) for network in ordered[:_SHOWN]]
    more = len(ordered) - len(names)
    return ", ".join([*names, *([f"and {more} more"] if more else [])]) or "no allowed IPs"
