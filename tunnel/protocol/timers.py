"""The timers of a peer, and the one table that knows which peer is due next.

Every packet moves a deadline, so moving one must cost next to nothing even with 10,000 peers.
Each peer therefore keeps its own deadlines in a list, and stands in the heap once, with a time
(`wake`) at which it is to be looked at. A deadline that moves later, or is cancelled, leaves the
heap alone: the peer is looked at too early, and put back with its true deadline. Only a deadline
*earlier* than `wake` is pushed, and leaves an outdated entry behind, which is skipped when it
comes up and swept out when such entries become the majority.
"""

from collections.abc import Callable
from enum import IntEnum, unique
from heapq import heapify, heappop, heappush
from math import inf
from typing import Final, Generic, TypeVar

NEVER: Final = inf


@unique
class Timer(IntEnum):
    """What a peer can be waiting for. When several are due at once, they run in this order."""

    EXPIRE_SESSIONS = 0
    """The oldest session turns 180 s. Set when a session is installed or leaves.
    Its keys are forgotten."""

    ERASE_KEYS = 1
    """540 s since the last session was installed, or since a handshake was given up with nothing
    to erase before. All sessions and the peer's cookie are forgotten; not a handshake under way,
    whose secrets are new every 5 s."""

    RETRANSMIT_HANDSHAKE = 2
    """5 s and jitter since the last initiation, or since the last response if one is wanted.
    Stopped when a session is confirmed. Sends the next initiation, or gives up after 90 s."""

    NEW_HANDSHAKE = 3
    """15 s and jitter since the first data that nothing authenticated has followed from the peer.
    Stopped by any authenticated message received. Starts a handshake."""

    SEND_KEEPALIVE = 4
    """10 s since the first data received that nothing sent has followed. Stopped by anything
    sent. Sends an empty message; once more if further data came meanwhile."""

    PERSISTENT_KEEPALIVE = 5
    """The configured interval since anything authenticated was sent or received.
    Sends an empty message."""


class Timed:
    """Something with one deadline per timer. Only the table below writes to it.

    `deadlines` holds seconds, NEVER when a timer is not set. `wake` is the time of its valid heap
    entry, NEVER without one; minus infinity once removed, so that nothing is earlier.
    """

    __slots__ = ("deadlines", "wake")

    def __init__(self) -> None:
        self.deadlines: list[float] = [NEVER] * len(Timer)
        self.wake: float = NEVER


Owner = TypeVar("Owner", bound=Timed)


class TimerTable(Generic[Owner]):
    """The deadlines of all peers. Give `run` a function that is called with what is due."""

    __slots__ = ("_heap", "_serial", "_sweep_at")

    _MIN_SWEEP: Final = 256
    # To find that nothing is due is quick, but not for nothing.
    _LOOKS_PER_OWNER: Final = 16

    def __init__(self) -> None:
        # The serial number keeps the heap from comparing owners.
        self._heap: list[tuple[float, int, Owner]] = []
        self._serial = 0
        self._sweep_at = self._MIN_SWEEP

    def __len__(self) -> int:
        """Entries in the heap, outdated ones included."""
        return len(self._heap)

    def arm(self, owner: Owner, timer: int, deadline: float) -> None:
        """Set or move a timer to `deadline`."""
        owner.deadlines[timer] = deadline
        if deadline < owner.wake:
            self.push(owner, deadline)

    def cancel(self, owner: Owner, timer: int) -> None:
        """Stop a timer; no harm if it is not set."""
        owner.deadlines[timer] = NEVER

    def push(self, owner: Owner, wake: float) -> None:
        """Look at `owner` at `wake`, which is earlier than before. Hot paths call this directly."""
        owner.wake = wake
        if wake == NEVER:
            return
        self._serial += 1
        heappush(self._heap, (wake, self._serial, owner))
        if len(self._heap) >= self._sweep_at:
            self._sweep()

    def remove(self, owner: Owner) -> None:
        """Stop all timers of `owner` for good."""
        owner.deadlines[:] = [NEVER] * len(owner.deadlines)
        owner.wake = -inf

    def next_deadline(self) -> float | None:
        """No timer is due before this. It may be early: running then does no harm."""
        heap = self._heap
        while heap:
            wake, _, owner = heap[0]
            if wake == owner.wake:
                return wake
            heappop(heap)
        return None

    def run(self, now: float, limit: int, expire: Callable[[Owner, Timer], None]) -> None:
        """Call `expire` for every timer due at `now`, of at most `limit` owners.

        A timer is no longer set when its `expire` is called. What is left over is due still, so
        `next_deadline` is not after `now` and the caller comes again. A timer that an earlier
        one of the same owner stopped does not run.
        """
        heap = self._heap
        looks = limit * self._LOOKS_PER_OWNER
        while limit > 0 and looks > 0 and heap and heap[0][0] <= now:
            looks -= 1
            wake, _, owner = heappop(heap)
            if wake != owner.wake:
                continue
            deadlines = owner.deadlines
            due = [timer for timer in Timer if deadlines[timer] <= now]
            for timer in due:
                if deadlines[timer] <= now:
                    deadlines[timer] = NEVER
                    expire(owner, timer)
            if due:
                limit -= 1
            # Unless `expire` removed the owner, or already pushed it for an earlier time.
            if owner.wake == wake:
                self.push(owner, min(deadlines))

    def _sweep(self) -> None:
        """Drop the outdated entries."""
        latest = {
            id(owner): (wake, serial, owner)
            for wake, serial, owner in self._heap
            if wake == owner.wake
        }
        self._heap[:] = latest.values()
        heapify(self._heap)
        self._sweep_at = max(self._MIN_SWEEP, 2 * len(self._heap))
