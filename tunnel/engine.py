"""The running tunnel: one trio nursery that joins protocol, datapath and io.

Its tasks share the state machine; none of them awaits while it holds a half-done step:

- `_pump_tun`     TUN frames in, batches of sealed datagrams out;
- `_pump_udp`     datagrams in, opened frames out to the TUN (one task per address family), and
                  out again what the kernel answered meanwhile to a packet that came alone;
- `_handshakes`   one handshake message at a time, giving way to data after each;
- `_timers`       the one deadline that `Interface.next_deadline()` names.

Bounds: `DRAIN_BYTES` per wake-up, `HANDSHAKE_QUEUE` handshake messages waiting, and the staged
packets that the protocol bounds per peer. A full UDP socket stops the reading of the TUN, so the
kernel's own queue of the TUN device takes the rest and counts what it drops.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import TypeAlias

import trio

from tunnel import datapath
from tunnel.datapath import Offload, Opened, Sealed, Session, SessionExhausted
from tunnel.datapath.interface import MESSAGE_OVERHEAD
from tunnel.io.endpoint import Endpoint
from tunnel.io.errors import TunWriteDropped
from tunnel.io.tun import READ_SIZE, Tun, TunOffload
from tunnel.io.udp import FAMILIES, Udp
from tunnel.io.udp_socket import RECEIVE_SIZE, SENT, Received
from tunnel.observe.counters import Counters
from tunnel.observe.load import Load
from tunnel.observe.tracer import Tracer, joined
from tunnel.protocol import Datagram, Event, Interface, Seal
from tunnel.protocol import Drop as ProtocolDrop
from tunnel.protocol import Peer as ProtocolPeer
from tunnel.protocol.constants import HANDSHAKE_QUEUE, UNDER_LOAD_QUEUE

log = logging.getLogger("tunnel.engine")

Peer: TypeAlias = ProtocolPeer[Endpoint, Session]

Unsent: TypeAlias = tuple[memoryview, int, int]
"""The rest of a batch that the socket had no room for, its stride in bytes, and its ECN bits."""

DRAIN_BYTES = 1 << 19
"""Read from one descriptor per wake-up before the other tasks get their turn, which is after less
than a millisecond."""
READ_COST = 1 << 14
"""What any read takes off `DRAIN_BYTES` besides its bytes: as much time as these."""
MAX_FRAMES = DRAIN_BYTES // READ_COST
"""Frames read in one go at most; more than that no budget allows."""

LONE_AFTER = 0.0002
"""Seconds since the last wake-up, if that brought one packet, after which one is expected again
and no other is looked for. More will wake us at once, and then all are taken."""

ARENA_SIZE = 4 * READ_SIZE
"""Frames read before they are sealed: small ones are sealed together, four of 64 KiB fit."""

ARENA_ROOM = ARENA_SIZE - READ_SIZE
"""The last place in the arena where a frame may begin."""

TOS_HANDSHAKE = 0x88
"""TOS byte of handshake datagrams: AF41, as every WireGuard marks them."""

TYPE_TRANSPORT = 4
"""First byte of a transport data message."""

HANDSHAKE_LENGTHS = frozenset({148, 92, 64})
"""Bytes of an initiation, a response and a cookie reply: the only ones worth queueing."""

MAX_SLEEP = 10.0
"""Seconds. trio sleeps by a clock that stops in suspend while key ages do not: look this often."""


class Drop(StrEnum):
    """Reasons of the engine itself."""

    NOT_IP = "not_ip"
    """A frame from the TUN that is neither IPv4 nor IPv6."""
    NO_ENDPOINT = "no_endpoint"
    """The peer's address is not known (yet)."""
    HANDSHAKE_QUEUE_FULL = "handshake_queue_full"
    """More handshake messages than can be answered."""
    SEND_QUEUE_FULL = "send_queue_full"
    """The UDP socket was full, and what was to be sent cannot wait."""
    MESSAGE_LIMIT = "message_limit"
    """The session has sealed as many messages as it may."""
    TUN_BUSY = "tun_busy"
    """The TUN device would not take a frame now."""


