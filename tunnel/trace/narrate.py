"""The parts of a trip as steps in words: what happened at each place, and where a packet ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tunnel.log.redact import printable
from tunnel.packet.headers import Headers
from tunnel.trace import journey
from tunnel.trace.crossings import Crossing, Decision, HookTrace
from tunnel.trace.journey import Journey, Layer, Outcome, Step

if TYPE_CHECKING:
    from tunnel.trace.record_store import PacketRecord
    from tunnel.trace.trip import Trip

HANDSHAKES = {1: "handshake initiation", 2: "handshake response", 3: "cookie reply"}
OVERHEAD = 32
"""Bytes of header and tag around a sealed packet."""

_VANISHED = {
    "PREROUTING": "the kernel's routing refused it: rp_filter, no route, or no forwarding",
    "INPUT": "dropped by the kernel, not by an nftables rule",
    "FORWARD": "dropped by the kernel, not by an nftables rule",
    "OUTPUT": "dropped by the kernel, not by an nftables rule",
    "POSTROUTING": "dropped by iptables-legacy, BPF or a queue's program, not by an nftables rule",
}
_NOT_READ = "the daemon reported nothing: the TUN's queue was full, or there was too much to report"
_NOT_SENT = "the kernel took it but reported nothing: too much other traffic to report it all"
_NOT_DELIVERED = "the kernel reported nothing of it: the interface is down, or too much to report"

DROPS = {
    "no_peer": "no peer's AllowedIPs cover the destination",
    "link_multicast": "it is for a multicast group of this link, which no peer's AllowedIPs cover",
    "routing_loop": "it is a datagram of this tunnel, whose endpoint is routed into the tunnel",
    "no_endpoint": "the peer's address is not known",
    "no_session": "no live session has this receiver index",
    "ethernet": "it is an Ethernet frame: the peer has Mode = tap",
    "not_ethernet": "it is no Ethernet frame: the peer has not Mode = tap",
    "no_destination": "no peer may have the address that the frame is for",
    "destination_not_allowed": "the frame is for the MAC address of one peer and the IP address of "
    "another",
    "source_not_allowed": "the source is not in the peer's AllowedIPs",
    "over_rate": "more than the RateLimit of the peer lets pass",
    "over_quota": "more than what is left of the Quota of the peer",
    "replay": "its counter was seen before, or is too old",
    "authentication": "it was not sealed with this session's key",
}
"""Drop reasons of the daemon in words; others are shown by their name."""

LIMITS = ("over_rate", "over_quota")
"""Drop reasons of what a peer's conf allows; such a frame was neither sealed nor written."""


@dataclass(frozen=True)
class InterfaceNames:
    """Interfaces by index, `tun` being the tunnel's; `named` gives a decision its rule's text."""

    interfaces: Mapping[int, str]
    tun: int
    named: Callable[[Decision], Decision]

    def interface(self, index: int) -> str:
        """An interface's name; its number if it has none."""
        return self.interfaces.get(index, f"interface {index}")


class _Narrator:
    """Collects steps, up to the one in which the packet ended."""

    def __init__(self, names: InterfaceNames) -> None:
        self.names = names
        self.steps: list[Step] = []
        self.outcome: Outcome = "passed"
        self.death: str | None = None

    @property
    def ended(self) -> bool:
        return self.outcome != "passed"

    def lose(self, why: str, outcome: Outcome = "lost") -> None:
        if not self.ended:
            self.outcome, self.death = outcome, why

    def add(
        self, place: str, what: str, time: float, size: int = 0, *, measured: bool = True
    ) -> None:
        self.steps.append(Step("tunnel", place, what, time, size, measured=measured))

    def drop(self, place: str, reason: str, time: float, *, measured: bool = True) -> None:
        what = DROPS.get(reason, reason.replace("_", " ").replace("-", " "))
        self.steps.append(
            Step("tunnel", place, f"DROPPED: {what}", time, dropped=True, measured=measured)
        )
        self.outcome, self.death = "dropped", f"{place}, in the daemon: {what} ({reason})"

    def cross(self, layer: Layer, crossing: Crossing) -> None:
        """The hooks of a crossing."""
        hooks = crossing.hooks
        for hook, following in zip(hooks, [*hooks[1:], None], strict=True):
            self.steps.append(self._hook_step(layer, hook, following))
        drop = crossing.drop
        if drop is not None:
            self.outcome = "dropped"
            self.death = f"{hooks[-1].name} of the {layer} packet: {self.names.named(drop)}"
        elif not crossing.is_complete:
            why = _VANISHED.get(hooks[-1].name, "nothing more was reported")
            self.lose(f"after {hooks[-1].name} of the {layer} packet: {why}")

    def _hook_step(self, layer: Layer, hook: HookTrace, following: HookTrace | None) -> Step:
        leaving = hook.exit if following is None else following.entry
        decisions = tuple(self.names.named(decision) for decision in hook.decisions)
        name = self.names.interface
        if hook.drop is not None:
            what = "DROPPED"
        elif hook.name == "PREROUTING":
            what = f"came in by {name(hook.iif)}"
        elif hook.name == "FORWARD":
            what = f"routed from {name(hook.iif)} to {name(hook.oif)}"
        elif hook.name == "OUTPUT":
            what = f"made here, routed to {name(hook.oif)}"
        elif hook.name == "POSTROUTING":
            what = f"leaves by {name(hook.oif)}"
        else:
            what = "for this host: to its socket"
        return Step(
            layer=layer,
            place=hook.name,
            what=what,
            time=hook.time,
            size=hook.entry.size,
            nat=_rewritten(hook.entry, leaving),
            dropped=hook.drop is not None,
            decisions=decisions,
        )


