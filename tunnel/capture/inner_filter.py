"""The daemon's half of a capture with a filter: which datagrams carried packets of the filter.

While there is a subscriber the engine has an `InnerFilter`; without one it has none. Frames are
sealed together as far as the filters treat them alike, so that their counters are known. Datagrams
that arrive are opened together as usual, and their packets distinguished by size. Where that
fails, several flows of equal packets being mixed, all that may be the wanted ones are reported, and
for the next `APART` seconds datagrams are opened one at a time, which is slow and exact. Events
have ranges of counters, gathered over `PACE` seconds.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import chain

import trio

from tunnel import datapath
from tunnel.control.broadcast import UNLIMITED, Broadcast, Limits, Subscription
from tunnel.control.messages.events import TunnelEvent
from tunnel.datapath import Opened, Sealed, Session
from tunnel.datapath.interface import MESSAGE_OVERHEAD
from tunnel.datapath.virtio import VirtioNetHdr
from tunnel.engine import Engine, Peer
from tunnel.io.endpoint import Endpoint
from tunnel.packet.ethernet import ETHERIP, LONGEST_HEADER, ip_of_ethernet
from tunnel.packet.filter import Filter
from tunnel.packet.headers import HEADER_ROOM, Headers

MAX_RANGES = 1 << 16
"""Ranges that wait for one subscriber; more are lost and counted."""

RANGES_PER_EVENT = 1024

PACE = 0.02
"""Seconds over which ranges are gathered into one event."""

STALL = 5.0
"""Seconds without room for ranges after which a reader is taken for stopped, and dropped."""

APART = 1.0
"""Seconds for which datagrams are opened one at a time once sizes could not distinguish them."""

_PADDING = 16
"""Bytes to whose multiple a packet is padded (WireGuard whitepaper, section 5.4.6)."""


class Ranges(Subscription):
    """The datagrams for one subscriber, as events.

    `carried` has `ranges`, each a receiver index, the first counter and the number of datagrams;
    `lost` the `count` of datagrams that are missing because the reader was too slow.
    """

    def __init__(self, wanted: Filter, limits: Limits = UNLIMITED) -> None:
        super().__init__(limits)
        self.wanted = wanted
        self._waiting: deque[list[int]] = deque()
        self._latest: dict[int, list[int]] = {}
        self._due = float("-inf")

    def add(self, index: int, first: int, count: int) -> None:
        """Note datagrams."""
        latest = self._latest.get(index)
        if latest is not None and latest[1] + latest[2] == first:
            latest[2] += count
        elif len(self._waiting) < MAX_RANGES:
            self._latest[index] = made = [index, first, count]
            self._waiting.append(made)
            self._wake.set()
        else:
            self.lose(count)

    async def __anext__(self) -> TunnelEvent:
        await trio.lowlevel.checkpoint()
        await self._wait()
        if len(self._waiting) < RANGES_PER_EVENT and not self._ended:
            await trio.sleep(max(0.0, self._due - trio.current_time()))
        self._due = trio.current_time() + PACE
        return await super().__anext__()

    def _has_event(self) -> bool:
        return bool(self._waiting)

    def _next(self) -> TunnelEvent:
        taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), RANGES_PER_EVENT))]
        # A range is not extended once it was sent.
        self._latest.clear()
        return TunnelEvent("carried", time.time(), {"ranges": taken})


class InnerFilter:
    """All captures of one engine that have a filter, and what the engine calls for them.

    Implements `tunnel.engine.instrument.Tracer`. `clock` gives seconds that never go back.
    """

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._readers = Broadcast[Ranges](
            "captures with a filter", on_first=self._begin, on_last=self._end
        )

        self._sealing: tuple[Ranges, ...] = ()
        self._received = bytearray(), 0, 1
        self._apart_until = float("-inf")

    def _begin(self) -> None:
        self._sealing = ()
        self._engine.inner_filter = self

    def _end(self) -> None:
        self._engine.inner_filter = None

    def subscribe(self, wanted: Filter) -> contextlib.AbstractContextManager[Ranges]:
        """The datagrams of packets that `wanted` lets through, for the time of the `with`.

        They end earlier if no one reads them: a client that was stopped does not slow the tunnel
        for ever. Raises TooManySubscribersError.
        """
        return self._readers.subscribe(Ranges(wanted, Limits(stall=STALL, clock=self._clock)))

    def _wanting(self, inner: memoryview) -> tuple[Ranges, ...]:
        """Those whose filters let through a packet, or that of an Ethernet frame."""
        packet = bytes(inner[: HEADER_ROOM + LONGEST_HEADER])
        if self._engine.tun.tap:
            packet = ip_of_ethernet(packet)
        headers = Headers.parse(packet[:HEADER_ROOM])
        if headers is None:
            return ()
        return tuple(each for each in self._readers.current() if each.wanted.matches(headers))

    def together(self, frames: memoryview, spans: list[tuple[int, int]]) -> int:
        """As many as are for the same readers."""
        for count, (start, end) in enumerate(spans):
            found = self._wanting(frames[start + datapath.VIRTIO_NET_HDR_LEN : end])
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
            for ranges in self._sealing:
                ranges.add(session.remote_index, counter, sealed.packets)

    @property
    def opens_apart(self) -> bool:
        """Only if sizes could not distinguish those opened together lately."""
        return self._clock() < self._apart_until

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
            found = self._wanting(frame[datapath.VIRTIO_NET_HDR_LEN :])
            lead = len(ETHERIP) if self._engine.tun.tap else 0
            sizes.setdefault(found, set()).update(size + lead for size in _segment_sizes(frame))
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
            for ranges in self._whose(sizes, padded):
                ranges.add(index, counter, 1)

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
        self._apart_until = self._clock() + APART
        # None that fits: the peer pads differently.
        return set(chain(*(found or sizes)))

    def frame_read(self, view: memoryview, start: int, end: int, drop: str | None) -> None:
        """Nothing has carried it yet."""

    def frames_staged(self, peer: Peer, view: memoryview, spans: list[tuple[int, int]]) -> None:
        """Nothing has carried them yet."""

    def sent(self, endpoint: Endpoint | None, drop: str | None) -> None:
        """The capture itself sees what has left."""

    def sending(self) -> None:
        """The capture itself sees what has left."""

    def source_allowed(self) -> None:
        """It was carried, whatever becomes of it."""

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
