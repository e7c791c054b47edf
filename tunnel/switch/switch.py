"""Where a frame goes, and whether a peer may send it.

*Ports.* This end has one port, the TAP; each peer is another. What comes from a peer goes to the
TAP alone (split horizon): in a mesh each end has a tunnel to each other, so nothing need be passed
on, and nothing can go in a circle.

*Learning.* The source of every frame from a peer is noted with its VLAN, for `AGEING_TIME` seconds;
one that sends on our side is forgotten. VLANs are apart, because two routers may have the same MAC
address in different ones.

*Flooding.* A frame for a group, or for a MAC address that is not known, goes to every peer that can
have the IP address that it is for, or asks for.

*AllowedIPs.* A peer that has some sends and gets ARP, IPv4 and IPv6 only. An IP address is the
peer's that has the longest prefix for it; one that no prefix covers may be at any peer without
AllowedIPs. Whatever a frame of a peer says to be its own must be: the source of a packet, the
sender of ARP, the target of a neighbour advertisement, and what is probed for before it is used.
Free are only the addresses of those that have none yet (0.0.0.0 and ::). And what is for an address
goes to its peer only, so that a peer with the MAC address of another gets nothing of it.
"""

from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Generic, TypeVar

from .drops import SwitchDrop
from .frame import Frame
from .mac_table import MacTable, room_for_each

P = TypeVar("P", bound=Hashable)


class EthernetSwitch(Generic[P]):
    """The switch of one interface. Times are seconds of a clock that never goes back.

    `peers()` are all peers, `owner(address)` the one whose AllowedIPs cover an IP address (4 or 16
    bytes) best, and `is_bound(peer)` says whether it has any.
    """

    __slots__ = ("_is_bound", "_owner", "_peers", "_table")

    def __init__(
        self,
        *,
        peers: Callable[[], Collection[P]],
        owner: Callable[[bytes], P | None],
        is_bound: Callable[[P], bool],
    ) -> None:
        self._peers = peers
        self._owner = owner
        self._is_bound = is_bound
        self._table: MacTable[P] = MacTable()

    def destinations(self, frame: Frame, now: float) -> Sequence[P] | SwitchDrop:
        """The peers that a frame from the TAP goes to, at least one; or why it goes to none."""
        flaw = _flaw(frame)
        if flaw is not None:
            return flaw
        self._table.forget(frame.key)
        owner = None if frame.asks is None else self._owner(frame.asks)
        if not frame.is_for_group:
            peer = self._table.lookup(frame.destination_key, now)
            if peer is not None:
                return self._to_station(frame, peer, owner)
        if owner is not None:
            return (owner,)
        # Without an owner, an address may be at a peer without AllowedIPs only.
        free_only = frame.asks is not None or not frame.is_ip
        peers = [peer for peer in self._peers() if not (free_only and self._is_bound(peer))]
        return peers or SwitchDrop.NO_DESTINATION

    def _to_station(self, frame: Frame, peer: P, owner: P | None) -> Sequence[P] | SwitchDrop:
        if owner is not None:
            return (peer,) if peer == owner else SwitchDrop.DESTINATION_NOT_ALLOWED
        if not self._is_bound(peer):
            return (peer,)
        if not frame.is_ip:
            return SwitchDrop.ETHERTYPE_NOT_ALLOWED
        return (peer,) if frame.asks is None else SwitchDrop.DESTINATION_NOT_ALLOWED

    def source_allowed(self, peer: P, frame: Frame) -> bool:
        """Whether `peer` may have all the addresses that its frame says to be its own."""
        bound = self._is_bound(peer)
        if frame.claims is None:
            return not bound
        for address in frame.claims:
            owner = self._owner(address)
            if owner != peer if owner is not None else bound:
                return False
        return True

    def receive(self, peer: P, frame: Frame, now: float) -> SwitchDrop | None:
        """Learn from a frame of `peer` that `source_allowed`; why it does not go to the TAP."""
        flaw = _flaw(frame)
        if flaw is not None:
            return flaw
        if not frame.is_ip and self._is_bound(peer):
            return SwitchDrop.ETHERTYPE_NOT_ALLOWED
        self._table.learn(frame.key, peer, now, room_for_each(len(self._peers())))
        return None

    def forget(self, peer: P) -> None:
        """Forget what was learned of a peer that is removed."""
        self._table.forget_peer(peer)

    def count_of(self, peer: P, now: float) -> int:
        """How many MAC addresses are known to be at `peer`."""
        return self._table.count_of(peer, now)


def _flaw(frame: Frame) -> SwitchDrop | None:
    """Why no bridge passes this frame on."""
    if not frame.is_from_station:
        return SwitchDrop.SOURCE_MAC
    return SwitchDrop.RESERVED_GROUP if frame.is_for_next_bridge else None