def narrate(trip: Trip, names: InterfaceNames) -> Journey | None:
    """The journey of a trip; None if the packet does not match the filter."""
    inner, received = trip.inner, trip.received
    if not any((inner, received, trip.staged, trip.sent)):
        return _datagram_alone(trip, names)
    if _is_scrap(trip):
        return None
    narrator = _Narrator(names)
    if received is not None:
        if trip.arrival is not None:
            narrator.cross("outer", trip.arrival)
        _add_received(narrator, received)
        if inner is None:
            narrator.lose(_NOT_DELIVERED)
    if inner is not None:
        narrator.cross("inner", inner)
    if trip.staged is not None:
        _add_staged(narrator, trip.staged)
        if trip.sent is None:
            narrator.lose("no handshake has completed yet", "waiting")
    if trip.sent is not None:
        _add_sent(narrator, trip)
    goes = trip.staged is not None or trip.sent is not None
    if inner is not None and inner.oif == names.tun:
        if not goes:
            narrator.lose(_NOT_READ)
        goes = True
    comes = received is not None or (inner is not None and inner.iif == names.tun)
    headers = _headers(trip)
    return Journey(
        direction="through" if comes and goes else "in" if comes else "out",
        packet="sealed packet, content unknown" if headers is None else headers.kind(),
        flow=_flow(trip, headers),
        outcome=narrator.outcome,
        death=narrator.death,
        steps=journey.in_order(narrator.steps),
        datagrams=tuple(_datagrams(trip)),
        inner_key="" if headers is None else headers.key.hex(),
        counts=headers is not None,
    )


def unfinished(journey: Journey) -> Journey:
    """A journey whose end is not known, since the trace ended first."""
    why = f"after {journey.steps[-1].place}: the trace ended while it was under way"
    return replace(journey, outcome="unfinished", death=why)


def is_unreported(journey: Journey) -> bool:
    """Whether it counts as lost only because a report is missing."""
    return journey.death in (_NOT_READ, _NOT_SENT, _NOT_DELIVERED)


def _is_scrap(trip: Trip) -> bool:
    """Whether the kernel reported nothing of a packet that got through, for lack of room."""
    if trip.inner is not None or trip.arrival is not None or trip.departures:
        return False
    records = (trip.received, trip.staged, trip.sent)
    return not any(record is not None and record.details["drop"] for record in records)


def _headers(trip: Trip) -> Headers | None:
    """Those of the inner packet as it came; None if it could not be read."""
    if trip.inner is not None:
        return trip.inner.entry
    record = trip.received or trip.staged or trip.sent
    return None if record is None else record.headers


def _flow(trip: Trip, headers: Headers | None) -> str:
    if headers is not None:
        return headers.flow()
    if trip.arrival is not None:
        return trip.arrival.entry.flow()
    return "" if trip.received is None else f"from {trip.received.details['endpoint']}"


def _datagram_alone(trip: Trip, names: InterfaceNames) -> Journey | None:
    """A datagram that the daemon did not report: a handshake, or one that never reached it."""
    crossing = trip.arrival or trip.departures[0]
    kind = (crossing.entry.wireguard or (0, 0, 0))[0]
    died_unread = trip.arrival is not None and not crossing.is_complete
    if kind not in HANDSHAKES and not died_unread:
        return None  # data of a packet that the filter leaves out
    narrator = _Narrator(names)
    narrator.cross("outer", crossing)
    return Journey(
        direction="out" if trip.departures else "in",
        packet=f"WireGuard {HANDSHAKES.get(kind, 'datagram, content unknown')}",
        flow=crossing.entry.flow(),
        outcome=narrator.outcome,
        death=narrator.death,
        steps=journey.in_order(narrator.steps),
        datagrams=tuple(_datagrams(trip)),
        counts=False,
    )


def _datagrams(trip: Trip) -> Iterator[tuple[int, int]]:
    """Receiver index and counter of all datagrams that carried the packet."""
    if trip.received is not None:
        yield trip.received.details["index"], trip.received.details["counter"]
    elif trip.arrival is not None and (message := trip.arrival.entry.wireguard) is not None:
        yield message[1], message[2]
    if trip.sent is not None:
        for batch in trip.sent.details.get("batches", ()):
            for place in range(batch["packets"]):
                yield trip.sent.details["index"], batch["counter"] + place


def _rewritten(before: Headers, after: Headers) -> str | None:
    """What NAT changed."""
    if (before.source, before.destination, before.ports) == (
        after.source,
        after.destination,
        after.ports,
    ):
        return None
    return f"{before.flow()} became {after.flow()}"


