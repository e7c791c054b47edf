"""Who is sent a cookie reply under load.

An initiator waits `REKEY_TIMEOUT` before it asks again, and then it has the cookie. So a source
that was sent one lately need not be answered, and a flood that has no more sources than can be
answered in that time crowds out no one. Of more sources each has the same chance.

Peers where we know them to be have a budget of their own: a forger who sends from ever new
addresses does not end the sessions there are.
"""

from collections import OrderedDict

from .budget import Budget
from .constants import (
    COOKIE_REPLIES_BURST,
    COOKIE_REPLIES_PER_SECOND,
    COOKIE_REPLY_SPACING,
    KNOWN_COOKIE_REPLIES_PER_SECOND,
)


class CookieReplies:
    """What was sent in the last `COOKIE_REPLY_SPACING` seconds, and how much more may be.

    A `source` is what `source_bytes` returns; it is `known` if a peer's endpoint has its address.
    """

    __slots__ = ("_budget", "_budget_of_known", "_sent_at")

    def __init__(self) -> None:
        self._budget = Budget(COOKIE_REPLIES_PER_SECOND, COOKIE_REPLIES_BURST)
        self._budget_of_known = Budget(KNOWN_COOKIE_REPLIES_PER_SECOND, COOKIE_REPLIES_BURST)
        self._sent_at: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        """Sources remembered."""
        return len(self._sent_at)

    def has_room(self, now: float) -> bool:
        """Whether `take` would say yes to any source."""
        return self._budget.has_room(now) or self._budget_of_known.has_room(now)

    def may_send(self, source: bytes, now: float, *, known: bool) -> bool:
        """Whether `take` would say yes."""
        if known and self._budget_of_known.has_room(now):
            return True
        sent_at = self._sent_at.get(source)
        is_new = sent_at is None or now - sent_at >= COOKIE_REPLY_SPACING
        return is_new and self._budget.has_room(now)

    def take(self, source: bytes, now: float, *, known: bool) -> bool:
        """Whether `source` may be sent a cookie reply; counts it if so."""
        if known and self._budget_of_known.take(now):
            return True
        if not self.may_send(source, now, known=False):
            return False
        self._budget.take(now)
        sent_at = self._sent_at
        while sent_at and now - next(iter(sent_at.values())) >= COOKIE_REPLY_SPACING:
            sent_at.popitem(last=False)
        sent_at[source] = now
        return True
