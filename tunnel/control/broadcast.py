"""Everything that has subscribers: each has a bounded queue, and no one ever waits for one.

A `Broadcast` holds the subscriptions of one kind and says when the first comes and the last goes. A
`Subscription` is one reader: an asynchronous iterator of events, which counts and reports what it
lost, and is dropped when its time is over or it has stopped reading.
"""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

import trio

from tunnel.control.messages.events import TunnelEvent
from tunnel.errors import TunnelError

QUEUE = 256
"""Events that wait for one subscriber; more are lost and counted."""

LAST = "down"
"""The type of the event that nothing comes after."""

MAX_SUBSCRIBERS = 16

_NEVER = float("inf")


class TooManySubscribersError(TunnelError):
    """No room for one more."""

    code = "too_many"


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a subscription lasts: `seconds` in all, and `stall` seconds without room.

    A reader that leaves no room for so long counts as stopped. `clock` gives seconds that never go
    back.
    """

    seconds: float = _NEVER
    stall: float = _NEVER
    clock: Callable[[], float] = time.monotonic


UNLIMITED = Limits()


class Subscription(ABC):
    """The events for one reader, as an asynchronous iterator, until `end`."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._until = limits.clock() + limits.seconds
        self._full_since = _NEVER
        self._lost = 0
        self._wake = trio.Event()
        self._ended = False

    @abstractmethod
    def _has_event(self) -> bool:
        """Whether an event is queued that goes before a report of losses."""

    @abstractmethod
    def _next(self) -> TunnelEvent:
        """Take the next event off the queue, which has one."""

    def lose(self, count: int, *, full: bool = True) -> None:
        """Count events that this reader does not get; `full` if for want of room."""
        self._lost += count
        if full:
            self._full_since = min(self._full_since, self._limits.clock())
        self._wake.set()

    def is_over(self) -> bool:
        """Whether its time is over, or it has stopped reading."""
        now = self._limits.clock()
        return now >= self._until or now - self._full_since > self._limits.stall

    def end(self) -> None:
        """Nothing more comes; what is queued may still be read."""
        self._ended = True
        self._wake.set()

    def __aiter__(self) -> Self:
        return self

    async def _wait(self) -> None:
        """Return when there is something to read, or nothing more comes."""
        while not (self._has_event() or self._lost or self._ended):
            self._wake = trio.Event()
            await self._wake.wait()

    async def __anext__(self) -> TunnelEvent:
        """The next event. Cancelled only while there is none: the last ones are to be read."""
        await trio.lowlevel.cancel_shielded_checkpoint()
        await self._wait()
        if self._has_event():
            self._full_since = _NEVER
            return self._next()
        if self._lost:
            lost, self._lost = self._lost, 0
            return TunnelEvent("lost", time.time(), {"count": lost})
        raise StopAsyncIteration


class EventQueue(Subscription):
    """Events as they are published.

    A slow reader loses the newest events of the type that comes most, so that no flood of one type
    costs it one of another. Once it has caught up it gets an event `lost` with the `count` of them.
    """

    def __init__(self, limits: Limits = UNLIMITED) -> None:
        super().__init__(limits)
        self._queue: deque[TunnelEvent] = deque()
        self._waiting: Counter[str] = Counter()

    def put(self, event: TunnelEvent) -> None:
        """Queue `event`; if there is no room, it or another one is lost."""
        self._queue.append(event)
        self._waiting[event.type] += 1
        if len(self._queue) > QUEUE:
            self._drop_one()
        self._wake.set()

    def _drop_one(self) -> None:
        kind = max(self._waiting, key=self._waiting.__getitem__)
        places = range(len(self._queue) - 1, -1, -1)
        del self._queue[next(place for place in places if self._queue[place].type == kind)]
        self._waiting[kind] -= 1
        self.lose(1)

    def _has_event(self) -> bool:
        return bool(self._queue) and not (self._lost and self._queue[0].type == LAST)

    def _next(self) -> TunnelEvent:
        event = self._queue.popleft()
        self._waiting[event.type] -= 1
        return event


S = TypeVar("S", bound=Subscription)


class Broadcast(Generic[S]):
    """The subscriptions of one kind, at most `MAX_SUBSCRIBERS`. `noun` is what errors call them.

    `on_first` is called when the first one comes, `on_last` when the last one has gone.
    """

    def __init__(
        self,
        noun: str,
        *,
        on_first: Callable[[], None] = lambda: None,
        on_last: Callable[[], None] = lambda: None,
    ) -> None:
        self._noun = noun
        self._on_first = on_first
        self._on_last = on_last
        self._subscriptions: list[S] = []
        self._idle = trio.Event()
        self._idle.set()
        self._wanted = trio.Event()
        self._ended = False

    @contextlib.contextmanager
    def subscribe(self, subscription: S) -> Iterator[S]:
        """Let `subscription` take part for the time of the `with`.

        Raises TooManySubscribersError.
        """
        if len(self._subscriptions) >= MAX_SUBSCRIBERS:
            raise TooManySubscribersError(f"there are {MAX_SUBSCRIBERS} {self._noun}: end one")
        if self._ended:
            subscription.end()
        if not self._subscriptions:
            self._on_first()
            self._idle = trio.Event()
            self._wanted.set()
        self._subscriptions.append(subscription)
        try:
            yield subscription
        finally:
            self._drop(subscription)

    def current(self) -> list[S]:
        """All that still read; those that are over are dropped."""
        for subscription in [each for each in self._subscriptions if each.is_over()]:
            self._drop(subscription)
        return self._subscriptions

    def end(self) -> None:
        """End all subscriptions, present and future, once they have read what is queued."""
        self._ended = True
        for subscription in self._subscriptions:
            subscription.end()

    def _drop(self, subscription: S) -> None:
        subscription.end()
        if subscription not in self._subscriptions:
            return
        self._subscriptions.remove(subscription)
        if not self._subscriptions:
            self._idle.set()
            self._wanted = trio.Event()
            self._on_last()

    async def wait_wanted(self) -> None:
        """Return when there is a subscriber."""
        await self._wanted.wait()

    async def wait_idle(self) -> None:
        """Return when there is none."""
        await self._idle.wait()


class Events(Broadcast[EventQueue]):
    """A broadcast of events that are the same for all subscribers.

    `beginning` is the event with which the daemon began to carry packets, None before it. Those who
    subscribe after the last event get that one.
    """

    beginning: TunnelEvent | None = None
    _ending: TunnelEvent | None = None

    @contextlib.contextmanager
    def subscribe(self, subscription: EventQueue) -> Iterator[EventQueue]:
        """See Broadcast."""
        with super().subscribe(subscription):
            if self._ending is not None:
                subscription.put(self._ending)
            yield subscription

    def begin(self, kind: str, **details: Any) -> None:
        """`publish` the beginning, which those who come later may ask for."""
        self.beginning = TunnelEvent(kind, time.time(), details)
        self.publish(kind, **details)

    def publish(self, kind: str, **details: Any) -> None:
        """Give an event to all subscribers. Never blocks and never raises."""
        subscriptions = self.current()
        if subscriptions or kind == LAST:
            event = TunnelEvent(kind, time.time(), details)
            if kind == LAST:
                self._ending = event
            for subscription in subscriptions:
                subscription.put(event)
