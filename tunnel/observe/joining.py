"""Joins what the kernel told of packets with what the daemon told of them.

    inner crossing ──(equal headers)── record `out` ──(index, counter)── outer crossing
    outer crossing ──(index, counter)── record `in` ──(equal headers)── inner crossing

Where GSO or GRO made one packet of many datagrams, the kernel shows the first one's counter; the
records carry the counter of their batch for that. A packet that came out of the tunnel and went
into it again (a hub) is one journey.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tunnel.observe import wording
from tunnel.observe.crossings import Crossing, Gatherer
from tunnel.observe.headers import UDP, Headers
from tunnel.observe.nftrace import TraceEvent
from tunnel.observe.path import Journey
from tunnel.observe.ruleset import Ruleset
from tunnel.observe.tracetable import INNER_RATE

QUIET = 0.25
"""Seconds without news of a packet after which its journey is told."""

LATE = 1.0
"""Seconds that a part which has to come may be late: a busy daemon reports in its own time."""

PATIENCE = 6.0
"""Seconds that a packet may wait for a session until it is told that it waits."""

HOLE = 3.0
"""Seconds around a loss of reports in which a missing part is no sign of a lost packet."""

MAX_PENDING = 600
"""Crossings and records kept; older ones go, told or not."""

TRANSPORT = 4
"""Type of a WireGuard message that carries a packet."""


@dataclass(slots=True, eq=False)
class Record:
    """One record of the daemon: `kind` is out or in, `headers` those of the inner packet."""

    kind: str
    details: dict[str, Any]
    headers: Headers | None
    arrived: float


@dataclass(slots=True, eq=False)
class Trip:
    """The parts of one journey, in the order of the packet; absent parts are None or empty."""

    arrival: Crossing | None = None
    received: Record | None = None
    inner: Crossing | None = None
    staged: Record | None = None
    sent: Record | None = None
    departures: list[Crossing] = field(default_factory=list)

    def parts(self) -> list[Crossing | Record]:
        """All parts that there are."""
        found = (self.arrival, self.received, self.inner, self.staged, self.sent)
        return [part for part in (*found, *self.departures) if part is not None]

    @property
    def latest(self) -> float:
        """When the newest part was heard of."""
        return max(
            part.arrived if isinstance(part, Record) else part.latest for part in self.parts()
        )

    @property
    def waits(self) -> bool:
        """Whether it is staged for a session that there is not yet."""
        return self.staged is not None and self.sent is None


class Joiner:
    """Takes events and records as they come, gives journeys when nothing more comes of them.

    `interfaces` maps indices to names, `tun` is the index of the tunnel's interface and `port` its
    UDP port, `table` the name of our trace table.
    """

    def __init__(
        self, *, table: str, ruleset: Ruleset, interfaces: Mapping[int, str], tun: int, port: int
    ) -> None:
        self.gatherer = Gatherer(table, ruleset)
        self._names = wording.Names(interfaces, tun, self.gatherer.named)
        self._tun = tun
        self._port = port
        self._crossings: list[Crossing] = []
        self._records: list[Record] = []
        self._begun: deque[float] = deque(maxlen=INNER_RATE)
        self._hole = float("-inf")

    def note_hole(self, now: float) -> None:
        """Something was lost at about `now`: that a part is missing means nothing then."""
        self._hole = now

    def add_events(self, events: Iterable[TraceEvent]) -> None:
        """Take events of the kernel, in their order."""
        for event in events:
            begun = self.gatherer.add(event)
            if begun is not None:
                self._crossings.append(begun)
                self._begun.append(begun.latest)
        if len(self._begun) == INNER_RATE and self._begun[-1] - self._begun[0] < 1.0:
            # From so many on the trace table may leave packets unmarked.
            self.note_hole(self._begun[-1])
        for old in self._crossings[:-MAX_PENDING]:
            self._forget(old)

    def add_record(self, kind: str, details: dict[str, Any], now: float) -> None:
        """Take an `out` or `in` record of the daemon, arrived at `now` (CLOCK_MONOTONIC)."""
        packet = details.get("packet")
        headers = None if packet is None else Headers.parse(bytes.fromhex(packet))
        self._records.append(Record(kind, details, headers, now))
        del self._records[:-MAX_PENDING]

    def take(self, now: float, *, final: bool = False) -> list[Journey]:
        """The journeys that have come to their end by `now`, in order; with `final`, all."""
        journeys = []
        for trip in self._trips():
            patience = PATIENCE if trip.waits else QUIET if self._is_whole(trip) else LATE
            if not final and now - trip.latest < patience:
                continue
            for part in trip.parts():
                self._forget(part)
            journey = wording.tell(trip, self._names)
            near_hole = abs(trip.latest - self._hole) < HOLE
            if journey is not None and not (near_hole and wording.is_unreported(journey)):
                journeys.append(journey)
        return sorted(journeys, key=lambda journey: journey.start)

    def _is_whole(self, trip: Trip) -> bool:
        """Whether nothing is missing that has to come."""
        inner, sent = trip.inner, trip.sent
        if sent is not None:
            return bool(trip.departures) or sent.details["drop"] is not None
        if inner is not None:
            if inner.drop is not None:
                return True
            known = inner.iif != self._tun or trip.received is not None
            return known and inner.is_complete and inner.oif != self._tun
        if trip.received is not None:
            return trip.received.details["drop"] is not None
        return trip.arrival is None or trip.arrival.drop is not None

    def _forget(self, part: Crossing | Record) -> None:
        if isinstance(part, Record):
            if part in self._records:
                self._records.remove(part)
        elif part in self._crossings:
            self._crossings.remove(part)
            self.gatherer.forget(part)

    # --- Joining ---------------------------------------------------------------------------------

    def _trips(self) -> list[Trip]:
        outer = [crossing for crossing in self._crossings if self._is_outer(crossing)]
        arrivals = [crossing for crossing in outer if crossing.iif]
        departures = [crossing for crossing in outer if not crossing.iif]
        trips = [Trip(inner=c) for c in self._crossings if not self._is_outer(c)]
        for record in self._records:
            if record.kind == "in":
                self._join_received(record, trips)
        for record in self._records:
            if record.kind == "out":
                _join_sent(record, trips, departures)
        for trip in trips:
            if trip.received is not None:
                trip.arrival = _arrival(trip.received, arrivals)
        # Several datagrams may have arrived as one, so arrivals are taken only now.
        taken = {id(trip.arrival) for trip in trips}
        trips += [Trip(arrival=crossing) for crossing in arrivals if id(crossing) not in taken]
        trips += [Trip(departures=[crossing]) for crossing in departures]
        return trips

    def _is_outer(self, crossing: Crossing) -> bool:
        entry = crossing.entry
        if entry.protocol != UDP or self._port not in (entry.ports or ()):
            return False
        return all(self._tun not in (hook.iif, hook.oif) for hook in crossing.hooks)

    def _join_received(self, record: Record, trips: list[Trip]) -> None:
        """Find the inner crossing that a received packet went on with."""
        headers = record.headers
        if headers is not None and record.details["drop"] is None:
            for trip in trips:
                inner = trip.inner
                if trip.received is not None or inner is None or inner.iif != self._tun:
                    continue
                if inner.entry.key == headers.key:
                    trip.received = record
                    return
        trips.append(Trip(received=record))


def _join_sent(record: Record, trips: list[Trip], departures: list[Crossing]) -> None:
    """Find the inner crossing that a frame came from, and the datagrams that it became."""
    trip = _trip_into(record, trips)
    if trip is None:
        trip = Trip()
        trips.append(trip)
    if record.details.get("staged"):
        trip.staged = record
        return
    trip.sent = record
    for batch in record.details.get("batches", ()):
        for crossing in departures[:]:
            kind, index, counter = crossing.entry.wireguard or (0, 0, 0)
            place = (counter - batch["counter"]) & 0xFFFF_FFFF
            if (kind, index) == (TRANSPORT, record.details["index"]) and place < batch["packets"]:
                trip.departures.append(crossing)
                departures.remove(crossing)


def _trip_into(record: Record, trips: list[Trip]) -> Trip | None:
    """The trip that this record of a frame goes on with."""
    assert record.headers is not None
    key = record.headers.key
    was_staged = record.details.get("read_at") is None
    for trip in trips:
        inner, staged = trip.inner, trip.staged
        if trip.sent is not None:
            continue
        if staged is not None:
            assert staged.headers is not None
            if was_staged and staged.headers.key == key:
                return trip
        elif inner is not None and _went_out(inner) and inner.exit.key == key:
            return trip
    return None


def _went_out(crossing: Crossing) -> bool:
    return crossing.hooks[-1].name == "POSTROUTING" and crossing.drop is None


def _arrival(record: Record, arrivals: list[Crossing]) -> Crossing | None:
    """The outer crossing that brought a datagram: alone, or in one batch with others."""
    index = record.details["index"]
    counters = {record.details[name] & 0xFFFF_FFFF for name in ("batch", "counter")}
    for crossing in arrivals:
        kind, receiver, counter = crossing.entry.wireguard or (0, 0, 0)
        if kind == TRANSPORT and receiver == index and counter in counters:
            return crossing
    return None
