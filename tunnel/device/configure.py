"""What a typed change of the configuration does to a running engine, in one place.

What the kernel may refuse comes first, and can be undone; the rest cannot fail. So a list of
changes is applied whole or not at all, though in slices between which packets pass: nothing that is
the same before and after is missing in between.

One thing is gentler than in the kernel: when `replace_peers` is followed by a peer that is there
already, as after `wg setconf`, that peer gets the new values and none of the old, but keeps its
sessions, counters and, unless one is given, its endpoint. No packet is lost for a peer that stays.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence

import trio

from tunnel.config import PresharedKey, PublicKey
from tunnel.control.timeslice import Pace
from tunnel.control.uapi_changes import (
    DeviceChange,
    PeerChange,
    ReplacePeers,
    SetFwmark,
    SetListenPort,
    SetPrivateKey,
)
from tunnel.device import allowed_ips
from tunnel.device.endpoints import Endpoints
from tunnel.engine import Engine, Peer
from tunnel.io.endpoint import Endpoint
from tunnel.io.errors import UdpError
from tunnel.log import redact

log = logging.getLogger("tunnel")


async def apply(
    engine: Engine, changes: Sequence[DeviceChange], names: Endpoints | None = None
) -> None:
    """Apply all of `changes` in order. Raises UdpError, and then nothing has changed.

    `names`, if the tunnel has some, take note of endpoints that are set by hand. Cancellation does
    not interrupt it: there is the old configuration or the new one. The caller makes sure that
    nothing else changes the engine meanwhile.
    """
    _hide_secrets(changes)
    steps = _Steps(engine, names or Endpoints())
    with trio.CancelScope(shield=True):
        steps.apply_to_sockets(changes)
        await steps.apply_to_protocol(changes)
    engine.settle()


def _hide_secrets(changes: Sequence[DeviceChange]) -> None:
    for change in changes:
        if isinstance(change, SetPrivateKey) and change.key is not None:
            redact.hide([bytes(change.key)], private=True)
        elif isinstance(change, PeerChange) and change.preshared_key is not None:
            redact.hide([bytes(change.preshared_key)])


class _Steps:
    """The parts of `apply`, in slices."""

    def __init__(self, engine: Engine, names: Endpoints) -> None:
        self._engine = engine
        self._names = names
        self._pace = Pace()

    def apply_to_sockets(self, changes: Sequence[DeviceChange]) -> None:
        udp = self._engine.udp
        port, fwmark = udp.port, udp.fwmark
        try:
            for change in changes:
                if isinstance(change, SetFwmark) and change.fwmark != udp.fwmark:
                    udp.set_fwmark(change.fwmark)
                elif isinstance(change, SetListenPort):
                    udp.set_port(change.port)
        except UdpError:
            with contextlib.suppress(UdpError):
                udp.set_fwmark(fwmark)
            try:
                udp.set_port(port)
            except UdpError as error:
                log.error("the UDP port could not be restored and is %d: %s", udp.port, error)
            raise

    async def apply_to_protocol(self, changes: Sequence[DeviceChange]) -> None:
        renewed: set[PublicKey] = set()
        for place, change in enumerate(changes):
            if isinstance(change, PeerChange):
                is_new = change.public_key in renewed
                renewed.discard(change.public_key)
                await self._apply_to_peer(change, is_new=is_new)
            elif isinstance(change, SetPrivateKey):
                await allowed_ips.set_private_key(self._engine, change.key, self._pace)
            elif isinstance(change, ReplacePeers):
                renewed = await self._replace_peers(changes[place + 1 :])
            await self._pace.step()

    async def _replace_peers(self, following: Sequence[DeviceChange]) -> set[PublicKey]:
        """Remove the peers that do not come again; the keys of those that do."""
        first: dict[PublicKey, PeerChange] = {}
        for change in following:
            if isinstance(change, ReplacePeers):
                break
            if isinstance(change, PeerChange):
                first.setdefault(change.public_key, change)
                await self._pace.step()
        peers = self._engine.interface.peers
        staying = {
            key
            for key, change in first.items()
            if key in peers and not change.remove and not change.update_only
        }
        for key in [key for key in peers if key not in staying]:
            await self._remove_peer(peers[key])
        return staying

    async def _apply_to_peer(self, change: PeerChange, *, is_new: bool) -> None:
        """Apply one section; with `is_new`, what it does not name goes back to its default."""
        protocol = self._engine.interface
        key = change.public_key
        peer = protocol.peers.get(key)
        if change.remove:
            if peer is not None:
                await self._remove_peer(peer)
            return
        if peer is None:
            if change.update_only:
                return
            if key == protocol.public_key:
                log.warning(
                    "peer %s ignored: the key is our own; set the other side's public key",
                    key.to_base64(),
                )
                return
            peer = protocol.add_peer(key)
        psk, keepalive = change.preshared_key, change.persistent_keepalive
        if is_new:
            psk = PresharedKey.ZERO if psk is None else psk
            keepalive = keepalive or 0
        if psk is not None and psk != peer.preshared_key:
            peer.set_preshared_key(psk)
        if change.replace_allowed_ips or is_new:
            await allowed_ips.replace(self._engine, peer, change.allowed_ips, self._pace)
        else:
            await allowed_ips.change(self._engine, peer, change.allowed_ips, self._pace)
        if change.endpoint is not None:
            self._names.set_by_hand(key, change.endpoint)
            peer.set_endpoint(_with_source(change.endpoint, peer.endpoint), self._engine.clock())
        if keepalive is not None and keepalive != peer.persistent_keepalive:
            peer.set_persistent_keepalive(keepalive, self._engine.clock())

    async def _remove_peer(self, peer: Peer) -> None:
        self._names.forget(peer.public_key)
        await allowed_ips.remove_peer(self._engine, peer, self._pace)


def _with_source(wanted: Endpoint, current: Endpoint | None) -> Endpoint:
    """`wanted`; if it is the address in use, with the source address that belongs to it."""
    return current if current is not None and current.same_remote(wanted) else wanted
