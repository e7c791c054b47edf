"""The parts of one packet's journey, as far as they are known."""

from __future__ import annotations

from dataclasses import dataclass, field

from tunnel.trace.crossings import Crossing
from tunnel.trace.record_store import PacketRecord


@dataclass(slots=True, eq=False)
class Trip:
    """The parts of one journey, in the order of the packet; absent parts are None or empty."""

    arrival: Crossing | None = None
    received: PacketRecord | None = None
    inner: Crossing | None = None
    staged: PacketRecord | None = None
    sent: PacketRecord | None = None
    departures: list[Crossing] = field(default_factory=list)

    def parts(self) -> list[Crossing | PacketRecord]:
        """All parts that there are."""
        found = (self.arrival, self.received, self.inner, self.staged, self.sent)
        return [part for part in (*found, *self.departures) if part is not None]

    @property
    def latest(self) -> float:
        """When the newest part was reported."""
        return max(
            part.arrived if isinstance(part, PacketRecord) else part.latest for part in self.parts()
        )

    @property
    def waits(self) -> bool:
        """Whether it is staged for a session that there is not yet."""
        return self.staged is not None and self.sent is None
