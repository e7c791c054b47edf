"""Confs of peers that wait to be fetched once: in memory only, and not for long."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from tunnel.web.errors import WebError
from tunnel.web.messages import Handout

HELD: Final = 900.0
"""Seconds after which no link can be made to a handout any more."""

LONGEST: Final = 7 * 86400
"""Seconds for which a link may wait."""

_MOST: Final = 256


@dataclass(frozen=True, slots=True)
class _Waiting:
    peer: str
    handout: Handout
    until: float


class Links:
    """Handouts that a link may be made to, and those that wait behind one. `clock` is Unix time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._held: OrderedDict[str, _Waiting] = OrderedDict()
        self._linked: OrderedDict[str, _Waiting] = OrderedDict()

    def hold(self, peer: str, handout: Handout) -> Handout:
        """Keep the handout of a peer for a while; the same with an ID."""
        self.forget(peer)
        handout = replace(handout, id=secrets.token_urlsafe(16))
        self._put(self._held, handout.id, _Waiting(peer, handout, self._clock() + HELD))
        return handout

    def make(self, handout: str, seconds: int) -> tuple[str, float, Handout]:
        """A link to a held handout, which opens once: token, Unix time of its end, and to what."""
        if not 60 <= seconds <= LONGEST:
            raise WebError(400, "body", "a link is valid for at least a minute and at most 7 days")
        self._expire()
        waiting = self._held.pop(handout, None)
        if waiting is None:
            raise WebError(
                410, "gone", "this conf is no longer kept; make new keys to get another one"
            )
        token = secrets.token_urlsafe(32)
        until = self._clock() + seconds
        self._put(self._linked, token, replace(waiting, until=until))
        return token, until, waiting.handout

    def take(self, token: str) -> Handout:
        """What a link leads to; from then on it leads nowhere. Raises WebError."""
        self._expire()
        waiting = self._linked.pop(token, None)
        if waiting is None:
            raise WebError(
                410,
                "gone",
                "this link was used, has expired, or was withdrawn: ask for another one",
            )
        return replace(waiting.handout, id="", notice="")

    def until(self, peer: str) -> float:
        """The end of the link that waits for a peer, 0.0 for none."""
        self._expire()
        return max((each.until for each in self._linked.values() if each.peer == peer), default=0.0)

    def forget(self, peer: str) -> None:
        """Withdraw what there is for a peer."""
        for table in (self._held, self._linked):
            for key in [key for key, each in table.items() if each.peer == peer]:
                del table[key]

    def _put(self, table: OrderedDict[str, _Waiting], key: str, waiting: _Waiting) -> None:
        table[key] = waiting
        while len(table) > _MOST:
            table.popitem(last=False)

    def _expire(self) -> None:
        now = self._clock()
        for table in (self._held, self._linked):
            for key in [key for key, each in table.items() if each.until <= now]:
                del table[key]
