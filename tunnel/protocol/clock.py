"""The wall clock of our own initiations: always forward, and never from an implausible year."""

from math import inf
from typing import NamedTuple

from .constants import (
    CLOCK_JUMP,
    CLOCK_WARNING_INTERVAL,
    EARLIEST_PLAUSIBLE_UNIX_NS,
    LATEST_PLAUSIBLE_UNIX_NS,
)
from .driver import UnixTime

STAMP_STEP_NS = 1 << 24
"""What a timestamp is rounded to before it is sent, so that it reveals little about our clock."""


class Reading(NamedTuple):
    """One look at the wall clock. `problem` is empty, or what to warn of now."""

    unix_ns: int
    refused: bool
    problem: str


class HandshakeClock:
    """Reads the wall clock before every initiation and checks it."""

    __slots__ = ("_offset", "_unix_time_ns", "_warned_at")

    def __init__(self, unix_time_ns: UnixTime) -> None:
        self._unix_time_ns = unix_time_ns
        self._offset: float | None = None
        """Wall clock less monotonic clock in seconds, when last looked at and plausible."""
        self._warned_at: dict[str, float] = {}
        """When each kind of problem was last warned of: none hides another."""

    def read(self, now: float) -> Reading:
        """The time in unix nanoseconds, and whether an initiation must not carry it.

        A clock before 2020 was never set. That does no lasting harm, and setting the clock may
        need this very tunnel: so it is not refused.
        """
        unix_ns = self._unix_time_ns()
        refused = unix_ns >= LATEST_PLAUSIBLE_UNIX_NS
        never_set = unix_ns < EARLIEST_PLAUSIBLE_UNIX_NS
        offset = unix_ns / 1e9 - now
        jump = 0.0 if self._offset is None else offset - self._offset
        # After an impossible time a jump means only that the clock was set at last.
        self._offset = None if refused or never_set else offset
        if refused:
            kind = "refused"
            problem = (
                "the clock stands after the year 2100: handshakes are not sent, because every "
                "peer would refuse this key once the clock is right again; set the clock"
            )
        elif never_set:
            kind = "never set"
            problem = (
                "the clock stands before the year 2020: peers that have seen a later time from "
                "this key will not answer; set the clock"
            )
        elif jump > CLOCK_JUMP:
            kind = "ahead"
            problem = (
                f"the clock jumped {jump / 86_400:.0f} days ahead: if it is wrong now, peers will "
                "not answer this key after it has been set right, until they are restarted"
            )
        elif jump < -CLOCK_JUMP:
            kind = "back"
            problem = (
                f"the clock jumped {-jump / 86_400:.0f} days back: handshakes go on, but after a "
                "restart peers will not answer this key before the clock has caught up; set it"
            )
        else:
            return Reading(unix_ns, refused, "")
        if now - self._warned_at.get(kind, -inf) < CLOCK_WARNING_INTERVAL:
            return Reading(unix_ns, refused, "")
        self._warned_at[kind] = now
        return Reading(unix_ns, refused, problem)

    def unix_ns(self) -> int:
        """The wall clock, for showing."""
        return self._unix_time_ns()


def stamp_after(unix_ns: int, last_stamp_ns: int) -> int:
    """`unix_ns`, or the first nanosecond count that is sent as a greater time than the last."""
    return max(unix_ns, last_stamp_ns + STAMP_STEP_NS)
