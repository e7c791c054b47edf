"""Joins what the kernel and what the daemon reported of the same packets.

    inner crossing ──(equal headers)── record `out` ──(index, counter)── outer crossing
    outer crossing ──(index, counter)── record `in` ──(equal headers)── inner crossing

Where GSO or GRO made one packet of many datagrams, the kernel shows the first one's counter; the
records carry the counter of their batch for that. A packet that came out of the tunnel and went
into it again (a hub) is one journey.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from tunnel.packet.headers import TRANSPORT_DATA, UDP, Headers
from tunnel.trace import narrate
from tunnel.trace.crossings import Crossing, CrossingBuilder
from tunnel.trace.journey import Journey
from tunnel.trace.nftrace import TraceEvent
from tunnel.trace.record_store import Datagram, PacketRecord, PacketRecords
from tunnel.trace.ruleset import Ruleset
from tunnel.trace.trace_table import INNER_RATE
from tunnel.trace.trip import Trip

QUIET = 0.25
"""Seconds without news of a packet after which its journey is complete."""

LATE = 1.0
"""Seconds that a part which has to come may be late: a busy daemon reports in its own time."""

PATIENCE = 6.0
"""Seconds that a packet may wait for a session until it is reported as waiting."""

HOLE = 3.0
"""Seconds around a loss of reports in which a missing part is no sign of a lost packet."""

MAX_CROSSINGS = 1000
"""Crossings kept; older ones are dropped, reported or not."""


class Joiner:
    """Takes events and records as they come, gives journeys when nothing more comes of them.

    `interfaces` maps indices to names, `tun` is the index of the tunnel's interface and `port` its
    UDP port, `table` the name of our trace table.
    """

    def __init__(
        self, *, table: str, ruleset: Ruleset, interfaces: Mapping[int, str], tun: int, port: int
    ) -> None:
        self.builder = CrossingBuilder(table, ruleset)
        self._names = narrate.InterfaceNames(interfaces, tun, self.builder.named)
        self._tun = tun
        self._ports = {port}
        self._crossings: dict[Crossing, None] = {}
        self._records = PacketRecords()
        self._begun: deque[float] = deque(maxlen=INNER_RATE)
        self._hole = float("-inf")
        self._due = float("-inf")
        self.is_pending = False

    def add_port(self, port: int) -> None:
        """The tunnel's datagrams have this port too: it was changed."""
        self._ports.add(port)

    def note_hole(self, now: float) -> None:
        """Something was lost at about `now`: that a part is missing means nothing then."""
        self._hole = now

    def add_events(self, events: Iterable[TraceEvent]) -> None:
        """Take events of the kernel, in their order."""
        for event in events:
            self._expect(event.time)
            begun = self.builder.add(event)
            if begun is not None:
                self._crossings[begun] = None
                self._begun.append(begun.latest)
        if len(self._begun) == INNER_RATE and self._begun[-1] - self._begun[0] < 1.0:
            # From so many on the trace table may leave packets unmarked.
            self.note_hole(self._begun[-1])
        while len(self._crossings) > MAX_CROSSINGS:
            self._forget(next(iter(self._crossings)))

    def add_record(self, kind: str, details: dict[str, Any], now: float) -> None:
        """Take an `out` or `in` record of the daemon, arrived at `now` (CLOCK_MONOTONIC)."""
        packet = details.get("packet")
        headers = None if packet is None else Headers.parse(bytes.fromhex(packet))
        self._expect(now)
        self._records.add(PacketRecord(kind, details, headers, now))

    def take(self, now: float, *, final: bool = False) -> list[Journey]:
        """The journeys that have come to their end by `now`, in order; with `final`, all.

        `is_pending` then says whether there are packets of which more has to come.
        """
        if now < self._due and not final:
            return []
        self._due = float("inf")
        self.is_pending = False
        journeys = []
        trips = self._trips()
        for trip in trips:
            left = trip.latest + self._patience(trip) - now
            if left > 0 and not final:
                self._due = min(self._due, now + left)
                self.is_pending |= not trip.waits
                continue
            for part in trip.parts():
                self._forget(part)
            journey = narrate.narrate(trip, self._names)
            if journey is None:
                continue
            if abs(trip.latest - self._hole) < HOLE and narrate.is_unreported(journey):
                continue
            if left > 0 and journey.outcome == "lost":
                # A packet known only in part so far is not lost.
                if journey.counts:
                    journeys.append(narrate.unfinished(journey))
            else:
                journeys.append(journey)
        self._records.expire(now - LATE, keep={id(part) for trip in trips for part in trip.parts()})
        return sorted(journeys, key=lambda journey: journey.start)

    def _expect(self, moment: float) -> None:
        """Something was reported at `moment`: no journey of it is complete before QUIET later."""
        self._due = min(self._due, moment + QUIET)
        self.is_pending = True

    def _patience(self, trip: Trip) -> float:
        return PATIENCE if trip.waits else QUIET if self._is_whole(trip) else LATE

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

    def _forget(self, part: Crossing | PacketRecord) -> None:
        if isinstance(part, PacketRecord):
            self._records.forget(part)
        elif part in self._crossings:
            del self._crossings[part]
            self.builder.forget(part)

    # --- Joining ---------------------------------------------------------------------------------

    def _trips(self) -> list[Trip]:
        """What is known, put together. Records of nothing that the kernel showed cost no time."""
        inner, outer = [], []
        for crossing in list(self._crossings):
            if not self._is_outer(crossing):
                inner.append(crossing)
            elif any(hook.name == "FORWARD" for hook in crossing.hooks):
                self._forget(crossing)  # others' datagrams, only passing through
            else:
                outer.append(crossing)
        joining = _Joining(self._records)
        for crossing in inner:
            joining.add_inner(crossing, comes=crossing.iif == self._tun)
        joining.add_staged()
        for crossing in outer:
            if not crossing.iif:
                joining.add_departure(crossing)
        for crossing in outer:
            if crossing.iif:
                joining.add_arrival(crossing)
        joining.add_dropped()
        return joining.trips

    def _is_outer(self, crossing: Crossing) -> bool:
        entry = crossing.entry
        if entry.protocol != UDP or self._ports.isdisjoint(entry.ports or ()):
            return False
        return all(self._tun not in (hook.iif, hook.oif) for hook in crossing.hooks)


