"""Which connections the packets of the peers belong to: counted by addresses, protocol and ports.

The table is bounded, whatever a peer sends. A flow is reported and leaves it after `IDLE` seconds
without a packet, and earlier if `MAX_FLOWS` others are newer; one that goes on is reported every
`ACTIVE` seconds, and counted from zero then. So the sum of the records is what was carried.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from tunnel.datapath import VIRTIO_NET_HDR_LEN
from tunnel.packet.ethernet import ethertype_untrusted
from tunnel.packet.headers import HEADER_ROOM, Headers
from tunnel.protocol import PublicKey

from .limits import Way

MAX_FLOWS = 1 << 15
IDLE = 60.0
ACTIVE = 300.0

Side: TypeAlias = tuple[bytes, int]
"""A packed address, and a port or 0."""


class FlowRecord(NamedTuple):
    """A flow, or a part of one: `near` is on our side of the tunnel, `far` on the peer's.

    `first` and `last` are Unix seconds; packets and bytes are by `Way`.
    """

    public_key: PublicKey
    protocol: int
    near: Side
    far: Side
    first: float
    last: float
    packets: tuple[int, int]
    size: tuple[int, int]


_Key: TypeAlias = tuple[PublicKey, int, Side, Side]


class _Flow:
    __slots__ = ("first", "last", "packets", "size")

    def __init__(self, now: float) -> None:
        self.first = self.last = now
        self.packets = [0, 0]
        self.size = [0, 0]


class Flows:
    """The flows of one engine. `unix_time` gives seconds, `report` takes what is to be recorded."""

    def __init__(
        self,
        unix_time: Callable[[], float],
        report: Callable[[FlowRecord], None],
        *,
        ethernet: bool = False,
    ) -> None:
        self._unix_time = unix_time
        self._report = report
        self._ethernet = ethernet
        self._flows: OrderedDict[_Key, _Flow] = OrderedDict()

    def __len__(self) -> int:
        return len(self._flows)

    def count(
        self, public_key: PublicKey, frame: memoryview, way: Way, packets: int, size: int
    ) -> None:
        """Count the packets of a frame, which are all of one flow. What is not IP is of none."""
        link = ethertype_untrusted(frame[VIRTIO_NET_HDR_LEN:])[1] if self._ethernet else 0
        start = VIRTIO_NET_HDR_LEN + link
        headers = Headers.parse(bytes(frame[start : start + HEADER_ROOM]))
        if headers is None:
            return
        source, destination = headers.ports or (0, 0)
        near, far = (headers.source, source), (headers.destination, destination)
        if way is Way.IN:
            near, far = far, near
        key = public_key, headers.protocol, near, far
        now = self._unix_time()
        flow = self._flows.get(key)
        if flow is not None and now - flow.first >= ACTIVE:
            self._end(key)
            flow = None
        if flow is None:
            if len(self._flows) >= MAX_FLOWS:
                self._end(next(iter(self._flows)))
            flow = self._flows[key] = _Flow(now)
        else:
            self._flows.move_to_end(key)
        flow.last = now
        flow.packets[way] += packets
        flow.size[way] += size

    def sweep(self) -> None:
        """Report those that have been idle for long enough."""
        limit = self._unix_time() - IDLE
        while self._flows:
            key, flow = next(iter(self._flows.items()))
            if flow.last > limit:
                break
            self._end(key)

    def end(self) -> None:
        """Report all."""
        while self._flows:
            self._end(next(iter(self._flows)))

    def _end(self, key: _Key) -> None:
        flow = self._flows.pop(key)
        public_key, protocol, near, far = key
        self._report(
            FlowRecord(
                public_key,
                protocol,
                near,
                far,
                flow.first,
                flow.last,
                (flow.packets[0], flow.packets[1]),
                (flow.size[0], flow.size[1]),
            )
        )
