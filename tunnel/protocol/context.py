"""What all peers of one interface share: identity, tables, counters, randomness, outputs."""

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic

from crypto import tai64n
from crypto.keys import PrivateKey, PublicKey
from tunnel.protocol.driver import E, MakeTransport, OnEphemeral, Random, RetryEndpoint, T

from .clock import HandshakeClock, stamp_after
from .constants import MAX_REMEMBERED_STAMPS, REKEY_TIMEOUT_JITTER
from .drops import Drop
from .events import ClockImplausible, Event
from .outputs import Datagram, Seal
from .timers import TimerTable

if TYPE_CHECKING:
    from tunnel.protocol.keypairs import Session

    from .handshakes import PendingInitiation
    from .peer import Peer

_JITTER_STEPS: Final = 1 << 16

Output = Datagram[E, T] | Seal[E, T] | Event


class Indices(Generic[E, T]):
    """The receiver indices in use: random 32-bit numbers, each of one session or one handshake.

    An index is drawn for every handshake and goes on to the session that comes of it.
    """

    __slots__ = ("_random", "handshakes", "sessions")

    def __init__(self, random: Random) -> None:
        self._random = random
        self.sessions: dict[int, Session[E, T]] = {}
        self.handshakes: dict[int, PendingInitiation[E, T]] = {}

    def draw(self) -> int:
        """An index that is free. It stays so until it is put into one of the two tables."""
        while True:
            index = int.from_bytes(self._random(4), "little")
            if index not in self.sessions and index not in self.handshakes:
                return index


@dataclass(slots=True)
class Context(Generic[E, T]):
    """One per interface; peers work on it, and the interface hands out what collects in it."""

    random: Random
    clock: HandshakeClock
    make_transport: MakeTransport[T]
    retry_endpoint: RetryEndpoint[E]
    indices: Indices[E, T]
    private_key: PrivateKey | None = None
    public_key: PublicKey | None = None
    key_changes: int = 0
    timers: TimerTable["Peer[E, T]"] = field(default_factory=TimerTable)
    outputs: deque[Output[E, T]] = field(default_factory=deque)
    drops: dict[Drop, int] = field(default_factory=dict)
    staged_bytes: int = 0
    on_ephemeral: OnEphemeral | None = None
    stamps: OrderedDict[PublicKey, int] = field(default_factory=OrderedDict)
    """Of removed peers: the last timestamp sent to them, nanoseconds."""

    def jitter(self) -> float:
        """Uniform in [0, 1/3) seconds."""
        draw = int.from_bytes(self.random(2), "little")
        return REKEY_TIMEOUT_JITTER * draw / _JITTER_STEPS

    def count(self, reason: Drop, packets: int = 1) -> None:
        """Count drops that belong to no peer."""
        self.drops[reason] = self.drops.get(reason, 0) + packets

    def timestamp(self, last_ns: int, now: float) -> tuple[int, bytes] | None:
        """A timestamp that the peer takes for later than `last_ns`; None if the clock is refused.

        The wall clock may have been set back since: then the next possible time after the last
        one serves, so that our handshakes go on as long as the process lives.
        """
        reading = self.clock.read(now)
        if reading.problem:
            self.outputs.append(ClockImplausible(reading.unix_ns, reading.refused, reading.problem))
        if reading.refused:
            return None
        stamp_ns = stamp_after(reading.unix_ns, last_ns)
        return stamp_ns, tai64n.encode(stamp_ns)

    def remember_stamp(self, key: PublicKey, stamp_ns: int) -> None:
        """Keep a removed peer's last timestamp; the memory is bounded, oldest forgotten."""
        if stamp_ns:
            self.stamps[key] = stamp_ns
            if len(self.stamps) > MAX_REMEMBERED_STAMPS:
                self.stamps.popitem(last=False)
