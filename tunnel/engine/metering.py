"""Single frames on their way: held to the limits of their peer, and counted by flow.

Whose frames are looked at here the pump is not taught, so that all of them come by, and others pay
nothing. What may not pass yet waits here, and `run` lets it go on in time.
"""

from __future__ import annotations

import heapq
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from tunnel.config.limits import Quota, RateLimit
from tunnel.datapath.virtio import carried_untrusted
from tunnel.protocol import Event, ProtocolDrop, QuotaReached

from .common import Clock, Interface, Peer
from .flows import Flows
from .limits import Lane, Limit, QuotaUse, Way
from .quota_file import QuotaFile

HELD: Final = "held"
"""In place of the reason of a drop: the frame waits, and goes on later."""

Release = Callable[[Peer, Way, bytes], None]
"""Lets a frame go on that has waited."""


class Metering:
    """One per engine. `flows`, if there are any, count all frames of all peers.

    `release` is to be set before there is a limit; `forget_taught` has the pump ask again whose an
    address is. `unix_time` gives the Unix time in seconds.
    """

    release: Release

    def __init__(
        self,
        interface: Interface,
        clock: Clock,
        unix_time: Callable[[], float],
        on_event: Callable[[Event], None],
    ) -> None:
        self.flows: Flows | None = None
        self.quota_file = QuotaFile()
        self._clock = clock
        self._unix_time = unix_time
        self._on_event = on_event
        self.forget_taught: Callable[[], None] = lambda: None
        self._limits: dict[Peer, Limit] = {}
        self._due: list[tuple[float, int, Peer, Way, Lane]] = []
        self._number = 0
        self._rearm = trio.Event()
        interface.add_on_change(self._handle_peer_change)

    def watches(self, peer: Peer) -> bool:
        """Whether the frames of this peer are to come by here."""
        return self.flows is not None or peer in self._limits

    def set_flows(self, flows: Flows | None) -> None:
        """Count the packets of all peers there from now on."""
        self.flows = flows
        self.forget_taught()

    def limit_of(self, peer: Peer) -> Limit | None:
        """The limits of a peer, if it has any; its quota is that of the present period."""
        limit = self._limits.get(peer)
        if limit is not None and limit.quota is not None:
            limit.quota.follow(self._unix_time())
        return limit

    def set_limit(self, peer: Peer, rate: RateLimit, quota: Quota) -> None:
        """Give a peer these limits. What is the same as before goes on, and so does what waits."""
        limit = self._limits.get(peer)
        if limit is None:
            if not (any(rate) or quota.size):
                return
            limit = self._limits[peer] = Limit()
        for way, frame in limit.set_rate(rate, self._clock()):
            self.release(peer, way, frame)
        if limit.quota is None or limit.quota.quota != quota:
            limit.quota = None
            if quota.size:
                key = bytes(peer.public_key)
                limit.quota = QuotaUse(quota, key, self.quota_file, self._unix_time())
        if not (any(rate) or quota.size):
            del self._limits[peer]
        self.forget_taught()

    @property
    def waiting_bytes(self) -> int:
        """Bytes of room that is taken by packets that wait for the rates of their peers."""
        lanes = (lane for limit in self._limits.values() for lane in limit.lanes)
        return sum(lane.queued for lane in lanes if lane is not None)

    def admit(self, peer: Peer, frame: memoryview, way: Way) -> str | None:
        """None if a frame may pass, HELD if it waits, or why it was dropped, which is counted."""
        limit = self._limits.get(peer)
        packets, size = carried_untrusted(frame)
        if limit is not None:
            verdict = self._judge(peer, limit, frame, way, size)
            if isinstance(verdict, ProtocolDrop):
                peer.count(verdict, packets)
                return verdict
        else:
            verdict = None
        if self.flows is not None:
            self.flows.count(peer.public_key, frame, way, packets, size)
        return verdict

    def _judge(
        self, peer: Peer, limit: Limit, frame: memoryview, way: Way, size: int
    ) -> ProtocolDrop | str | None:
        quota, lane = limit.quota, limit.lanes[way]
        if quota is not None:
            quota.follow(self._unix_time())
            if not quota.fits(size):
                if not quota.is_reached:
                    quota.is_reached = True
                    self._on_event(
                        QuotaReached(
                            peer.public_key, quota.quota.size, quota.used, quota.quota.period
                        )
                    )
                return ProtocolDrop.OVER_QUOTA
        verdict = None
        if lane is not None:
            now = self._clock()
            if not lane.passes(size, now):
                if not lane.hold(frame, size):
                    return ProtocolDrop.OVER_RATE
                verdict = HELD
                if len(lane.waiting) == 1:
                    self._schedule(peer, way, lane, now)
        if quota is not None:
            quota.charge(size)
        return verdict

    async def run(self, wait_free: Callable[[], Awaitable[None]]) -> None:
        """Let go on what has waited, until cancelled; `wait_free` waits until one may send."""
        while True:
            self._rearm = trio.Event()
            until = self._due[0][0] if self._due else float("inf")
            with trio.move_on_after(max(0.0, until - self._clock())):
                await self._rearm.wait()
            await wait_free()
            while self._due and self._due[0][0] <= (now := self._clock()):
                _, _, peer, way, lane = heapq.heappop(self._due)
                limit = self._limits.get(peer)
                if limit is None or limit.lanes[way] is not lane:
                    continue
                while (frame := lane.release(now)) is not None:
                    self.release(peer, way, frame)
                if lane.waiting:
                    self._schedule(peer, way, lane, now)
                await wait_free()

    def _schedule(self, peer: Peer, way: Way, lane: Lane, now: float) -> None:
        self._number += 1
        entry = (lane.bucket.ready_at(now), self._number, peer, way, lane)
        heapq.heappush(self._due, entry)
        if self._due[0] is entry:
            self._rearm.set()

    def _handle_peer_change(self, peer: Peer) -> None:
        limit = self._limits.pop(peer, None) if peer.removed else None
        for lane in () if limit is None else limit.lanes:
            for frame, _ in () if lane is None else lane.waiting:
                peer.count(ProtocolDrop.PEER_REMOVED, carried_untrusted(frame)[0])
