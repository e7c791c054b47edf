"""What a peer may transfer: a rate for each direction, and a quota for both together.

Counted are the bytes of inner packets: those that the TUN gave for the peer, and those that came
from the peer and are about to be written to the TUN. Of a frame that stands for many packets, each
counts with its own headers, so it makes no difference who merges and who splits.

*Rate.* A token bucket: `rate` bytes a second flow in, `BURST` seconds of them at most. A frame may
pass while the bucket is not empty, and takes all of its bytes, also if that is more than there is:
then nothing passes until the debt is paid. So over any time no more passes than the rate, a burst
and one frame, however large frames are. What may not pass waits in order, up to `ROOM` seconds of
the rate, so that TCP finds a slow link and not a broken one; beyond that it is dropped.

*Quota.* A frame passes if all of it fits into what is left; so never more passes than the quota.

Nothing here has a clock: times are given. The same holds for both datapaths: frames of a peer that
has a limit are given to Python one by one (`Pumping.teach_address`).
"""

from __future__ import annotations

import enum
from collections import deque

from tunnel.config.limits import Quota, RateLimit

from .quota_file import QuotaFile

BURST = 0.05
"""Seconds of the rate that may pass at once after a rest."""
ROOM = 0.1
"""Seconds of the rate for which packets may wait."""
LEAST_ROOM = 1 << 17
"""Bytes that may wait in any case: two of the largest frames."""
MOST_ROOM = 1 << 22
"""Bytes that wait at most."""
LEAST_SHARE = 256
"""Bytes of the room that a frame takes at least: even the smallest takes as much memory."""


class Way(enum.IntEnum):
    """The direction of a packet."""

    OUT = 0
    """To the peer."""
    IN = 1
    """From the peer."""


class TokenBucket:
    """Bytes that may pass: `rate` a second, `burst` at once. It is full in the beginning."""

    __slots__ = ("_at", "_tokens", "burst", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self._tokens = burst
        self._at = now

    def take(self, size: int, now: float) -> bool:
        """Take `size` bytes if it is not empty; whether it was not."""
        self._fill(now)
        if self._tokens <= 0:
            return False
        self._tokens -= size
        return True

    def ready_at(self, now: float) -> float:
        """When it is not empty any more."""
        self._fill(now)
        # One byte more: what is computed may be a little less.
        return now if self._tokens > 0 else now + (1 - self._tokens) / self.rate

    def _fill(self, now: float) -> None:
        if now > self._at:
            self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
            self._at = now


class Lane:
    """One direction of a peer with a rate in bits a second: its bucket, and what waits for it."""

    __slots__ = ("_room", "bucket", "queued", "waiting")

    def __init__(self, bits: int, now: float) -> None:
        rate = bits / 8
        self.bucket = TokenBucket(rate, rate * BURST, now)
        self._room = min(max(int(rate * ROOM), LEAST_ROOM), MOST_ROOM)
        self.waiting: deque[tuple[bytes, int]] = deque()
        """Frames, and the bytes that they count."""
        self.queued = 0
        """Bytes of the room that are taken."""

    def passes(self, size: int, now: float) -> bool:
        """Take a frame of `size` bytes, if it may pass at once: nothing waits before it."""
        return not self.waiting and self.bucket.take(size, now)

    def hold(self, frame: memoryview, size: int) -> bool:
        """Have a copy of the frame wait; False if there is no room."""
        share = max(size, LEAST_SHARE)
        if self.queued + share > self._room:
            return False
        self.waiting.append((bytes(frame), size))
        self.queued += share
        return True

    def release(self, now: float) -> bytes | None:
        """The next frame that may pass by now; None if none does yet."""
        if not self.waiting or not self.bucket.take(self.waiting[0][1], now):
            return None
        frame, size = self.waiting.popleft()
        self.queued -= max(size, LEAST_SHARE)
        return frame


class QuotaUse:
    """What a peer with the public key `key` has used of a quota; `file` keeps it."""

    __slots__ = ("_end", "_file", "_key", "begun", "is_reached", "quota", "used")

    def __init__(self, quota: Quota, key: bytes, file: QuotaFile, unix: float) -> None:
        self.quota = quota
        self._key = key
        self._file = file
        self.begun, self.used = file.get(key)
        self.is_reached = False
        """Whether anything did not fit in this period."""
        self._end = 0.0
        self.follow(unix)

    def follow(self, unix: float) -> None:
        """Begin a new period if it is time. If the clock was set back, the later one goes on."""
        if unix < self._end:
            return
        begun, self._end = self.quota.span(unix)
        if begun > self.begun:
            self.begun, self.used, self.is_reached = begun, 0, False

    def fits(self, size: int) -> bool:
        """Whether so many bytes are left."""
        return self.used + size <= self.quota.size

    def charge(self, size: int) -> None:
        """Count so many bytes; they are on record when this returns."""
        self.used += size
        self._file.set(self._key, self.begun, self.used)


class Limit:
    """The limits of one peer."""

    __slots__ = ("lanes", "quota", "rate")

    def __init__(self) -> None:
        self.rate = RateLimit()
        self.lanes: list[Lane | None] = [None, None]
        """By `Way`."""
        self.quota: QuotaUse | None = None

    def set_rate(self, rate: RateLimit, now: float) -> list[tuple[Way, bytes]]:
        """Follow another rate. What waits in a direction that changes is given back, in order."""
        freed: list[tuple[Way, bytes]] = []
        for way, before, bits in zip(Way, self.rate, rate, strict=True):
            lane = self.lanes[way]
            if bits == before:
                continue
            if lane is not None:
                freed += ((way, frame) for frame, _ in lane.waiting)
            self.lanes[way] = Lane(bits, now) if bits else None
        self.rate = rate
        return freed
