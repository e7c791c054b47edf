"""The replay window: which message counters were seen (RFC 6479).

A ring of 128 words of 64 bits. Moving the window forward clears whole words instead of shifting
bits; the price is one word, so that the window holds 8192 - 64 counters.
"""

from typing import Final

from tunnel.datapath.interface import REPLAY_WINDOW

_WORDS: Final = 128


class ReplayWindow:
    """Counters seen so far.

    `is_new` may be asked before authentication, to save the work; `mark` is called only after it,
    since an attacker could otherwise move the window.
    """

    __slots__ = ("_ring", "greatest")

    def __init__(self, start: int = 0) -> None:
        """With all counters below `start` seen."""
        self._ring = [(1 << 64) - 1 if start else 0] * _WORDS
        self.greatest = start - 1
        """The greatest counter marked, -1 before the first."""
        if start:
            self._ring[self.greatest >> 6 & 127] = (2 << (self.greatest & 63)) - 1

    def is_new(self, counter: int) -> bool:
        """Whether `counter` is inside or ahead of the window and was not marked yet."""
        if counter > self.greatest:
            return True
        if counter + REPLAY_WINDOW < self.greatest:
            return False
        return not self._ring[counter >> 6 & 127] >> (counter & 63) & 1

    def mark(self, counter: int) -> None:
        """Remember an authenticated counter that `is_new` accepted."""
        word = counter >> 6
        if counter > self.greatest:
            newest = self.greatest >> 6
            if word > newest:
                ring = self._ring
                for cleared in range(max(newest, word - _WORDS) + 1, word + 1):
                    ring[cleared & 127] = 0
            self.greatest = counter
        self._ring[word & 127] |= 1 << (counter & 63)
