"""The daemon's half of a trace: one record for each frame and datagram, to all subscribers.

While there is a subscriber the engine has a `Recorder` as its tracer; without one it has none. One
whose time is over, or that does not read, is dropped with the next record. Records are events `out`
and `in`; docs/control.md lists their fields.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from tunnel import datapath
from tunnel.control.broadcast import Broadcast, EventQueue, Limits
from tunnel.control.messages.events import TunnelEvent
from tunnel.datapath import Opened, Sealed, Session
from tunnel.engine import Engine, Peer
from tunnel.io.endpoint import Endpoint
from tunnel.packet.filter import Filter
from tunnel.packet.headers import HEADER_ROOM, Headers
from tunnel.protocol.budget import Budget

STALL = 5.0
"""Seconds without room in a reader's queue after which it is taken for stopped, and dropped."""

UNKNOWN = 0.1
"""Part of a reader's rate that is for datagrams of unknown content: anyone can send those."""

_LOST_PERIOD = 1.0


class TraceReader(EventQueue):
    """The records for one reader: those of its filter, and at most `rate` of them a second."""

    def __init__(self, wanted: Filter, rate: float, limits: Limits) -> None:
        super().__init__(limits)
        self._wanted = wanted
        self._clock = limits.clock
        unknown = max(1.0, rate * UNKNOWN)
        self._known, self._unknown = Budget(rate, rate), Budget(unknown, unknown)
        self._withheld = 0
        self._reported = float("-inf")

    def wants(self, headers: Headers | None) -> bool:
        """Whether a record is for it: of a packet of its filter, or of unknown content."""
        if headers is not None and not self._wanted.matches(headers):
            return False
        now = self._clock()
        if (self._unknown if headers is None else self._known).take(now):
            return True
        self._withheld += 1
        if now - self._reported >= _LOST_PERIOD:
            self.lose(self._withheld, full=False)
            self._withheld, self._reported = 0, now
        return False


