"""The running tunnel: one trio nursery that joins protocol, datapath and io.

Five tasks share the state machine; none of them awaits while it holds a half-done step:

- `_pump_tun`     TUN frames in, batches of sealed datagrams out;
- `_pump_udp`     datagrams in, opened frames out to the TUN (one task per address family);
- `_handshakes`   one handshake message at a time, giving way to data after each;
- `_timers`       the one deadline that `Interface.next_deadline()` names.

Bounds: `DRAIN` reads per wake-up, `HANDSHAKE_QUEUE` handshake messages waiting, and the staged
packets that the protocol bounds per peer. A full UDP socket stops the reading of the TUN, so the
kernel's own queue of the TUN device takes the rest and counts what it drops.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable
from enum import StrEnum

import trio

from tunnel import datapath
from tunnel.datapath.interface import OPEN_OUT_SIZE, SEAL_OUT_SIZE, Batch, Session, SessionExhausted
from tunnel.io.tun import Tun, TunWriteDropped
from tunnel.io.udp import Endpoint, Received, Udp
from tunnel.observe.counters import Counters
from tunnel.protocol import Datagram, Event, Interface, Peer, Seal
from tunnel.protocol.constants import HANDSHAKE_QUEUE, UNDER_LOAD_QUEUE

log = logging.getLogger("tunnel.engine")

DRAIN = 32
"""Reads of one descriptor per wake-up, before the other tasks get their turn."""

FRAME_ROOM = 65_546
"""The longest frame: a virtio_net_hdr and an IP packet of 65,535 bytes, rounded up to even."""

ARENA_SIZE = 4 * FRAME_ROOM

DSCP_HANDSHAKE = 0x88
"""TOS byte of handshake datagrams: AF41, as every WireGuard marks them."""

TRANSPORT = 4
"""Type byte of a transport data message."""

MAX_SLEEP = 10.0
"""Seconds. trio sleeps by a clock that stops in suspend while key ages do not: look this often."""


class Drop(StrEnum):
    """Reasons of the engine itself."""

    NO_PEER = "no_peer_for_destination"
    NOT_IP = "not_an_ip_packet"
    NO_ENDPOINT = "peer_has_no_endpoint"
    UNKNOWN_INDEX = "unknown_receiver_index"
    TRUNCATED = "truncated_message"
    HANDSHAKE_QUEUE_FULL = "handshake_queue_full"
    SOURCE_NOT_ALLOWED = "source_not_in_allowed_ips"
    SEND_BUFFER_FULL = "udp_send_buffer_full"
    EXHAUSTED = "session_message_limit"


def boot_time() -> float:
    """Seconds since boot, suspend included: the clock of all key ages."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Engine:
    """One interface's packets. Owns neither the descriptors nor the host's state around them.

    `run()` returns only by cancellation or by an exception: `tunnel.io.tun.TunDeleted` when the
    device is gone. `mtu` (bytes of an inner packet) may be changed while it runs.
    """

    def __init__(
        self,
        *,
        tun: Tun,
        udp: Udp,
        mtu: int,
        make_session: Callable[[bytes, bytes, int, int], Session] | None = None,
        random: Callable[[int], bytes] = os.urandom,
        unix_time_ns: Callable[[], int] = time.time_ns,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        self.tun = tun
        self.udp = udp
        self.mtu = mtu
        self.counters = Counters()
        self.interface: Interface[Endpoint, Session] = Interface(
            random=random,
            unix_time_ns=unix_time_ns,
            make_transport=make_session or datapath.load().session,
        )
        self._on_event = on_event
        self._handshake_queue: deque[tuple[bytes, Endpoint]] = deque()
        self._handshake_ready = trio.Event()
        self._rearm = trio.Event()
        self._armed = 0.0
        self._seal_out = bytearray(SEAL_OUT_SIZE)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry packets until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._timers)
            nursery.start_soon(self._handshakes)
            nursery.start_soon(self._pump_tun)
            for family in self.udp.families:
                nursery.start_soon(self._pump_udp, family)
            task_status.started()

    def settle(self) -> None:
        """Act on what a configuration change asked for: send, flush, re-arm the timer."""
        self._drain_outputs(boot_time())

    # --- way out -------------------------------------------------------------------------------

    async def _pump_tun(self) -> None:
        arena = bytearray(ARENA_SIZE)
        view = memoryview(arena)
        read = self.tun.read
        while True:
            await self.tun.wait_readable()
            reads = 0
            more = True
            while more and reads < DRAIN:
                runs: list[tuple[Peer[Endpoint, Session], list[tuple[int, int]]]] = []
                end = 0
                while reads < DRAIN and end + FRAME_ROOM <= ARENA_SIZE:
                    length = read(arena, end)
                    if not length:
                        more = False
                        break
                    reads += 1
                    peer = self._peer_of(view, end, end + length)
                    if peer is None:
                        continue
                    if runs and runs[-1][0] is peer:
                        runs[-1][1].append((end, end + length))
                    else:
                        runs.append((peer, [(end, end + length)]))
                    end += length
                now = boot_time()
                for peer, spans in runs:
                    await self._send_frames(peer, arena, spans, now)
                self._drain_outputs(now)

    def _peer_of(self, view: memoryview, start: int, end: int) -> Peer[Endpoint, Session] | None:
        packet = start + datapath.VIRTIO_NET_HDR_LEN
        version = view[packet] >> 4 if packet < end else 0
        if version == 4 and end - packet >= 20:
            destination = bytes(view[packet + 16 : packet + 20])
        elif version == 6 and end - packet >= 40:
            destination = bytes(view[packet + 24 : packet + 40])
        else:
            self.counters.drop(Drop.NOT_IP)
            return None
        peer = self.interface.peer_for_destination(destination)
        if peer is None:
            self.counters.drop(Drop.NO_PEER)
        return peer

    async def _send_frames(
        self,
        peer: Peer[Endpoint, Session],
        arena: bytearray,
        spans: list[tuple[int, int]],
        now: float,
    ) -> None:
        transport = self.interface.transport_for_sending(peer, now)
        if transport is None:
            for start, end in spans:
                self.interface.stage(peer, bytes(memoryview(arena)[start:end]), now)
            return
        while spans:
            batches, spans = self._seal(peer, transport, arena, spans, now)
            for batch in batches:
                while not self._send_batch(peer, batch):
                    await self.udp.wait_writable(peer.endpoint)

    def _seal(
        self,
        peer: Peer[Endpoint, Session],
        transport: Session,
        frames: bytes | bytearray,
        spans: list[tuple[int, int]],
        now: float,
    ) -> tuple[list[Batch], list[tuple[int, int]]]:
        """Seal as many frames as the buffer takes; returns the batches and the spans left over."""
        try:
            sealed = transport.seal(frames, spans, self.mtu, self._seal_out)
        except SessionExhausted:
            self.counters.drop(Drop.EXHAUSTED, len(spans))
            return [], []
        if sealed.drops:
            self.counters.drop_all(sealed.drops)
        if sealed.packets:
            wire_bytes = sum(batch.end - batch.start for batch in sealed.batches)
            self.interface.handle_sent(
                peer, transport, now, packets=sealed.packets, wire_bytes=wire_bytes, data=True
            )
        return sealed.batches, spans[sealed.consumed :]

    def _send_batch(self, peer: Peer[Endpoint, Session], batch: Batch) -> bool:
        """Send one batch from the seal buffer; False if the socket would block."""
        start, end, stride, ecn = batch
        return self._send(peer, memoryview(self._seal_out)[start:end], stride, ecn)

    def _send(
        self, peer: Peer[Endpoint, Session], data: memoryview | bytes, stride: int, tos: int
    ) -> bool:
        if peer.endpoint is None:
            self.counters.drop(Drop.NO_ENDPOINT, -(-len(data) // stride))
            return True
        sent = self.udp.send(data, stride, peer.endpoint, tos)
        return sent

    def _drain_outputs(self, now: float) -> None:
        """Carry out everything the protocol asks for, then see to the timer."""
        interface = self.interface
        while (output := interface.poll_output()) is not None:
            if isinstance(output, Datagram):
                if not self.udp.send(output.data, len(output.data), output.endpoint, DSCP_HANDSHAKE):
                    self.counters.drop(Drop.SEND_BUFFER_FULL)
            elif isinstance(output, Seal):
                self._flush(output, now)
            elif self._on_event is not None:
                self._on_event(output)
        deadline = interface.next_deadline()
        if deadline is not None and deadline < self._armed:
            self._rearm.set()

    def _flush(self, output: Seal[Endpoint, Session], now: float) -> None:
        """Seal staged frames, or a keepalive where there are none. Never waits: what the socket
        does not take now is dropped and counted, as these may come from any task."""
        peer, transport = output.peer, output.transport
        if not output.frames:
            try:
                keepalive = transport.seal_keepalive()
            except SessionExhausted:
                self.counters.drop(Drop.EXHAUSTED)
                return
            self.interface.handle_sent(
                peer, transport, now, packets=1, wire_bytes=len(keepalive), data=False
            )
            if not self._send(peer, keepalive, len(keepalive), 0):
                self.counters.drop(Drop.SEND_BUFFER_FULL)
            return
        out = bytearray(SEAL_OUT_SIZE)
        for frame in output.frames:
            spans = [(0, len(frame))]
            while spans:
                batches, spans = self._seal(peer, transport, frame, spans, now, out)
                for batch in batches:
                    if not self._send_batch(peer, batch, out):
                        self.counters.drop(Drop.SEND_BUFFER_FULL, batch.datagrams)

    # --- way in --------------------------------------------------------------------------------

    async def _pump_udp(self, family: int) -> None:
        buffer = bytearray(self.udp.RECEIVE_SIZE)
        out = bytearray(OPEN_OUT_SIZE)
        receive = self.udp.receive
        while True:
            await self.udp.wait_readable(family)
            now = boot_time()
            for _ in range(DRAIN):
                received = receive(family, buffer)
                if received is None:
                    break
                self._handle_datagrams(buffer, received, out, now)
            self._drain_outputs(now)

    def _handle_datagrams(
        self, buffer: bytearray, received: Received, out: bytearray, now: float
    ) -> None:
        """Sort one receive's datagrams: data is opened here, handshake messages are queued."""
        length, stride, endpoint, ecn = received
        start = 0
        while start < length:
            if buffer[start] == TRANSPORT and length - start >= datapath.TRANSPORT_OVERHEAD:
                index = int.from_bytes(buffer[start + 4 : start + 8], "little")
                found = self.interface.transport_for_receiving(index, now)
                if found is not None:
                    peer, transport = found
                    opened = transport.open(
                        buffer, start, length, stride, out, self.tun.offloads, ecn
                    )
                    if opened.drops:
                        self.counters.drop_all(opened.drops)
                    if opened.packets:
                        self._deliver(peer, transport, endpoint, opened, out, now)
                    start += opened.consumed
                    continue
                self.counters.drop(Drop.UNKNOWN_INDEX)
            else:
                self._queue_handshake(bytes(buffer[start : min(start + stride, length)]), endpoint)
            start += stride