def _peer(details: dict[str, Any]) -> str:
    key = details.get("peer")
    return f"peer {printable(details.get('name') or '') or f'{key[:8]}…'}" if key else "no peer"


def _add_received(narrator: _Narrator, record: PacketRecord) -> None:
    details, drop = record.details, record.details["drop"]
    place = f"receiver index {details['index']:#010x}, counter {details['counter']}"
    narrator.add(
        journey.RECEIVE,
        f"from {details['endpoint']}, {place}",
        details["received_at"],
        details["wire_size"],
    )
    opened_at = details["opened_at"]
    if record.headers is None:
        narrator.drop(journey.OPEN, drop or "no packet", opened_at)
        return
    size = details["size"]
    narrator.add(journey.OPEN, f"authentic, counter not seen before: {size} bytes", opened_at, size)
    allowed_at = details.get("allowed_at")
    if allowed_at is None:
        narrator.drop(journey.SOURCE, drop or "source_not_allowed", opened_at, measured=False)
        return
    source = record.headers.flow().split(" → ")[0]
    allowed = f"{source} is in {details['allowed_ip']} of {_peer(details)}"
    narrator.add(journey.SOURCE, allowed, allowed_at)
    if drop is not None:
        place = journey.LIMITS if drop in LIMITS else journey.WRITE
        narrator.drop(place, drop, allowed_at, measured=False)
        return
    into = f"into {narrator.names.interface(narrator.names.tun)}"
    narrator.add(journey.WRITE, into, allowed_at, size, measured=False)


def _add_read(narrator: _Narrator, record: PacketRecord, otherwise: float) -> None:
    """Reading and looking up have one stamp; `otherwise` is the time if that is not known."""
    details = record.details
    read_at = details["read_at"]
    time = otherwise if read_at is None else read_at
    assert record.headers is not None
    what = f"out of {narrator.names.interface(narrator.names.tun)}"
    if details["segment"]:
        what += f", one frame of segments of {details['segment']} bytes"
    narrator.add(journey.READ, what, time, details["size"], measured=read_at is not None)
    if details["drop"] in ("no_peer", "link_multicast", "routing_loop"):
        narrator.drop(journey.ALLOWED, details["drop"], time, measured=False)
        return
    destination = record.headers.flow().split(" → ")[1]
    what = f"{destination} is in {details['allowed_ip']} of {_peer(details)}"
    narrator.add(journey.ALLOWED, what, time, measured=False)


def _add_staged(narrator: _Narrator, record: PacketRecord) -> None:
    time = record.details["read_at"] or record.arrived
    _add_read(narrator, record, record.arrived)
    what = "none with this peer: the packet waits, and a handshake begins"
    narrator.add(journey.SESSION, what, time, measured=False)


def _add_sent(narrator: _Narrator, trip: Trip) -> None:
    record = trip.sent
    assert record is not None
    details, drop = record.details, record.details["drop"]
    if trip.staged is None:
        _add_read(narrator, record, details.get("session_at", record.arrived))
    if narrator.outcome == "dropped":
        return
    if drop in LIMITS:
        narrator.drop(journey.LIMITS, drop, narrator.steps[-1].time, measured=False)
        return
    sealed_at = details["sealed_at"]
    batches = details.get("batches")
    if not batches:
        narrator.drop(journey.SEAL, drop or "no session", sealed_at)
        return
    first, packets = batches[0], sum(batch["packets"] for batch in batches)
    counters = f"counter {first['counter']}"
    if packets > 1:
        counters = f"counters {first['counter']} to {first['counter'] + packets - 1}"
    session = f"receiver index {details['index']:#010x}, {counters}"
    narrator.add(journey.SESSION, session, details["session_at"])
    size = first["size"]
    if packets > 1:
        what = f"{packets} messages of {size} bytes at most"
    else:
        padding = size - OVERHEAD - details["size"]
        what = f"{details['size']} + 16 header + {padding} padding + 16 tag = {size} bytes"
    narrator.add(journey.SEAL, what, sealed_at, size)
    # It is not passed to the kernel without an endpoint.
    sending_at = details.get("sending_at")
    given, time = sending_at is not None, sending_at or sealed_at
    if drop is not None and not trip.departures:
        narrator.drop(journey.SEND, drop, time, measured=given)
        return
    # What a rule drops in OUTPUT the socket refuses as well: the rule says more.
    refused = "" if drop is None else f", refused by the kernel ({drop})"
    what = f"to {details['endpoint']}{refused}"
    narrator.add(journey.SEND, what, time, size, measured=given)
    _add_departures(narrator, trip.departures)


def _add_departures(narrator: _Narrator, departures: list[Crossing]) -> None:
    """The first datagram's crossing, and of the others the first that did not get through."""
    if not departures:
        narrator.lose(_NOT_SENT)
        return
    shown = [departures[0]]
    shown += [crossing for crossing in departures[1:] if not crossing.is_complete][:1]
    for crossing in shown:
        narrator.cross("outer", crossing)
