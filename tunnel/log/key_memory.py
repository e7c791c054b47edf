"""A memory of keys that forgets none of a million, and whose size does not grow for ever.

It answers one question: was this key told? The latest keys are kept as they are. Older ones go
into a Bloom filter, which costs a few bytes a key, never misses one that is in it, and takes one
other in some thousands for one of them. To hide a public key now and then, where there are that
many secrets, is the better mistake.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

LATEST: Final = 65_536
"""Keys kept as they are, and known for certain."""

OLDER: Final = 1_000_000
"""Keys that one filter takes; of two filters the older one goes when the newer is full."""

_BITS: Final = 1 << 25
_PROBES: Final = 4


class KeyMemory:
    """Keys that were told, at least the last LATEST + OLDER; some 20 MB when full."""

    def __init__(self, *, latest: int = LATEST, older: int = OLDER) -> None:
        self._latest_size = latest
        self._older_size = older
        # A dict would look for its first among all that are gone from it.
        self._latest: OrderedDict[bytes, None] = OrderedDict()
        self._filters: list[bytearray] = []  # the newer one first
        self._filtered = 0  # keys in the newer one

    def __len__(self) -> int:
        """Keys kept as they are."""
        return len(self._latest)

    def __contains__(self, key: bytes) -> bool:
        if key in self._latest:
            return True
        return bool(self._filters) and any(
            all(bits[place >> 3] & 1 << (place & 7) for place in _places(key))
            for bits in self._filters
        )

    def add(self, key: bytes) -> None:
        """Remember `key`; telling it again makes it one of the latest."""
        latest = self._latest
        latest[key] = None
        latest.move_to_end(key)
        if len(latest) > self._latest_size:
            self._filter(latest.popitem(last=False)[0])

    def _filter(self, key: bytes) -> None:
        if not self._filters or self._filtered >= self._older_size:
            self._filters = [bytearray(_BITS // 8), *self._filters[:1]]
            self._filtered = 0
        bits = self._filters[0]
        is_new = False
        for place in _places(key):
            bit = 1 << (place & 7)
            if not bits[place >> 3] & bit:
                bits[place >> 3] |= bit
                is_new = True
        # Those that are told again and again fill nothing.
        self._filtered += is_new


def _places(key: bytes) -> list[int]:
    """The bits that stand for `key`; Python's hash of bytes is keyed, and no one can foresee it."""
    number = hash(key)
    step = number >> 32 | 1
    return [(number + probe * step) % _BITS for probe in range(_PROBES)]
