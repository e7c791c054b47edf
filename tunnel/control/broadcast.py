"""Subscribers to a tunnel's events: each has a bounded queue, and nobody ever waits for one."""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

import trio

from tunnel.control.messages.events import TunnelEvent
from tunnel.errors import TunnelError

QUEUE = 256
"""Events that wait for one subscriber; more are lost and counted."""

LAST = "down"
"""The type of the event that nothing comes after."""

MAX_SUBSCRIBERS = 16


class TooManySubscribersError(TunnelError):
    """No room for one more."""

    code = "too_many"


class Subscription:
    """The events since it began, as an asynchronous iterator; ends when the tunnel has ended.

    A slow reader loses the newest events of the type that comes most, so that no flood of one type
    costs it one of another. Once it has caught up it gets an event `lost` with the `count` of them.
    """

    def __init__(self) -> None:
        self._queue: deque[TunnelEvent] = deque()
        self._waiting: Counter[str] = Counter()
        self._lost = 0
        self._wake = trio.Event()
        self._ended = False

    def put(self, event: TunnelEvent) -> bool:
        """Queue `event`; False if the queue was full: then it or another one is counted as lost."""
        self._queue.append(event)
        self._waiting[event.type] += 1
        has_room = len(self._queue) <= QUEUE
        if not has_room:
            self._lose_one()
        self._wake.set()
        return has_room

    def lose(self, count: int) -> None:
        """Count events that this reader does not get."""
        self._lost += count
        self._wake.set()

    def _lose_one(self) -> None:
        kind = max(self._waiting, key=self._waiting.__getitem__)
        places = range(len(self._queue) - 1, -1, -1)
        del self._queue[next(place for place in places if self._queue[place].type == kind)]
        self._waiting[kind] -= 1
        self._lost += 1

    def end(self) -> None:
        """Nothing more comes."""
        self._ended = True
        self._wake.set()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> TunnelEvent:
        await trio.lowlevel.checkpoint()
        while True:
            if self._lost and (not self._queue or self._queue[0].type == LAST):
                lost, self._lost = self._lost, 0
                return TunnelEvent("lost", time.time(), {"count": lost})
            if self._queue:
                event = self._queue.popleft()
                self._waiting[event.type] -= 1
                return event
            if self._ended:
                raise StopAsyncIteration
            self._wake = trio.Event()
            await self._wake.wait()


class Feed:
    """All subscriptions of one tunnel."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()
        self._idle = trio.Event()
        self._idle.set()
        self._wanted = trio.Event()
        self._ended = False

    def publish(self, kind: str, **details: Any) -> None:
        """Tell all subscribers. Never blocks and never raises."""
        if self._subscriptions:
            event = TunnelEvent(kind, time.time(), details)
            for subscription in self._subscriptions:
                subscription.put(event)

    def end(self) -> None:
        """End all subscriptions, present and future, once they have read what is queued."""
        self._ended = True
        for subscription in self._subscriptions:
            subscription.end()

    @contextlib.contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """A subscription for the time of the `with`. Raises TooManySubscribersError."""
        if len(self._subscriptions) >= MAX_SUBSCRIBERS:
            raise TooManySubscribersError(f"there are {MAX_SUBSCRIBERS} subscribers already")
        subscription = Subscription()
        if self._ended:
            subscription.end()
        self._subscriptions.add(subscription)
        self._idle = trio.Event()
        self._wanted.set()
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
            if not self._subscriptions:
                self._idle.set()
                self._wanted = trio.Event()

    async def wait_wanted(self) -> None:
        """Return when there is a subscriber."""
        await self._wanted.wait()

    async def wait_idle(self) -> None:
        """Return when there is none."""
        await self._idle.wait()
