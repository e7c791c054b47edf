"""The daemon's half of a capture with a filter: which datagrams carried packets of the filter.

While there is a subscriber the engine has a `Carrying`; without one it has none. Frames are sealed
together as far as they are alike in what the filters say, so that it is known which counters they
got. Datagrams that came are opened together as ever, and their packets told apart by their sizes.
Where that fails, several flows of equal packets being mixed, all that may be the wanted ones are
told, and for the next `APART` seconds datagrams are opened one at a time, which is slow and exact.
What is told are ranges of counters, gathered over `PACE` seconds.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice

import trio

from tunnel import datapath
from tunnel.control.broadcast import MAX_SUBSCRIBERS, TooManySubscribersError
from tunnel.control.messages.events import TunnelEvent
from tunnel.datapath import Opened, Sealed, Session
from tunnel.datapath.interface import MESSAGE_OVERHEAD
from tunnel.datapath.virtio import VirtioNetHdr
from tunnel.engine import Engine, Peer
from tunnel.io.endpoint import Endpoint
from tunnel.packet.filter import Filter
from tunnel.packet.headers import HEADER_ROOM, Headers

MAX_RANGES = 1 << 16
"""Ranges that wait for one subscriber; more are lost and counted."""

RANGES_PER_EVENT = 1024

PACE = 0.02
"""Seconds over which ranges are gathered into one event."""

STALL = 5.0
"""Seconds without room for ranges after which a reader is taken for stopped, and let go of."""


APART = 1.0
"""Seconds for which datagrams are opened one at a time once they could not be told apart."""

_PADDING = 16
"""Bytes to whose multiple a packet is padded (WireGuard whitepaper, section 5.4.6)."""


class Ranges:
    """What one subscriber is told, as an asynchronous iterator of events.

    `carried` has `ranges`, each a receiver index, the first counter and the number of datagrams;
    `lost` the `count` of datagrams that were not told because nobody read.
    """

    def __init__(self, wanted: Filter) -> None:
        self.wanted = wanted
        self._waiting: deque[list[int]] = deque()
        self._latest: dict[int, list[int]] = {}
        self._lost = 0
        self._full_since = float("inf")
        self._due = float("-inf")
        self._wake = trio.Event()
        self._ended = False

    def add(self, index: int, first: int, count: int) -> bool:
        """Take note of datagrams; False if the reader seems to be stopped."""
        latest = self._latest.get(index)
        if latest is not None and latest[1] + latest[2] == first:
            latest[2] += count
        elif len(self._waiting) < MAX_RANGES:
            self._latest[index] = made = [index, first, count]
            self._waiting.append(made)
            self._wake.set()
        else:
            self._lost += count
            self._full_since = min(self._full_since, time.monotonic())
            return time.monotonic() - self._full_since <= STALL
        return True

    def end(self) -> None:
        """Nothing more comes."""
        self._ended = True
        self._wake.set()

    def __aiter__(self) -> Ranges:
        return self

    async def __anext__(self) -> TunnelEvent:
        await trio.lowlevel.checkpoint()
        while not (self._waiting or self._lost or self._ended):
            self._wake = trio.Event()
            await self._wake.wait()
        if len(self._waiting) < RANGES_PER_EVENT and not self._ended:
            await trio.sleep(max(0.0, self._due - trio.current_time()))
        self._due = trio.current_time() + PACE
        waiting = self._waiting
        if waiting:
            taken = list(islice(waiting, RANGES_PER_EVENT))
            for _ in taken:
                waiting.popleft()
            # No more is added to what was told.
            self._latest.clear()
            self._full_since = float("inf")
            return TunnelEvent("carried", time.time(), {"ranges": taken})
        if self._lost:
            lost, self._lost = self._lost, 0
            return TunnelEvent("lost", time.time(), {"count": lost})
        raise StopAsyncIteration


class CarrierFeed:
    """All captures of one tunnel that have a filter."""

    def __init__(self) -> None:
        self._readers: list[Ranges] = []

    @contextlib.contextmanager
    def subscribe(self, engine: Engine, wanted: Filter) -> Iterator[Ranges]:
        """The datagrams of packets that `wanted` lets through, for the time of the `with`.

        They end earlier when nobody reads them: a client that was stopped does not slow the tunnel
        for ever. Raises TooManySubscribersError.
        """
        if len(self._readers) >= MAX_SUBSCRIBERS:
            raise TooManySubscribersError(f"there are {MAX_SUBSCRIBERS} captures already")
        ranges = Ranges(wanted)
        self._readers.append(ranges)
        if engine.carrying is None:
            engine.carrying = Carrying(engine, self)
        try:
            yield ranges
        finally:
            self._end(engine, ranges)

    def wanting(self, packet: memoryview) -> tuple[Ranges, ...]:
        """Those whose filters let the packet through."""
        headers = Headers.parse(bytes(packet[:HEADER_ROOM]))
        if headers is None:
            return ()
        return tuple(ranges for ranges in self._readers if ranges.wanted.matches(headers))

    def tell(
        self, engine: Engine, whom: Iterable[Ranges], index: int, first: int, count: int
    ) -> None:
        """Let them know of so many datagrams."""
        for ranges in whom:
            if not ranges.add(index, first, count):
                self._end(engine, ranges)

    def _end(self, engine: Engine, ranges: Ranges) -> None:
        ranges.end()
        if ranges in self._readers:
            self._readers.remove(ranges)
        if not self._readers:
            engine.carrying = None


class Carrying:
    """What the engine calls; implements `tunnel.engine.instrument.Tracer`."""

    def __init__(self, engine: Engine, feed: CarrierFeed) -> None:
        self._engine = engine
        self._feed = feed
        self._sealing: tuple[Ranges, ...] = ()
        self._received = bytearray(), 0, 1
        self._apart_until = float("-inf")

    def together(self, frames: memoryview, spans: list[tuple[int, int]]) -> int:
        """As many as are for the same readers."""
        for count, (start, end) in enumerate(spans):
            found = self._feed.wanting(frames[start + datapath.VIRTIO_NET_HDR_LEN : end])
            if not count:
                self._sealing = found
            elif found != self._sealing:
                return count
        return len(spans)

    def frame_sealed(
        self,
        peer: Peer,
        session: Session,
        frame: memoryview,
        start: int,
        counter: int,
        sealed: Sealed,
    ) -> None:
        """All frames that were sealed together are alike."""
        if sealed.packets:
            index = session.remote_index
            self._feed.tell(self._engine, self._sealing, index, counter, sealed.packets)

    @property
    def opens_apart(self) -> bool:
        """Only if those opened together lately could not be told apart."""
        return time.monotonic() < self._apart_until

    def datagrams_received(
        self, endpoint: Endpoint, buffer: bytearray, start: int, end: int, stride: int
    ) -> None:
        """Remember what is opened next."""
        self._received = buffer, start, stride

    def datagrams_opened(self, peer: Peer | None, opened: Opened | None, out: bytearray) -> None:
        """Now it is known what was in them."""
        if opened is None or not opened.frames:
            return
        sizes: dict[tuple[Ranges, ...], set[int]] = {}
        for start, end in opened.frames:
            frame = memoryview(out)[start:end]
            found = self._feed.wanting(frame[datapath.VIRTIO_NET_HDR_LEN :])
            sizes.setdefault(found, set()).update(_segment_sizes(frame))
        if list(sizes) == [()]:
            return
        buffer, start, stride = self._received
        end = start + opened.consumed
        for at in range(start, end, stride):
            padded = min(stride, end - at) - MESSAGE_OVERHEAD
            if not padded:
                continue  # a keepalive
            index = int.from_bytes(buffer[at + 4 : at + 8], "little")
            counter = int.from_bytes(buffer[at + 8 : at + 16], "little")
            self._feed.tell(self._engine, self._whose(sizes, padded), index, counter, 1)

    def _whose(self, sizes: dict[tuple[Ranges, ...], set[int]], padded: int) -> Iterable[Ranges]:
        """Who wants a datagram with so many bytes of packet and padding, of those in `sizes`."""
        if len(sizes) == 1:
            return next(iter(sizes))
        found = [
            readers
            for readers, known in sizes.items()
            if any(size <= padded < size + _PADDING for size in known)
        ]
        if len(found) == 1:
            return found[0]
        self._apart_until = time.monotonic() + APART
        # None that fits: somebody pads otherwise.
        return set(chain(*(found or sizes)))

    def frame_read(self, view: memoryview, start: int, end: int, peer: Peer | None) -> None:
        """Nothing has carried it yet."""

    def frames_staged(self, peer: Peer, view: memoryview, spans: list[tuple[int, int]]) -> None:
        """Nothing has carried them yet."""

    def sent(self, endpoint: Endpoint | None, drop: str | None) -> None:
        """The capture itself sees what has left."""

    def packet_delivered(self, drop: str | None) -> None:
        """It was carried, whatever becomes of it."""


def _segment_sizes(frame: memoryview) -> set[int]:
    """Sizes of the packets that a frame was made of."""
    packet = len(frame) - datapath.VIRTIO_NET_HDR_LEN
    header = VirtioNetHdr.unpack_untrusted(frame)
    if not header.gso_size:
        return {packet}
    rest = (packet - header.hdr_len) % header.gso_size
    return {header.hdr_len + header.gso_size, header.hdr_len + (rest or header.gso_size)}
