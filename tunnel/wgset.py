"""What a `set` of WireGuard's UAPI does to a running engine: all of it or nothing.

What can fail comes first, the port and the mark; from then on nothing can, and nothing interrupts.
Long lists are worked off in slices, and packets get their turn in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network

import trio

from tunnel.config import PublicKey
from tunnel.control.uapi import DeviceChange, PeerChange
from tunnel.engine import Engine, Peer, boot_time
from tunnel.observe import logs

SLICE = 250
"""Allowed IPs between two turns of the event loop: about a millisecond."""


async def carry_out(engine: Engine, change: DeviceChange) -> None:
    """Do what `change` says, as the kernel's WireGuard would.

    Raises UdpError when the port or the mark cannot be had; then everything is as it was.
    """
    logs.hide(_secrets(change))
    _apply_socket(engine, change)
    steps = _Steps(engine)
    with trio.CancelScope(shield=True):
        if change.private_key is not None or change.clear_private_key:
            engine.interface.set_private_key(change.private_key, boot_time())
        if change.replace_peers:
            for key in list(engine.interface.peers):
                await steps.remove(key)
        for peer in change.peers:
            await steps.apply(peer)
    engine.settle()


def _secrets(change: DeviceChange) -> Iterator[bytes]:
    for key in (change.private_key, *(peer.preshared_key for peer in change.peers)):
        if key is not None:
            yield bytes(key)


def _apply_socket(engine: Engine, change: DeviceChange) -> None:
    udp = engine.udp
    before = udp.fwmark
    # The mark first: setting it back cannot fail, a port that was left may be gone.
    if change.fwmark is not None and change.fwmark != before:
        udp.set_fwmark(change.fwmark)
    if change.listen_port is not None and change.listen_port != udp.port:
        try:
            udp.set_port(change.listen_port)
        except BaseException:
            if udp.fwmark != before:
                udp.set_fwmark(before)
            raise


class _Steps:
    """The part of a set that cannot fail, with pauses."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._interface = engine.interface
        self._count = 0

    async def apply(self, change: PeerChange) -> None:
        """Make one peer what `change` says."""
        await self._pause()
        key = change.public_key
        if change.remove:
            await self.remove(key)
            return
        if key == self._interface.public_key:
            return  # as the kernel does: one's own key is no peer
        peer = self._interface.peers.get(key)
        if peer is None:
            if change.update_only:
                return
            peer = self._interface.add_peer(key)
        if change.preshared_key is not None and change.preshared_key != peer.preshared_key:
            peer.set_preshared_key(change.preshared_key)
        await self._apply_networks(peer, change)
        # Last, since it may greet the peer at once.
        if change.endpoint is not None:
            peer.set_endpoint(change.endpoint, boot_time())
        keepalive = change.persistent_keepalive
        if keepalive is not None and keepalive != peer.persistent_keepalive:
            peer.set_persistent_keepalive(keepalive, boot_time())

    async def remove(self, key: PublicKey) -> None:
        """Remove a peer, if it is one."""
        await self._pause()
        peer = self._interface.peers.get(key)
        if peer is not None:
            await self._drop_networks(peer, {})
            self._interface.remove_peer(key)

    async def _apply_networks(self, peer: Peer, change: PeerChange) -> None:
        # The last word on each; additions first, so that what stays is never nobody's.
        wanted: dict[IPv4Network | IPv6Network, bool] = {}
        for network, adds in change.allowed_ips:
            wanted[network] = adds
            await self._pause()
        allowed = self._interface.allowed_ips
        for network, adds in wanted.items():
            if adds:
                allowed.insert(network, peer)
            else:
                allowed.remove(network, peer)
            await self._pause()
        if change.replace_allowed_ips:
            await self._drop_networks(peer, wanted)

    async def _drop_networks(self, peer: Peer, kept: dict[IPv4Network | IPv6Network, bool]) -> None:
        for network in self._interface.allowed_ips.iter_of(peer):
            if not kept.get(network):
                self._interface.allowed_ips.remove(network, peer)
            await self._pause()

    async def _pause(self) -> None:
        self._count += 1
        if self._count % SLICE == 0:
            await trio.lowlevel.checkpoint()
            self._engine.settle()
