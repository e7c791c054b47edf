"""The daemon's records of a trace, found by what the kernel reports of the same packets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tunnel.packet.headers import Headers

MAX_RECORDS = 4096
"""Records kept; older ones are dropped, reported or not."""

Datagram = tuple[int, int]
"""Receiver index and the low 32 bits of the counter: what the kernel shows of a datagram."""


@dataclass(slots=True, eq=False)
class PacketRecord:
    """One record of the daemon: `kind` is out or in, `headers` those of the inner packet."""

    kind: str
    details: dict[str, Any]
    headers: Headers | None
    arrived: float

    @property
    def was_staged(self) -> bool:
        """Whether it says what became of a frame that had waited for a session."""
        return self.details.get("read_at") is None and not self.details.get("staged")

    def datagrams(self) -> Iterator[Datagram]:
        """What the kernel may know it by: of those that came as one it shows the first."""
        details = self.details
        if self.kind == "in":
            yield from {
                (details["index"], details[of] & 0xFFFF_FFFF) for of in ("batch", "counter")
            }
            return
        for batch in details.get("batches", ()):
            for place in range(batch["packets"]):
                yield details["index"], batch["counter"] + place & 0xFFFF_FFFF


class PacketRecords:
    """Records in the order of their arrival, and by several names.

    `read` (frames from the TUN) and `delivered` (packets into it) are by `Headers.key`, `sealed`
    and `received` by datagram; `staged` and `dropped` are reported by themselves too.
    """

    def __init__(self) -> None:
        self._all: dict[PacketRecord, None] = {}
        self.read: dict[bytes, dict[PacketRecord, None]] = defaultdict(dict)
        self.delivered: dict[bytes, dict[PacketRecord, None]] = defaultdict(dict)
        self.sealed: dict[Datagram, PacketRecord] = {}
        self.received: dict[Datagram, dict[PacketRecord, None]] = defaultdict(dict)
        self.staged: dict[PacketRecord, None] = {}
        self.dropped: dict[PacketRecord, None] = {}

    def add(self, record: PacketRecord) -> None:
        """Keep a record, and drop the oldest if there are too many."""
        self._all[record] = None
        if record.kind == "out":
            assert record.headers is not None
            self.read[record.headers.key][record] = None
            self.sealed.update(dict.fromkeys(record.datagrams(), record))
        else:
            if record.headers is not None and record.details["drop"] is None:
                self.delivered[record.headers.key][record] = None
            for datagram in record.datagrams():
                self.received[datagram][record] = None
        if record.details.get("staged"):
            self.staged[record] = None
        if record.details["drop"] is not None:
            self.dropped[record] = None
        while len(self._all) > MAX_RECORDS:
            self.forget(next(iter(self._all)))

    def forget(self, record: PacketRecord) -> None:
        """Drop a record, if it is here."""
        if record not in self._all:
            return
        del self._all[record]
        for some in (self.staged, self.dropped):
            some.pop(record, None)
        if record.headers is not None:
            for by_key in (self.read, self.delivered):
                _remove(by_key, record.headers.key, record)
        for datagram in record.datagrams():
            if record.kind == "in":
                _remove(self.received, datagram, record)
            elif self.sealed.get(datagram) is record:
                del self.sealed[datagram]

    def expire(self, before: float, keep: set[int]) -> None:
        """Drop what arrived before that, except records whose `id` is in `keep`."""
        old = []
        for record in self._all:
            if record.arrived >= before:
                break
            if id(record) not in keep:
                old.append(record)
        for record in old:
            self.forget(record)


def _remove(by_name: dict[Any, dict[PacketRecord, None]], name: Any, record: PacketRecord) -> None:
    known = by_name.get(name)
    if known is not None:
        known.pop(record, None)
        if not known:
            del by_name[name]
