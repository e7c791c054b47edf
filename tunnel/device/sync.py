"""Compare the key and the peers of a running engine with those of a conf, and make them equal.

What is equal is not touched, so a peer that did not change keeps its sessions. Long lists are
processed in slices, and packets get their turn in between.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Literal

import trio

from tunnel.config import PeerConfig, PresharedKey, PrivateKey, PublicKey, TunnelConfig
from tunnel.config.limits import Quota, RateLimit
from tunnel.control.messages.changes import Change, named
from tunnel.control.timeslice import Pace
from tunnel.device import allowed_ips
from tunnel.device.allowed_ips import Networks, summarize
from tunnel.engine import Engine, Peer
from tunnel.io.endpoint import Endpoint

log = logging.getLogger("tunnel")


def wanted_peers(config: TunnelConfig, own: PublicKey | None) -> dict[PublicKey, PeerConfig]:
    """The peers of the conf by key, without one that has our `own` key: WireGuard ignores it."""
    return {peer.public_key: peer for peer in config.peers if peer.public_key != own}


def _wanted_key(engine: Engine, config: TunnelConfig) -> PrivateKey | None:
    """Our private key as the conf wants it: one that it leaves to a hook stays as it was set."""
    return config.interface.private_key or engine.interface.private_key


async def differences(engine: Engine, old: TunnelConfig, new: TunnelConfig) -> list[Change]:
    """What `apply` would change. `old` is the conf that was applied last.

    An endpoint counts as changed when the conf's has: one that roamed is where it should be.
    """
    pace = Pace()
    protocol = engine.interface
    found: list[Change] = []
    private_key = _wanted_key(engine, new)
    own = private_key.public_key() if private_key is not None else None
    if own != protocol.public_key and own is not None:
        found.append(Change("~", "private key", f"the public key becomes {own.to_base64()}"))
    wanted = wanted_peers(new, own)
    await pace.step()
    nets = await allowed_ips.wanted_networks(new, own, pace)
    before = {peer.public_key: peer for peer in old.peers}
    for key, running in list(protocol.peers.items()):
        if key not in wanted:
            gone = before.get(key)
            name = "" if gone is None else gone.friendly_name
            found.append(Change("-", f"peer {key.to_base64()}", name=name))
        else:
            found += await _peer_differences(
                engine, running, before.get(key), wanted[key], nets[key], pace
            )
        await pace.step()
    for key, peer in wanted.items():
        if key not in protocol.peers:
            subject = f"peer {key.to_base64()}"
            name = peer.friendly_name
            found.append(Change("+", subject, str(await summarize(nets[key], pace)), name))
            if peer.endpoint is not None:
                found.append(Change("+", f"{subject} endpoint", str(peer.endpoint), name))
        await pace.step()
    return found


async def _peer_differences(
    engine: Engine,
    running: Peer,
    before: PeerConfig | None,
    wanted: PeerConfig,
    nets: Networks,
    pace: Pace,
) -> list[Change]:
    found: list[Change] = []

    def add(sign: Literal["+", "-", "~"], aspect: str, detail: str) -> None:
        subject = f"peer {running.public_key.to_base64()} {aspect}"
        found.append(Change(sign, subject, detail, wanted.friendly_name))

    if running.preshared_key != _psk(wanted):
        add("~", "preshared key", _how(running, wanted))
    lost, gained = await allowed_ips.compare(engine, running, nets, pace)
    if lost:
        add("-", "allowed IPs", str(lost))
    if gained:
        add("+", "allowed IPs", str(gained))
    if endpoint_changed(before, wanted, running.endpoint):
        now = running.endpoint or "unknown"
        add("~", "endpoint", f"{now} becomes {wanted.endpoint}")
    if running.persistent_keepalive != wanted.persistent_keepalive:
        detail = f"{_every(running.persistent_keepalive)} becomes "
        detail += _every(wanted.persistent_keepalive)
        add("~", "persistent keepalive", detail)
    rate, quota = _limits(engine, running)
    if rate != wanted.rate_limit:
        add("~", "rate limit", f"{rate} becomes {wanted.rate_limit}")
    if quota != wanted.quota:
        add("~", "quota", f"{quota} becomes {wanted.quota}")
    return found


def _limits(engine: Engine, peer: Peer) -> tuple[RateLimit, Quota]:
    limit = engine.metering.limit_of(peer)
    if limit is None:
        return RateLimit(), Quota()
    return limit.rate, Quota() if limit.quota is None else limit.quota.quota


def endpoint_changed(before: PeerConfig | None, wanted: PeerConfig, now: Endpoint | None) -> bool:
    """Whether the conf gives the peer another endpoint than the conf before, and it is not there
    `now`. Taking the line out changes nothing: a peer stays where it is.
    """
    if wanted.endpoint is None or (before is not None and before.endpoint == wanted.endpoint):
        return False
    address = wanted.endpoint.address
    if now is None or address is None:
        return True
    return (now.address, now.port) != (address.packed, wanted.endpoint.port)


def _every(seconds: int) -> str:
    return f"{seconds} s" if seconds else "off"


async def apply(engine: Engine, new: TunnelConfig, endpoints: Mapping[PublicKey, Endpoint]) -> None:
    """Give the engine the key and the peers of `new`. `endpoints` holds those to set.

    Cannot fail, and cancellation does not interrupt it. The caller settles the engine.
    """
    pace = Pace()
    protocol = engine.interface
    with trio.CancelScope(shield=True):
        private_key = _wanted_key(engine, new)
        if protocol.private_key != private_key:
            await allowed_ips.set_private_key(engine, private_key, pace)
        own = protocol.public_key
        nets = await allowed_ips.wanted_networks(new, own, pace)
        wanted = wanted_peers(new, own)
        for ignored in (peer for peer in new.peers if peer.public_key not in wanted):
            log.warning(
                "peer %s ignored: the key is our own; write the other side's public key there",
                named(ignored.public_key.to_base64(), ignored.friendly_name),
            )
        for key, peer in list(protocol.peers.items()):
            if key not in wanted:
                await allowed_ips.remove_peer(engine, peer, pace)
            await pace.step()
        for key, config in wanted.items():
            peer = protocol.peers.get(key) or protocol.add_peer(key)
            if peer.preshared_key != _psk(config):
                peer.set_preshared_key(_psk(config))
            await allowed_ips.replace(engine, peer, nets[key], pace)
            if key in endpoints:
                peer.set_endpoint(endpoints[key], engine.clock())
            note_endpoint(engine, config)
            if peer.persistent_keepalive != config.persistent_keepalive:
                peer.set_persistent_keepalive(config.persistent_keepalive, engine.clock())
            engine.metering.set_limit(peer, config.rate_limit, config.quota)
            await pace.step()


def note_endpoint(engine: Engine, config: PeerConfig) -> None:
    """Let the next daemon know what its conf has to differ from, to say where the peer is."""
    peer = engine.interface.peers.get(config.public_key)
    if peer is not None:
        engine.set_given(peer, b"" if config.endpoint is None else str(config.endpoint).encode())


def _psk(peer: PeerConfig) -> PresharedKey:
    return PresharedKey.ZERO if peer.preshared_key is None else peer.preshared_key


def _how(running: Peer, wanted: PeerConfig) -> str:
    if running.preshared_key.is_zero:
        return "is set"
    return "is removed" if _psk(wanted).is_zero else "is replaced"
