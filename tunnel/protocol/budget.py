"""So many a second: what a flood may cost."""


class Budget:
    """So many a second, at most `burst` at once: a token bucket."""

    __slots__ = ("_burst", "_filled_at", "_left", "_rate")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = self._left = burst
        self._filled_at = float("-inf")

    def has_room(self, now: float) -> bool:
        """Whether there is room for one more."""
        self._left = min(self._burst, self._left + (now - self._filled_at) * self._rate)
        self._filled_at = now
        return self._left >= 1.0

    def take(self, now: float) -> bool:
        """The same, and one less is left."""
        has_room = self.has_room(now)
        self._left -= has_room
        return has_room
