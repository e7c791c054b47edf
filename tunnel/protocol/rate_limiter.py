"""How many handshake messages of one address are looked at under load.

A token bucket per source, kept as one number: the time at which the bucket will be full again
(the generic cell rate algorithm). A source whose bucket is full need not be remembered, and every
bucket is full a quarter of a second after its last use; so it is enough to remember two
generations of sources, and to forget the older one every second. No scan, no timer, a fixed bound.
"""

from typing import Final

from .constants import INITIATIONS_BURST, INITIATIONS_PER_SECOND, MAX_RATE_LIMITED_SOURCES

_COST: Final = 1 / INITIATIONS_PER_SECOND
_CAPACITY: Final = INITIATIONS_BURST * _COST
_GENERATION: Final = 1.0
_ROUNDING: Final = 1e-6


class RateLimiter:
    """20 a second with a burst of 5, for each IPv4 address or IPv6 /64."""

    __slots__ = ("_newer", "_older", "_turn_at")

    def __init__(self) -> None:
        self._newer: dict[bytes, float] = {}
        self._older: dict[bytes, float] = {}
        self._turn_at = 0.0

    def __len__(self) -> int:
        """Sources remembered."""
        return len(self._newer) + len(self._older)

    def allow(self, address: bytes, now: float) -> bool:
        """Whether `address` (4 or 16 bytes) may have one more message; counts it if so.

        When the memory is full of sources, those unknown must wait for the next second, and
        those known go on.
        """
        if now >= self._turn_at:
            # After a pause of two generations nothing in either is of use.
            self._older = self._newer if now < self._turn_at + _GENERATION else {}
            self._newer = {}
            self._turn_at = now + _GENERATION
        source = address[:8] if len(address) == 16 else address
        table = self._newer
        full_at = table.get(source)
        if full_at is None:
            if len(table) < MAX_RATE_LIMITED_SOURCES // 2:
                full_at = self._older.pop(source, now)
            elif source in self._older:
                table = self._older
                full_at = table[source]
            else:
                return False
        full_at = max(full_at, now)
        allowed = full_at + _COST - now <= _CAPACITY + _ROUNDING
        table[source] = full_at + _COST if allowed else full_at
        return allowed
