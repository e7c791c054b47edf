"""The way of one packet through one host, as a list of steps: what `tunnel trace` prints.

Layers: the *inner* packet is what applications send and get, the *outer* one the UDP datagram that
carries it, and between the two is the *tunnel*, our own daemon. Places of the kernel have
netfilter's names in capitals; those of the daemon are five on the way out, four on the way in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self, get_args

from tunnel.trace.crossings import Decision

Layer = Literal["inner", "tunnel", "outer"]
Outcome = Literal["passed", "dropped", "lost", "waiting", "unfinished"]

READ, ALLOWED, SESSION, SEAL, SEND = "TUN read", "allowed IPs", "session", "seal", "UDP send"
RECEIVE, OPEN, SOURCE, WRITE = "UDP receive", "open", "source check", "TUN write"
LIMITS = "limits"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened to the packet.

    `time` is CLOCK_MONOTONIC in seconds. A step of the daemon is stamped as it happens. One of the
    kernel is stamped when its message was read, and never later than what came after it: the
    latest moment at which it can have happened. One that is not `measured` has no stamp of its own:
    its `time` is that of a neighbour. `size` is in bytes, of the packet of that layer; 0 if not
    known. `nat` says what was rewritten here. `decisions` are the rules that matched.
    """

    layer: Layer
    place: str
    what: str
    time: float
    size: int = 0
    nat: str | None = None
    dropped: bool = False
    decisions: tuple[Decision, ...] = ()
    measured: bool = True

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of `asdict`."""
        decisions = tuple(Decision(**decision) for decision in data["decisions"])
        return cls(**{**data, "decisions": decisions})


@dataclass(frozen=True, slots=True)
class Journey:
    """All steps of one packet on `host` (empty: this one).

    `direction` is `out` for what goes into the tunnel, `in` for what comes out of it, `through` for
    both. `packet` says in words what it is, `flow` its source and destination. `datagrams` are the
    receiver index and counter of each datagram that carried it, and `inner_key` names the inner
    packet: both are the same on the two hosts of a tunnel. `counts` is False for what is
    not a packet of the filter itself: handshakes, and datagrams of unknown content.

    `outcome`: `passed`; `dropped`, with `death` saying where and by what; `lost`, when it was last
    seen in the last step for a reason not reported, `death` saying what is likely; `waiting` for a
    session; `unfinished`, when the trace ended before it did.
    """

    direction: Literal["out", "in", "through"]
    packet: str
    flow: str
    outcome: Outcome
    death: str | None
    steps: tuple[Step, ...]
    datagrams: tuple[tuple[int, int], ...] = ()
    inner_key: str = ""
    host: str = ""
    counts: bool = True

    def to_json(self) -> dict[str, Any]:
        """The journey as JSON-ready types."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        steps = tuple(Step.from_json(step) for step in data["steps"])
        datagrams = tuple((index, counter) for index, counter in data["datagrams"])
        if data["outcome"] not in get_args(Outcome):
            raise ValueError(f"no outcome: {data['outcome']!r}")
        return cls(**{**data, "steps": steps, "datagrams": datagrams})

    @property
    def start(self) -> float:
        """Time of the first step."""
        return self.steps[0].time

    def on(self, host: str) -> Journey:
        """The same, with the name of its host."""
        return replace(self, host=host)


def in_order(steps: list[Step]) -> tuple[Step, ...]:
    """The steps with no time later than that of a step after it; one put back is not measured."""
    latest = float("inf")
    settled: list[Step] = []
    for step in reversed(steps):
        measured = step.measured and step.time <= latest
        latest = min(latest, step.time)
        settled.append(replace(step, time=latest, measured=measured))
    return tuple(reversed(settled))


def elapsed(journey: Journey, before: float | None = None) -> Iterator[float | None]:
    """For each step the seconds since the last measured one, None for what was not measured.

    `before` is the time of the last step on another host.
    """
    previous = journey.start if before is None else before
    for step in journey.steps:
        yield max(0.0, step.time - previous) if step.measured else None
        previous = step.time if step.measured else previous


@dataclass(slots=True)
class Chain:
    """Journeys of one packet from host to host, in order."""

    journeys: list[Journey] = field(default_factory=list)


def join_hosts(journeys: list[Journey]) -> list[Chain]:
    """Put together what one packet did on several hosts, by the datagrams that carried it."""
    chains: list[Chain] = []
    for journey in sorted(journeys, key=lambda journey: journey.start):
        for chain in chains:
            last = chain.journeys[-1]
            if (
                last.host != journey.host
                and journey.direction != "out"
                and set(last.datagrams) & set(journey.datagrams)
            ):
                chain.journeys.append(journey)
                break
        else:
            chains.append(Chain([journey]))
    return chains