class _Joining:
    """One pass of joining. Add the inner crossings first, and arrivals last."""

    def __init__(self, records: PacketRecords) -> None:
        self.trips: list[Trip] = []
        self._records = records
        self._of: dict[int, Trip] = {}
        """The trip of each record that has one, by its identity."""

    def add_inner(self, crossing: Crossing, *, comes: bool) -> None:
        """A packet that went into the tunnel, or with `comes`, that came out of it."""
        trip = Trip(inner=crossing)
        self.trips.append(trip)
        if comes:
            trip.received = self._claim(trip, self._records.delivered.get(crossing.entry.key, ()))
        if crossing.hooks[-1].name == "POSTROUTING" and crossing.drop is None:
            self._join_sent(trip, self._records.read.get(crossing.exit.key, ()))

    def add_staged(self) -> None:
        """Frames that wait or waited for a session, of which the kernel reported nothing."""
        for record in self._records.staged:
            if id(record) not in self._of:
                assert record.headers is not None
                self.trips.append(trip := Trip())
                self._join_sent(trip, self._records.read[record.headers.key])

    def _join_sent(self, trip: Trip, records: Iterable[PacketRecord]) -> None:
        record = self._claim(trip, records)
        if record is None or not record.details.get("staged"):
            trip.sent = record
            return
        trip.staged = record
        late = (other for other in records if other.was_staged)
        trip.sent = self._claim(trip, late)

    def add_departure(self, crossing: Crossing) -> None:
        """A datagram that left."""
        record = self._records.sealed.get(_datagram(crossing))
        if record is None:
            self.trips.append(Trip(departures=[crossing]))
            return
        self._trip_of(record).departures.append(crossing)

    def add_arrival(self, crossing: Crossing) -> None:
        """A datagram that came: alone, or the first of several in one batch."""
        records = self._records.received.get(_datagram(crossing), ())
        for record in records:
            trip = self._trip_of(record)
            trip.arrival = trip.arrival or crossing
        if not records:
            self.trips.append(Trip(arrival=crossing))

    def add_dropped(self) -> None:
        """What the daemon dropped and the kernel did not report."""
        for record in self._records.dropped:
            self._trip_of(record)

    def _claim(self, trip: Trip, records: Iterable[PacketRecord]) -> PacketRecord | None:
        """The first of `records` that has no trip yet; it is one of `trip` from now on."""
        for record in records:
            if id(record) not in self._of:
                self._of[id(record)] = trip
                return record
        return None

    def _trip_of(self, record: PacketRecord) -> Trip:
        """The trip of a record; one of its own if it had none."""
        trip = self._of.get(id(record))
        if trip is None:
            trip = Trip(received=record) if record.kind == "in" else Trip(sent=record)
            self.trips.append(trip)
            self._of[id(record)] = trip
        return trip


def _datagram(crossing: Crossing) -> Datagram:
    """What names a datagram of data; nothing names a handshake."""
    kind, index, counter = crossing.entry.wireguard or (0, 0, 0)
    return (index, counter) if kind == TRANSPORT_DATA else (-1, -1)
