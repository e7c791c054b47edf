"""The timers of a peer, and the one table that knows which peer is due next.

Every packet moves a deadline, so moving one must cost next to nothing even with 10,000 peers.
Each peer therefore keeps its own deadlines in a list, and stands in the heap once, with a time
(`wake`) at which it is to be looked at. A deadline that moves later, or is cancelled, leaves the
heap alone: the peer is looked at too early, and put back with its true deadline. Only a deadline
*earlier* than `wake` is pushed, and leaves an outdated entry behind, which is skipped when it
comes up and swept out when such entries become the majority. An entry names its peer by a number:
an outdated one keeps no removed peer in memory.
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

    EXPIRE_KEYPAIRS = 0
    """The oldest keypair turns 180 s. Set when a keypair is installed or dropped.
    Its keys are erased."""

    ERASE_KEYS = 1
    """540 s since the last keypair was installed, or since a handshake was given up with nothing
    to erase before. All keypairs and the peer's cookie are erased; not a handshake under way,
    whose secrets are new every 5 s."""

    RETRANSMIT_HANDSHAKE = 2
    """5 s and jitter since the last initiation, or since the last response if one is wanted.
    Stopped when a keypair is confirmed. Sends the next initiation, or gives up after 90 s."""

    NEW_HANDSHAKE = 3
    """15 s and jitter since the first data that nothing authenticated has followed from the peer.
    Stopped by any authenticated message received. Starts a handshake."""

    SEND_KEEPALIVE = 4
    """10 s since the first data received that nothing sent has followed. Stopped by anything
    sent. Sends an empty message. Data that comes meanwhile does not move it; the first that
    comes after the message sets it again."""

    PERSISTENT_KEEPALIVE = 5
    """The configured interval since anything authenticated was sent or received.
    Sends an empty message."""


class Timed:
    """Something with one deadline per timer. Only the table below writes to `wake` and `serial`.

    `deadlines` holds seconds, NEVER when a timer is not set: to stop one, write that. `wake` is the
    time of its valid heap entry, NEVER without one; minus infinity once removed, so that nothing is
    earlier. `serial` is the number of that entry, 0 without one.
    """

    __slots__ = ("deadlines", "serial", "wake")

    def __init__(self) -> None:
        self.deadlines: list[float] = [NEVER] * len(Timer)
        self.wake: float = NEVER
        self.serial = 0


P = TypeVar("P", bound=Timed)
"""A peer, for modules that keep one or hand it on and ask nothing of it."""


class TimerTable(Generic[P]):
    """The deadlines of all peers. Give `run` a function that is called with what is due."""

    __slots__ = ("_heap", "_last_serial", "_owners", "_sweep_at")

    _MIN_SWEEP: Final = 256
    # To find that nothing is due is quick, but not for nothing.
    _LOOKS_PER_OWNER: Final = 16

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self._owners: dict[int, P] = {}
        self._last_serial = 0
        self._sweep_at = self._MIN_SWEEP

    def __len__(self) -> int:
        """Entries in the heap, outdated ones included."""
        return len(self._heap)

    def push(self, owner: P, wake: float) -> None:
        """Look at `owner` at `wake`, which is earlier than its `wake` before.

        A timer is armed by writing its deadline, and by a push where that is before the owner's
        `wake`: so one that only moves later costs no call.
        """
        self._owners.pop(owner.serial, None)
        owner.wake, owner.serial = wake, 0
        if wake == NEVER:
            return
        self._last_serial += 1
        owner.serial = self._last_serial
        self._owners[owner.serial] = owner
        heappush(self._heap, (wake, owner.serial))
        if len(self._heap) >= self._sweep_at:
            self._sweep()

    def remove(self, owner: P) -> None:
        """Stop all timers of `owner` for good."""
        owner.deadlines[:] = [NEVER] * len(owner.deadlines)
        self._owners.pop(owner.serial, None)
        owner.wake, owner.serial = -inf, 0

    def next_deadline(self) -> float | None:
        """No timer is due before this. It may be early: running then does no harm."""
        heap = self._heap
        while heap:
            wake, serial = heap[0]
            if serial in self._owners:
                return wake
            heappop(heap)
        return None

    def run(self, now: float, limit: int, expire: Callable[[P, Timer], None]) -> None:
        """Call `expire` for every timer due at `now`, of at most `limit` owners.

        A timer is no longer set when its `expire` is called. What is left over is due still, so
        `next_deadline` is not after `now` and the caller comes again. A timer that an earlier
        one of the same owner stopped does not run.
        """
        heap = self._heap
        looks = limit * self._LOOKS_PER_OWNER
        while limit > 0 and looks > 0 and heap and heap[0][0] <= now:
            looks -= 1
            _, serial = heappop(heap)
            owner = self._owners.get(serial)
            if owner is None:
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
            if owner.serial == serial:
                self.push(owner, min(deadlines))

    def _sweep(self) -> None:
        """Drop the outdated entries."""
        self._heap[:] = [entry for entry in self._heap if entry[1] in self._owners]
        heapify(self._heap)
        self._sweep_at = max(self._MIN_SWEEP, 2 * len(self._heap))
