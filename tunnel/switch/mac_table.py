"""Which peer a MAC address was last seen at: bounded for each peer, with ageing."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

P = TypeVar("P", bound=Hashable)

AGEING_TIME: Final = 300.0
"""Seconds after which an address that sent nothing is forgotten (IEEE 802.1Q, table 8-6)."""

MOST_PER_PEER: Final = 1024
"""Addresses that are remembered of one peer: beyond, its oldest is forgotten."""
MOST_TOGETHER: Final = 65_536
"""With very many peers each has less room, so that all have no more than this together …"""
LEAST_PER_PEER: Final = 16
"""… but not less than this."""

REFRESH: Final = 1.0
"""Seconds between two notes that an address is still there."""


def room_for_each(peers: int) -> int:
    """How many addresses are remembered of a peer if there are so many."""
    return max(LEAST_PER_PEER, min(MOST_PER_PEER, MOST_TOGETHER // max(1, peers)))


class MacTable(Generic[P]):
    """Addresses are bytes, with the VLAN in them, and peers anything hashable.

    Each peer has a room of its own, so none can push out what was learned of another, however many
    addresses it invents. A station that moves is learned at its new peer at once.
    """

    __slots__ = ("_at", "_of")

    def __init__(self) -> None:
        self._at: dict[bytes, P] = {}
        self._of: dict[P, OrderedDict[bytes, float]] = {}
        """Of each peer when an address was last seen, the latest last; never empty."""

    def __len__(self) -> int:
        """Addresses of all peers, those included that are too old."""
        return len(self._at)

    def learn(self, address: bytes, peer: P, now: float, room: int) -> None:
        """`address` was seen at `peer`, of which `room` addresses are remembered."""
        before = self._at.get(address)
        if before is not None and before == peer:
            seen = self._of[peer]
            if now - seen[address] >= REFRESH:
                seen[address] = now
                seen.move_to_end(address)
            return
        if before is not None:
            self._remove(address, before)
        seen = self._of.setdefault(peer, OrderedDict())
        seen[address] = now
        self._at[address] = peer
        while len(seen) > room or seen[next(iter(seen))] + AGEING_TIME <= now:
            oldest, _ = seen.popitem(last=False)
            del self._at[oldest]

    def lookup(self, address: bytes, now: float) -> P | None:
        """The peer that `address` was seen at; None if it was at none, or is too old."""
        peer = self._at.get(address)
        if peer is None or self._of[peer][address] + AGEING_TIME > now:
            return peer
        self._remove(address, peer)
        return None

    def forget(self, address: bytes) -> None:
        """Forget an address, if it is known."""
        peer = self._at.get(address)
        if peer is not None:
            self._remove(address, peer)

    def forget_peer(self, peer: P) -> None:
        """Forget all addresses of a peer."""
        for address in self._of.pop(peer, ()):
            del self._at[address]

    def count_of(self, peer: P, now: float) -> int:
        """How many addresses of `peer` are known and not too old."""
        seen = self._of.get(peer)
        while seen:
            oldest = next(iter(seen))
            if seen[oldest] + AGEING_TIME > now:
                return len(seen)
            self._remove(oldest, peer)
        return 0

    def _remove(self, address: bytes, peer: P) -> None:
        del self._at[address]
        seen = self._of[peer]
        del seen[address]
        if not seen:
            del self._of[peer]
