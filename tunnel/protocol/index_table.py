"""The receiver indices in use: random 32-bit numbers, each of one keypair or one handshake.

An index is drawn for every handshake and goes on to the keypair that comes of it.
"""

from collections.abc import Container
from typing import Generic

from .driver import AwaitedResponse, Random, T
from .keypairs import Keypair
from .timers import P


class PendingInitiation(Generic[P]):
    """An initiation of ours that may still be answered. `sent_at` is in seconds."""

    __slots__ = ("awaited", "local_index", "peer", "sent_at")

    def __init__(self, peer: P, awaited: AwaitedResponse, local_index: int, sent_at: float) -> None:
        self.peer = peer
        self.awaited = awaited
        self.local_index = local_index
        self.sent_at = sent_at


class IndexTable(Generic[P, T]):
    """What the receiver index of a message leads to.

    The entries are written by those who own them: `Keypairs` and `Handshakes` of each peer.
    """

    __slots__ = ("_random", "handshakes", "keypairs")

    def __init__(self, random: Random) -> None:
        self._random = random
        self.keypairs: dict[int, Keypair[P, T]] = {}
        self.handshakes: dict[int, PendingInitiation[P]] = {}

    def draw(self, besides: Container[int] = ()) -> int:
        """A free index that is not in `besides`. It stays free until it is put into one of the two
        tables."""
        while True:
            index = int.from_bytes(self._random(4), "little")
            if self.is_free(index) and index not in besides:
                return index

    def is_free(self, index: int) -> bool:
        """Whether `index` is in neither table."""
        return index not in self.keypairs and index not in self.handshakes