def boot_time() -> float:
    """Seconds since boot, suspend included: the clock of all key ages."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Engine:
    """One interface's packets. Owns neither the descriptors nor the host's state around them.

    `run()` returns only by cancellation or by an exception: `tunnel.io.errors.TunDeleted` when the
    device is gone. `mtu` (bytes of an inner packet) may be changed while it runs. `on_event` is
    called for every event of the protocol, from within the event loop; it must not block.
    `retry_endpoint` gives the endpoint to try after one that did not answer. `tracer` and
    `carrying`, if they are there, are told of every packet; they may be set and unset at any time.
    `load` counts batches.
    """

    def __init__(
        self,
        *,
        tun: Tun,
        udp: Udp,
        mtu: int,
        path: datapath.Datapath | None = None,
        random: Callable[[int], bytes] = os.urandom,
        unix_time_ns: Callable[[], int] = time.time_ns,
        on_event: Callable[[Event], None] | None = None,
        retry_endpoint: Callable[[Endpoint], Endpoint] = Endpoint.without_source,
    ) -> None:
        self.tun = tun
        self.udp = udp
        self.mtu = mtu
        self.datapath = path or datapath.load()
        self.interface: Interface[Endpoint, Session] = Interface(
            random=random,
            unix_time_ns=unix_time_ns,
            make_transport=self.datapath.session,
            retry_endpoint=retry_endpoint,
        )
        self.load = Load()
        self._counters = Counters()
        self._trace: Tracer | None = None
        self._carrying: Tracer | None = None
        # What both make together; this is what is told.
        self._tracer: Tracer | None = None
        self._on_event = on_event
        self._handshake_queue: deque[tuple[bytes, Endpoint]] = deque()
        self._handshake_ready = trio.Event()
        self._rearm = trio.Event()
        self._armed = float("-inf")
        self._arena = memoryview(bytearray(ARENA_SIZE))
        self._seal_out = bytearray(datapath.SEAL_OUT_SIZE)
        # Whether a task waits for the socket with frames in hand: no other may overtake it.
        self._held_up = False
        self._going_on = trio.lowlevel.ParkingLot()
        self._nursery: trio.Nursery
        self._coalesce = _coalescible(tun.offloads)
        self._link_up = True

    @property
    def tracer(self) -> Tracer | None:
        """Who wants a record of each packet: traces."""
        return self._trace

    @tracer.setter
    def tracer(self, tracer: Tracer | None) -> None:
        self._trace = tracer
        self._tracer = joined(tracer, self._carrying)

    @property
    def carrying(self) -> Tracer | None:
        """Who wants to know which datagrams carry which packets: captures with a filter."""
        return self._carrying

    @carrying.setter
    def carrying(self, tracer: Tracer | None) -> None:
        self._carrying = tracer
        self._tracer = joined(self._trace, tracer)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry packets until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._timers)
            nursery.start_soon(self._handshakes)
            nursery.start_soon(self._pump_tun)
            for family in FAMILIES:
                nursery.start_soon(self._pump_udp, family)
            task_status.started()

    def settle(self) -> None:
        """Carry out what a change of configuration asked for. To be called after each."""
        self._drain_outputs(boot_time())

    def set_link_up(self, up: bool) -> None:
        """Follow the interface, which begins up: down, sessions end and nothing is heard or sent.

        Peers, keys and counters stay. Up again, peers with a persistent keepalive are greeted.
        """
        if up == self._link_up:
            return
        self._link_up = up
        if up:
            self.interface.handle_up(boot_time())
        else:
            self.interface.handle_down()
        self.settle()
        self._rearm.set()

    def drops(self) -> dict[str, int]:
        """Packets dropped so far, by reason, of all rooms together."""
        total = Counters()
        total.drop_all(self._counters.drops)
        total.drop_all(self.interface.drops)
        total.drop_all(self.tun.drops)
        total.drop_all(self.udp.drops)
        return total.drops

    @property
    def handshakes_waiting(self) -> int:
        """Handshake messages received and not yet looked at."""
        return len(self._handshake_queue)

    # --- Way out ---------------------------------------------------------------------------------

    async def _pump_tun(self) -> None:
        alone, before = True, 0.0
        while True:
            await self.tun.wait_readable()
            while self._held_up:
                await self._going_on.park()
            now = boot_time()
            # Where frames come one by one, none is kept waiting for a look at the next.
            most = 1 if alone and now - before > LONE_AFTER else MAX_FRAMES
            before = now
            budget = DRAIN_BYTES
            frames = 0
            while budget > 0:
                runs, count, taken = self._read_frames(budget, most)
                for peer, spans in runs:
                    while spans:
                        spans, unsent = self._send_frames(peer, spans, now)
                        if unsent:
                            await self._send_unsent(peer, unsent)
                            now = boot_time()
                self._drain_outputs(now)
                frames += count
                if count < 2:
                    break
                budget -= taken
                now = boot_time()
            alone = frames < 2

    def _send_answer(self, now: float) -> None:
        """Send what the kernel answered to a packet within our write of it, if it did.

        An echo reply and most acknowledgements are there already, and so go out in the wake-up
        that brought what they answer.
        """
        if self._held_up:
            return
        runs, _, _ = self._read_frames(DRAIN_BYTES, 1)
        for peer, spans in runs:
            _, unsent = self._send_frames(peer, spans, now)
            if unsent:
                # Receiving goes on meanwhile.
                self._held_up = True
                self._nursery.start_soon(self._send_unsent, peer, unsent)

    def _read_frames(
        self, budget: int, most: int
    ) -> tuple[list[tuple[Peer, list[tuple[int, int]]]], int, int]:
        """Read what fits the arena, `most` frames, until `budget` is used up.

        Runs of frames to one peer each; how many frames; how much of the budget they took.
        """
        view = self._arena
        read = self.tun.read
        runs: list[tuple[Peer, list[tuple[int, int]]]] = []
        latest: Peer | None = None
        start = count = taken = 0
        while taken < budget and count < most and start <= ARENA_ROOM:
            length = read(view, start)
            if not length:
                break
            count += 1
            taken += length + READ_COST
            end = start + length
            peer = self._peer_for(view, start, end)
            if peer is None:
                continue
            if peer is latest:
                runs[-1][1].append((start, end))
            else:
                latest = peer
                runs.append((peer, [(start, end)]))
            start = end
        return runs, count, taken

    def _peer_for(self, view: memoryview, start: int, end: int) -> Peer | None:
        packet = start + datapath.VIRTIO_NET_HDR_LEN
        version = view[packet] >> 4 if packet < end else 0
        if version == 4 and end - packet >= 20:
            destination = bytes(view[packet + 16 : packet + 20])
        elif version == 6 and end - packet >= 40:
            destination = bytes(view[packet + 24 : packet + 40])
        else:
            self._counters.drop(Drop.NOT_IP)
            return None
        peer = self.interface.peer_for_destination(destination)
        if peer is None:
            self.interface.count_drop(ProtocolDrop.NO_PEER)
        if self._tracer is not None:
            self._tracer.frame_read(view, start, end, peer)
        return peer

    def _send_frames(
        self, peer: Peer, spans: list[tuple[int, int]], now: float
    ) -> tuple[list[tuple[int, int]], list[Unsent]]:
        """Seal and send frames of the arena, as many as fit the room for what is sealed.

        The spans left over, and what the socket does not take now: that is to be sent before
        anything else is sealed.
        """
        # Anew each time: while the socket was full the session may have come to its end.
        transport = peer.transport_for_sending(now)
        if transport is None:
            if self._tracer is not None:
                self._tracer.frames_staged(peer, self._arena, spans)
            for start, end in spans:
                peer.stage(bytes(self._arena[start:end]), now)
            return [], []
        sealed = self._seal(peer, transport, self._arena, spans, self._seal_out)
        view = memoryview(self._seal_out)
        unsent: list[Unsent] = []
        for start, end, stride, ecn in sealed.batches:
            rest = end - start if unsent else self._send(peer, view[start:end], stride, ecn)
            if rest:
                unsent.append((view[end - rest : end], stride, ecn))
        # What has left already does not wait for the books.
        self._count_sealed(peer, transport, sealed, now)
        return spans[sealed.consumed :], unsent

    async def _send_unsent(self, peer: Peer, unsent: list[Unsent]) -> None:
        """Send what was sealed and not taken, as the socket has room; nothing overtakes it."""
        self._held_up = True
        try:
            for batch, stride, ecn in unsent:
                rest = len(batch)
                while rest:
                    if peer.endpoint is not None:
                        await self.udp.wait_writable(peer.endpoint.family)
                    rest = self._send(peer, batch[len(batch) - rest :], stride, ecn)
        finally:
            self._held_up = False
            self._going_on.unpark_all()

    def _seal(
        self,
        peer: Peer,
        transport: Session,
        frames: memoryview | bytes,
        spans: list[tuple[int, int]],
        out: bytearray,
    ) -> Sealed:
        """Seal as many frames as `out` takes; `_count_sealed` is to follow."""
        tracer = self._tracer
        if tracer is None:
            try:
                return transport.seal(frames, spans, self.mtu, out)
            except SessionExhausted:
                return _exhausted(spans)
        together = spans[: tracer.together(memoryview(frames), spans)]
        counter = transport.send_counter
        try:
            sealed = transport.seal(frames, together, self.mtu, out)
        except SessionExhausted:
            return _exhausted(spans)
        if sealed.consumed:
            start, end = spans[0]
            frame = memoryview(frames)[start:end]
            tracer.frame_sealed(peer, transport, frame, start, counter, sealed)
        return sealed

    def _count_sealed(self, peer: Peer, transport: Session, sealed: Sealed, now: float) -> None:
        if sealed.drops:
            self._counters.drop_all(sealed.drops)
        if sealed.packets:
            self.load.sealed.add(sealed.packets)
            wire_bytes = sealed.batches[-1].end - sealed.batches[0].start
            peer.handle_sent(transport, now, wire_bytes, data=True)

    def _send(self, peer: Peer, batch: memoryview | bytes, stride: int, tos: int) -> int:
        """Send one batch to where the peer is; how many bytes at its end have to wait."""
        endpoint = peer.endpoint
        if endpoint is None:
            self._counters.drop(Drop.NO_ENDPOINT, -(-len(batch) // stride))
            if self._tracer is not None:
                self._tracer.sent(None, Drop.NO_ENDPOINT)
            return 0
        sent = self.udp.send(batch, stride, endpoint, tos)
        if self._tracer is not None:
            self._tracer.sent(endpoint, sent.drop)
        if sent is SENT:
            return 0
        if sent.endpoint is not None:
            peer.set_endpoint(sent.endpoint)
        return sent.rest

    # --- What the protocol asks for --------------------------------------------------------------

    def _drain_outputs(self, now: float) -> None:
        poll = self.interface.poll_output
        while (output := poll()) is not None:
            if isinstance(output, Datagram):
                self._send_handshake(output)
            elif isinstance(output, Seal):
                self._send_staged(output, now)
            elif self._on_event is not None:
                self._on_event(output)
        deadline = self.interface.next_deadline()
        if deadline is not None and deadline < self._armed:
            self._rearm.set()

    def _send_handshake(self, output: Datagram[Endpoint, Session]) -> None:
        sent = self.udp.send(output.data, len(output.data), output.endpoint, TOS_HANDSHAKE)
        if sent.rest:
            self._counters.drop(Drop.SEND_QUEUE_FULL)
        peer = output.peer
        # Not if it has roamed since: the message was for where it was.
        if sent.endpoint is not None and peer is not None and peer.endpoint is output.endpoint:
            peer.set_endpoint(sent.endpoint)

    def _send_staged(self, output: Seal[Endpoint, Session], now: float) -> None:
        """Seal and send staged frames, or a keepalive if there are none.

        Any task may come here, so it never waits, and has a buffer of its own.
        """
        peer, transport = output.peer, output.transport
        if not output.frames:
            try:
                keepalive = transport.seal_keepalive()
            except SessionExhausted:
                self._counters.drop(Drop.MESSAGE_LIMIT)
                return
            peer.handle_sent(transport, now, len(keepalive), data=False)
            if self._send(peer, keepalive, len(keepalive), 0):
                self._counters.drop(Drop.SEND_QUEUE_FULL)
            return
        out = bytearray(datapath.SEAL_OUT_SIZE)
        view = memoryview(out)
        for frame in output.frames:
            spans = [(0, len(frame))]
            while spans:
                sealed = self._seal(peer, transport, frame, spans, out)
                for start, end, stride, ecn in sealed.batches:
                    rest = self._send(peer, view[start:end], stride, ecn)
                    if rest:
                        self._counters.drop(Drop.SEND_QUEUE_FULL, -(-rest // stride))
                self._count_sealed(peer, transport, sealed, now)
                spans = spans[sealed.consumed :]

    # --- Way in ----------------------------------------------------------------------------------

    async def _pump_udp(self, family: socket.AddressFamily) -> None:
        buffer = bytearray(RECEIVE_SIZE)
        out = bytearray(datapath.OPEN_OUT_SIZE)
        alone, before = True, 0.0
        while True:
            await self.udp.wait_readable(family)
            now = boot_time()
            lone = alone and now - before > LONE_AFTER
            before = now
            batches = 0
            budget = DRAIN_BYTES
            while budget > 0:
                received = self.udp.receive(family, buffer)
                if received is None:
                    break
                self._handle_datagrams_untrusted(buffer, received, out, now)
                batches += 1
                if lone and received.length <= received.stride:
                    self._send_answer(now)
                    break
                budget -= received.length + READ_COST
            alone = batches < 2
            self._drain_outputs(now)

    def _handle_datagrams_untrusted(
        self, buffer: bytearray, received: Received, out: bytearray, now: float
    ) -> None:
        """Sort one receive's datagrams: data is opened here, handshake messages are queued."""
        length, stride, endpoint, ecn = received
        if not self._link_up:
            self.interface.count_drop(ProtocolDrop.INTERFACE_DOWN, -(-length // stride))
            return
        tracer = self._tracer
        start = 0
        while start < length:
            if buffer[start] == TYPE_TRANSPORT and length - start >= MESSAGE_OVERHEAD:
                index = int.from_bytes(buffer[start + 4 : start + 8], "little")
                found = self.interface.transport_for_receiving(index, now)
                end = length
                if tracer is not None:
                    if tracer.opens_apart:
                        end = min(start + stride, length)
                    tracer.datagrams_received(endpoint, buffer, start, end, stride)
                if found is None:
                    if tracer is not None:
                        tracer.datagrams_opened(None, None, out)
                    start += stride
                    continue
                peer, transport = found
                opened = transport.open(
                    buffer, start, end, stride, out, coalesce=self._coalesce, outer_ecn=ecn
                )
                if opened.consumed:
                    if tracer is not None:
                        tracer.datagrams_opened(peer, opened, out)
                    self._deliver(peer, transport, endpoint, opened, out, now)
                    start += opened.consumed
                    continue
            self._queue_handshake_untrusted(
                bytes(buffer[start : min(start + stride, length)]), endpoint, now
            )
            start += stride

    def _deliver(
        self,
        peer: Peer,
        transport: Session,
        endpoint: Endpoint,
        opened: Opened,
        out: bytearray,
        now: float,
    ) -> None:
        """Hand on what came from an allowed source, and tell the protocol what was authentic."""
        if opened.drops:
            self._counters.drop_all(opened.drops)
        if not opened.packets:
            return
        view = memoryview(out)
        for start, end in opened.frames:
            packet = start + datapath.VIRTIO_NET_HDR_LEN
            if view[packet] >> 4 == 4:
                source = bytes(view[packet + 12 : packet + 16])
            else:
                source = bytes(view[packet + 8 : packet + 24])
            if not self.interface.source_allowed(peer, source):
                peer.count(ProtocolDrop.SOURCE_NOT_ALLOWED)
                if self._tracer is not None:
                    self._tracer.packet_delivered(ProtocolDrop.SOURCE_NOT_ALLOWED)
                continue
            drop: str | None = None
            try:
                if not self.tun.write(view[start:end]):
                    drop = Drop.TUN_BUSY
                    self._counters.drop(drop)
            except TunWriteDropped as error:
                drop = error.reason
            if self._tracer is not None:
                self._tracer.packet_delivered(drop)
        data = opened.packets > opened.keepalives
        peer.handle_received(transport, endpoint, now, opened.wire_bytes, data=data)
        self.load.opened.add(opened.packets)

    def _queue_handshake_untrusted(self, datagram: bytes, endpoint: Endpoint, now: float) -> None:
        if len(datagram) not in HANDSHAKE_LENGTHS:
            # No handshake message: counted at once, so that junk cannot bring on under-load.
            self.interface.handle_message_untrusted(datagram, endpoint, now)
            return
        queue = self._handshake_queue
        if len(queue) >= HANDSHAKE_QUEUE:
            self._counters.drop(Drop.HANDSHAKE_QUEUE_FULL)
            return
        queue.append((datagram, endpoint))
        if len(queue) >= UNDER_LOAD_QUEUE:
            self.interface.set_under_load(now)
        self._handshake_ready.set()

    async def _handshakes(self) -> None:
        queue = self._handshake_queue
        while True:
            await self._handshake_ready.wait()
            self._handshake_ready = trio.Event()
            while queue:
                datagram, endpoint = queue.popleft()
                if not self._link_up:
                    self.interface.count_drop(ProtocolDrop.INTERFACE_DOWN)
                    continue
                now = boot_time()
                self.interface.handle_message_untrusted(datagram, endpoint, now)
                self._drain_outputs(now)
                # A handshake costs as much as sealing 64 KiB: data gets a turn after each.
                await trio.lowlevel.checkpoint()

    # --- Time ------------------------------------------------------------------------------------

    async def _timers(self) -> None:
        while True:
            now = boot_time()
            # What is set while the interface is down waits for it to come up.
            deadline = self.interface.next_deadline() if self._link_up else None
            if deadline is not None and deadline <= now:
                self.interface.handle_deadline(now)
                self._drain_outputs(now)
                await trio.lowlevel.checkpoint()
                continue
            self._armed = float("inf") if deadline is None else deadline
            self._rearm = trio.Event()
            with trio.move_on_after(min(MAX_SLEEP, self._armed - now)):
                await self._rearm.wait()


def _exhausted(spans: list[tuple[int, int]]) -> Sealed:
    """None of the frames can be sealed with this session, now or later."""
    frames = len(spans)
    return Sealed(batches=[], consumed=frames, packets=0, drops={Drop.MESSAGE_LIMIT: frames})


def _coalescible(offloads: TunOffload) -> Offload:
    """What may be merged: the TUN takes as large frames as it gives."""
    pairs = (
        (TunOffload.TSO4, Offload.TCP4),
        (TunOffload.TSO6, Offload.TCP6),
        (TunOffload.USO4, Offload.UDP4),
        (TunOffload.USO6, Offload.UDP6),
    )
    coalesce = Offload.NONE
    for granted, kind in pairs:
        if granted & offloads:
            coalesce |= kind
    return coalesce
