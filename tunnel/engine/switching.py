"""The switch between a TAP and the peers: what routing by AllowedIPs is for a TUN."""

from __future__ import annotations

from collections.abc import Sequence

from tunnel.datapath import VIRTIO_NET_HDR_LEN
from tunnel.packet.ethernet import HEADER_LENGTH, ethertype_untrusted
from tunnel.protocol import ProtocolDrop, PublicKey
from tunnel.switch import LOOKED_AT, EthernetSwitch, Frame, SwitchDrop

from .common import EngineDrop, Peer
from .no_way import NoWay
from .shared import Shared


class Switching:
    """Joins `EthernetSwitch`, which knows peers by their public keys, with the peers themselves."""

    def __init__(self, shared: Shared) -> None:
        interface = shared.interface
        self._shared = shared
        self._no_way = NoWay(shared)
        self._peers = interface.peers
        self._peers_at = interface.peers_at
        self._allowed_ips = interface.allowed_ips
        self._switch: EthernetSwitch[PublicKey] = EthernetSwitch(
            peers=interface.peers.keys, owner=self._owner, is_bound=self._is_bound
        )

    def peers_for(self, view: memoryview, start: int, end: int) -> Sequence[Peer]:
        """The peers that the frame ``view[start:end]`` of the TAP goes to; what goes to none is
        counted.
        """
        drop: str | None = None
        peers: list[Peer] = []
        frame = _frame_of(view[start:end])
        if frame is None:
            drop = EngineDrop.NOT_IP
        elif frame.asks in self._peers_at and self._no_way.is_loop(
            view[start:end], link=_link_of(view[start:end])
        ):
            drop = ProtocolDrop.ROUTING_LOOP
        else:
            found = self._switch.destinations(frame, self._shared.clock())
            if isinstance(found, SwitchDrop):
                drop = found
            else:
                # One that was removed may not be forgotten yet.
                peers = [self._peers[key] for key in found if key in self._peers]
                drop = None if peers else SwitchDrop.NO_DESTINATION
        if drop is not None and drop is not ProtocolDrop.ROUTING_LOOP:
            self._shared.counters.drop(drop)
        if self._shared.tracer is not None:
            self._shared.tracer.frame_read(view, start, end, drop)
        return peers

    def refusal(self, peer: Peer, view: memoryview) -> str | None:
        """Why the frame of a peer, behind its virtio header, does not go to the TAP, and counted;
        None if it does.
        """
        frame = _frame_of(view)
        if frame is None:
            reason: str = EngineDrop.NOT_IP
        elif not self._switch.source_allowed(peer.public_key, frame):
            peer.count(ProtocolDrop.SOURCE_NOT_ALLOWED)
            return ProtocolDrop.SOURCE_NOT_ALLOWED
        else:
            flaw = self._switch.receive(peer.public_key, frame, self._shared.clock())
            if flaw is None:
                return None
            reason = flaw
        self._shared.counters.drop(reason)
        return reason

    def forget(self, key: PublicKey) -> None:
        """Forget what was learned of a peer that was removed."""
        self._switch.forget(key)

    def count_of(self, key: PublicKey) -> int:
        """How many MAC addresses are known to be at a peer."""
        return self._switch.count_of(key, self._shared.clock())

    def _owner(self, address: bytes) -> PublicKey | None:
        peer = self._allowed_ips.lookup(address)
        return None if peer is None else peer.public_key

    def _is_bound(self, key: PublicKey) -> bool:
        peer = self._peers.get(key)
        return peer is not None and self._allowed_ips.count_of(peer) > 0


def _frame_of(view: memoryview) -> Frame | None:
    """The Ethernet frame behind a virtio header; None if its header is not whole."""
    data = bytes(view[VIRTIO_NET_HDR_LEN : VIRTIO_NET_HDR_LEN + LOOKED_AT])
    return Frame(data) if len(data) >= HEADER_LENGTH else None


def _link_of(view: memoryview) -> int:
    """Bytes of the Ethernet header behind a virtio header."""
    return ethertype_untrusted(view[VIRTIO_NET_HDR_LEN:])[1]