class Recorder:
    """All traces of one engine, and what the engine calls while there are any.

    Implements `tunnel.engine.instrument.Tracer`. `clock` gives seconds that never go back.
    """

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._readers = Broadcast[TraceReader]("traces", on_first=self._begin, on_last=self._end)
        self._forget()

    def _begin(self) -> None:
        self._forget()
        self._engine.tracer = self

    def _end(self) -> None:
        self._engine.tracer = None

    def _forget(self) -> None:
        self._read_times: dict[int, float] = {}
        self._session_at = 0.0
        self._sealed: tuple[Headers, dict[str, Any]] | None = None
        self._received: dict[str, Any] = {}
        self._opened: tuple[Headers, dict[str, Any]] | None = None

    def subscribe(
        self, wanted: Filter, *, seconds: float = float("inf"), rate: float = float("inf")
    ) -> contextlib.AbstractContextManager[TraceReader]:
        """The records of packets that `wanted` lets through, for the time of the `with`.

        They end earlier after `seconds`, and if no one reads them: a client that was stopped does
        not slow the tunnel for ever. Of more than `rate` records a second the rest is left out,
        with an event `lost`. Raises TooManySubscribersError.
        """
        limits = Limits(seconds, STALL, self._clock)
        return self._readers.subscribe(TraceReader(wanted, rate, limits))

    def _publish(self, kind: str, headers: Headers | None, record: dict[str, Any]) -> None:
        """To those whose filter lets `headers` through; to all, if the content is unknown."""
        event: TunnelEvent | None = None
        for reader in self._readers.current():
            if reader.wants(headers):
                event = event or TunnelEvent(kind, time.time(), record)
                reader.put(event)

    # --- Way out ---------------------------------------------------------------------------------

    def frame_read(self, view: memoryview, start: int, end: int, drop: str | None) -> None:
        """A frame came out of the TUN."""
        if drop is None:
            self._read_times[start] = time.monotonic()
            return
        frame = view[start:end]
        headers = _headers(frame[datapath.VIRTIO_NET_HDR_LEN :])
        if headers is not None:
            peer = self._engine.interface.allowed_ips.lookup(headers.destination)
            record = self._outgoing(headers, frame, peer) | {"drop": drop}
            record["read_at"] = time.monotonic()
            self._publish("out", headers, record)

    def together(self, frames: memoryview, spans: list[tuple[int, int]]) -> int:
        """Each frame has a record of its own; its session is chosen."""
        self._session_at = time.monotonic()
        return 1

    @property
    def opens_apart(self) -> bool:
        """Each datagram has a record of its own."""
        return True

    def frames_staged(self, peer: Peer, view: memoryview, spans: list[tuple[int, int]]) -> None:
        """Frames wait for a session."""
        for start, end in spans:
            headers = _headers(view[start + datapath.VIRTIO_NET_HDR_LEN : end])
            if headers is not None:
                record = self._outgoing(headers, view[start:end], peer) | {"staged": True}
                record["read_at"] = self._read_times.pop(start, None)
                self._publish("out", headers, record)

    def frame_sealed(
        self,
        peer: Peer,
        session: Session,
        frame: memoryview,
        start: int,
        counter: int,
        sealed: Sealed,
    ) -> None:
        """A frame became datagrams, or was dropped in the attempt."""
        # A staged frame has no time of reading: that was reported when it was staged.
        read_at = self._read_times.pop(start, None)
        headers = _headers(frame[datapath.VIRTIO_NET_HDR_LEN :])
        if headers is None:
            return
        record = self._outgoing(headers, frame, peer)
        record["read_at"], record["session_at"] = read_at, self._session_at
        record["sealed_at"] = time.monotonic()
        record["index"], record["session"] = session.remote_index, session.local_index
        if sealed.drops:
            record["drop"] = next(iter(sealed.drops))
            self._publish("out", headers, record)
            return
        record["batches"] = batches = []
        for begin, end, stride, ecn in sealed.batches:
            packets = -(-(end - begin) // stride)
            batches.append({"counter": counter, "packets": packets, "size": stride, "ecn": ecn})
            counter += packets
        self._sealed = headers, record

    def sending(self) -> None:
        """The frame sealed last goes to the kernel; of several batches, the first counts."""
        if self._sealed is not None:
            self._sealed[1]["sending_at"] = time.monotonic()

    def sent(self, endpoint: Endpoint | None, drop: str | None) -> None:
        """The frame sealed last has left, or not."""
        if self._sealed is None:
            return
        headers, record = self._sealed
        self._sealed = None
        record["endpoint"] = None if endpoint is None else str(endpoint)
        record["drop"] = drop
        self._publish("out", headers, record)

    def _outgoing(self, headers: Headers, frame: memoryview, peer: Peer | None) -> dict[str, Any]:
        allowed = self._engine.interface.allowed_ips.covering(headers.destination)
        return {
            "packet": _hex(headers),
            "size": headers.size,
            "segment": int.from_bytes(frame[4:6], "little") if frame[1] else 0,
            "peer": None if peer is None else peer.public_key.to_base64(),
            "allowed_ip": None if allowed is None else str(allowed),
            "drop": None,
        }

    # --- Way in ----------------------------------------------------------------------------------

    def datagrams_received(
        self, endpoint: Endpoint, buffer: bytearray, start: int, end: int, stride: int
    ) -> None:
        """A datagram of data came."""
        self._opened = None
        self._received = {
            "received_at": time.monotonic(),
            "endpoint": str(endpoint),
            "index": int.from_bytes(buffer[start + 4 : start + 8], "little"),
            "counter": int.from_bytes(buffer[start + 8 : start + 16], "little"),
            "batch": int.from_bytes(buffer[8:16], "little"),
            "wire_size": end - start,
            "packet": None,
            "drop": None,
        }

    def datagrams_opened(self, peer: Peer | None, opened: Opened | None, out: bytearray) -> None:
        """It was opened, or refused."""
        record = self._received
        record["opened_at"] = time.monotonic()
        record["peer"] = None if peer is None else peer.public_key.to_base64()
        if opened is None or opened.drops:
            record["drop"] = "no_session" if opened is None else next(iter(opened.drops))
            self._publish("in", None, record)
            return
        for begin, finish in opened.frames:
            headers = _headers(memoryview(out)[begin + datapath.VIRTIO_NET_HDR_LEN : finish])
            if headers is not None:
                record["packet"], record["size"] = _hex(headers), headers.size
                allowed = self._engine.interface.allowed_ips.covering(headers.source)
                record["allowed_ip"] = None if allowed is None else str(allowed)
                self._opened = headers, record

    def source_allowed(self) -> None:
        """The packet opened last may come from where it says."""
        if self._opened is not None:
            self._opened[1]["allowed_at"] = time.monotonic()

    def packet_delivered(self, drop: str | None) -> None:
        """The packet opened last reached the TUN, or not."""
        if self._opened is not None:
            headers, record = self._opened
            self._opened = None
            record["drop"] = drop
            self._publish("in", headers, record)


def _headers(packet: memoryview) -> Headers | None:
    return Headers.parse(bytes(packet[:HEADER_ROOM]))


def _hex(headers: Headers) -> str:
    return (headers.network + headers.transport).hex()
