"""What all peers of one interface share: identity, tables, counters, randomness, outputs."""

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic

from crypto.keys import PrivateKey, PublicKey

from .clock import HandshakeClock, stamp_after
from .constants import MAX_REMEMBERED_STAMPS, REFUSAL_PERIOD, REKEY_TIMEOUT_JITTER
from .driver import E, MakeTransport, OnEphemeral, Random, RetryEndpoint, StaticIdentity, T
from .drops import ProtocolDrop
from .events import ClockImplausible, Event, HandshakeRefused
from .index_table import IndexTable
from .outputs import Datagram, Seal
from .timers import P, TimerTable

_JITTER_STEPS: Final = 1 << 16

Output = Datagram[P, E] | Seal[P, T] | Event


@dataclass(slots=True, kw_only=True)
class InterfaceState:
    """Our identity, and what is counted and remembered for all peers together."""

    random: Random
    private_key: PrivateKey | None = None
    public_key: PublicKey | None = None
    identity: StaticIdentity | None = None
    """The handshakes of the private key."""
    key_changes: int = 0
    """How many times the private key was set to another one."""
    drops: dict[ProtocolDrop, int] = field(default_factory=dict)
    staged_bytes: int = 0
    on_ephemeral: OnEphemeral | None = None
    stamps: OrderedDict[PublicKey, int] = field(default_factory=OrderedDict)
    """Of removed peers: the last timestamp sent to them, nanoseconds."""

    def jitter(self) -> float:
        """Uniform in [0, 1/3) seconds."""
        draw = int.from_bytes(self.random(2), "little")
        return REKEY_TIMEOUT_JITTER * draw / _JITTER_STEPS

    def count(self, reason: ProtocolDrop, packets: int = 1) -> None:
        """Count drops that belong to no peer."""
        self.drops[reason] = self.drops.get(reason, 0) + packets

    def remember_stamp(self, key: PublicKey, stamp_ns: int) -> None:
        """Keep a removed peer's last timestamp; the memory is bounded, oldest forgotten."""
        if stamp_ns:
            self.stamps[key] = stamp_ns
            if len(self.stamps) > MAX_REMEMBERED_STAMPS:
                self.stamps.popitem(last=False)


@dataclass(slots=True, kw_only=True)
class Context(InterfaceState, Generic[P, E, T]):
    """One per interface; peers work on it, and the interface hands out what collects in it."""

    clock: HandshakeClock
    make_transport: MakeTransport[T]
    retry_endpoint: RetryEndpoint[E]
    index_table: IndexTable[P, T]
    timers: TimerTable[P] = field(default_factory=TimerTable)
    outputs: deque[Output[P, E, T]] = field(default_factory=deque)
    refused_at: dict[ProtocolDrop, float] = field(default_factory=dict)
    """When a refused handshake was reported last, for each reason."""
    peers_at: dict[bytes, set[P]] = field(default_factory=dict)
    """The peers by the address of their endpoint."""
    on_peer_change: tuple[Callable[[P], None], ...] = ()
    """Called when a peer has other keypairs, or another endpoint."""
    on_address_change: tuple[Callable[[], None], ...] = ()
    """Called when an address is another peer's, inside the tunnel or outside."""

    def handle_address_change(self) -> None:
        """An address may be another peer's now."""
        for call in self.on_address_change:
            call()

    def handle_peer_change(self, peer: P) -> None:
        """The keypairs of `peer` are others now, or may not send any more."""
        for call in self.on_peer_change:
            call(peer)

    def move(self, peer: P, old: E | None, new: E | None) -> None:
        """Note that `peer` was at `old` and is at `new`."""
        before = None if old is None else old.address
        after = None if new is None else new.address
        if before == after:
            return
        if before is not None:
            self.peers_at[before].remove(peer)
            if not self.peers_at[before]:
                del self.peers_at[before]
        if after is not None:
            self.peers_at.setdefault(after, set()).add(peer)
        self.handle_address_change()

    def is_refusal_news(self, reason: ProtocolDrop, now: float) -> bool:
        """Whether a handshake message dropped for `reason` is to be reported again."""
        return now - self.refused_at.get(reason, -REFUSAL_PERIOD) >= REFUSAL_PERIOD

    def report_refusal(
        self, reason: ProtocolDrop, endpoint: E, public_key: PublicKey | None, now: float
    ) -> None:
        """Say who sent a handshake message that was dropped, unless that was said just now."""
        if self.is_refusal_news(reason, now):
            self.refused_at[reason] = now
            self.outputs.append(HandshakeRefused(reason, endpoint, public_key))

    def stamp(self, last_ns: int, now: float) -> int | None:
        """A timestamp that the peer takes for later than `last_ns`; None if the clock is refused.

        Nanoseconds since 1970. The wall clock may have been set back since: then the next possible
        time after the last one serves, so that our handshakes go on as long as the process lives.
        """
        reading = self.clock.read(now)
        if reading.problem:
            self.outputs.append(ClockImplausible(reading.unix_ns, reading.refused, reading.problem))
        return None if reading.refused else stamp_after(reading.unix_ns, last_ns)
