"""The way in: datagrams opened and written to the TUN, and handshake messages answered.

A flood of handshake messages must cost others little. So each is screened where it arrives, by what
costs a microsecond; what passes waits in a bounded queue, of which at most a time slice is taken
between two looks at the sockets; and of its source nothing is remembered.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import TypeAlias

import trio

from tunnel import datapath
from tunnel.datapath import Mac1Check, Opened, Session
from tunnel.datapath.interface import MESSAGE_OVERHEAD
from tunnel.io.drops import IoDrop
from tunnel.io.errors import TunMergeRefused, TunWriteDropped
from tunnel.io.udp_socket import RECEIVE_SIZE, Origin, Received
from tunnel.protocol import ProtocolDrop
from tunnel.protocol.constants import HANDSHAKE_QUEUE, UNDER_LOAD_QUEUE

from .common import (
    DRAIN_BYTES,
    HANDSHAKE_REST,
    HANDSHAKE_SLICE,
    LONE_AFTER,
    LONE_ROW,
    LOOK_COST,
    READ_COST,
    SAMPLE_BITS,
    EngineDrop,
    Peer,
)
from .merging import Merging, packets_of
from .sender import Sender
from .shared import Shared

Waiting: TypeAlias = tuple[bytes, Origin]
"""A handshake message that was not looked into yet, and where it came from."""

TYPE_TRANSPORT = 4
"""First byte of a transport data message."""
TYPE_COOKIE_REPLY = 3
"""First byte of a cookie reply."""

CE = 3
"""ECN field of a datagram that met congestion."""


class Receiver:
    """Opens and delivers. Each family has a `pump`, and all handshakes one `answer_handshakes`.

    `check_mac1` is the datapath's; `random` chooses which handshake messages a flood displaces.
    """

    def __init__(
        self,
        shared: Shared,
        sender: Sender,
        *,
        check_mac1: Mac1Check,
        random: Callable[[int], bytes],
    ) -> None:
        self._shared = shared
        self._sender = sender
        self._check_mac1 = check_mac1
        # A generator of its own: what is drawn for every datagram must cost next to nothing.
        self._draw = Random(random(16)).getrandbits
        self._handshake_queue: deque[Waiting] = deque()
        self._is_behind = False
        self._handshake_ready = trio.Event()
        self._merging = Merging(shared.tun.offloads, shared.clock)

    @property
    def handshakes_waiting(self) -> int:
        """Handshake messages received and not yet looked at."""
        return len(self._handshake_queue)

    async def pump(self, family: socket.AddressFamily) -> None:
        """Deliver what comes by the sockets of a family, until cancelled."""
        buffer = bytearray(RECEIVE_SIZE)
        out = bytearray(datapath.OPEN_OUT_SIZE)
        unseen, before = LONE_ROW, 0.0
        while True:
            await self._shared.udp.wait_readable(family)
            now = self._shared.clock()
            if now >= self._merging.try_again_at:
                self._merging.try_again()
            lone = unseen > 0 and now - before > LONE_AFTER
            before = now
            batches = 0
            budget = DRAIN_BYTES
            while budget > 0:
                received = self._shared.udp.receive(family, buffer)
                if received is None:
                    break
                written = self._handle_datagrams_untrusted(buffer, received, out, now)
                batches += 1
                # Of handshake messages the newest counts, so others are looked for.
                lone = lone and written > 0 and received.length <= received.stride
                if lone:
                    self._shared.drain(now)
                    self._sender.send_answer(now)
                    if unseen > 1:
                        break
                    lone = False  # this one looks for others
                budget -= received.length + (READ_COST if written else LOOK_COST)
            # More is waiting. Data may be among it, which must not be lost for handshakes.
            self._is_behind = budget <= 0
            unseen = unseen - 1 if lone and unseen > 1 else LONE_ROW if batches < 2 else 0
            self._shared.drain(now)

    def _handle_datagrams_untrusted(
        self, buffer: bytearray, received: Received, out: bytearray, now: float
    ) -> int:
        """Sort one receive's datagrams: data is opened here, handshake messages are queued.

        How many frames were written to the TUN.
        """
        length, stride, origin, ecn = received
        if not self._shared.link_up:
            self._shared.interface.count_drop(ProtocolDrop.INTERFACE_DOWN, -(-length // stride))
            return 0
        written = 0
        tracer = self._shared.tracer
        mac1: bytes | None = None
        start = 0
        while start < length:
            if buffer[start] == TYPE_TRANSPORT and length - start >= MESSAGE_OVERHEAD:
                index = int.from_bytes(buffer[start + 4 : start + 8], "little")
                found = self._shared.interface.transport_for_receiving(index, now)
                end = length
                if tracer is not None:
                    if tracer.opens_apart:
                        end = min(start + stride, length)
                    tracer.datagrams_received(origin.endpoint, buffer, start, end, stride)
                if found is None:
                    if tracer is not None:
                        tracer.datagrams_opened(None, None, out)
                    start += stride
                    continue
                peer, transport = found
                opened = transport.open(
                    buffer, start, end, stride, out, coalesce=self._merging.kinds, outer_ecn=ecn
                )
                if ecn == CE:
                    self._shared.load.congested += opened.packets
                if opened.consumed:
                    if tracer is not None:
                        tracer.datagrams_opened(peer, opened, out)
                    written += self._deliver(peer, transport, origin, opened, out, now)
                    start += opened.consumed
                    continue
            kinds = bytes(buffer[start:length:stride])
            alike = kinds.count(kinds[0]) == len(kinds)
            if alike and len(self._handshake_queue) >= HANDSHAKE_QUEUE and self._draw(SAMPLE_BITS):
                self._shared.counters.drop(EngineDrop.HANDSHAKE_QUEUE_FULL, len(kinds))
                break
            if mac1 is None:
                mac1 = self._mac1_of(buffer, length, stride)
            place = start // stride
            datagram = bytes(buffer[start : min(start + stride, length)])
            right = mac1[place] == 1
            # A batch of forgeries is found out, and counted, by the first of them. Not so cookie
            # replies, which have no mac1: each may be the one that is waited for.
            forged = alike and kinds[0] != TYPE_COOKIE_REPLY and not any(mac1[place:])
            count = len(kinds) if forged else 1
            interface = self._shared.interface
            reason = interface.screen_untrusted(datagram, mac1_is_right=right, alike=count)
            if reason is None:
                self._queue_handshake_untrusted(datagram, origin, now)
            elif reason is ProtocolDrop.BAD_MAC1 and interface.is_refusal_news(reason, now):
                interface.report_refusal(reason, origin.endpoint, now)
            start += count * stride
        return written

    def _mac1_of(self, buffer: bytearray, length: int, stride: int) -> bytes:
        """A 1 for each datagram of a batch with a right mac1."""
        key = self._shared.interface.mac1_key
        if key is None:
            return bytes(-(-length // stride))
        return self._check_mac1(key, buffer, 0, length, stride)

    def _deliver(
        self,
        peer: Peer,
        transport: Session,
        origin: Origin,
        opened: Opened,
        out: bytearray,
        now: float,
    ) -> int:
        """Write what came from an allowed source, and report to the protocol what was authentic.

        How many frames were written to the TUN.
        """
        if opened.drops:
            self._shared.counters.drop_all(opened.drops)
        if not opened.packets:
            return 0
        written = 0
        view = memoryview(out)
        for start, end in opened.frames:
            packet = start + datapath.VIRTIO_NET_HDR_LEN
            if view[packet] >> 4 == 4:
                source = bytes(view[packet + 12 : packet + 16])
            else:
                source = bytes(view[packet + 8 : packet + 24])
            if not self._shared.interface.source_allowed(peer, source):
                peer.count(ProtocolDrop.SOURCE_NOT_ALLOWED)
                if self._shared.tracer is not None:
                    self._shared.tracer.packet_delivered(ProtocolDrop.SOURCE_NOT_ALLOWED)
                continue
            drop: str | None = None
            try:
                if self._shared.tun.write(view[start:end]):
                    written += 1
                else:
                    drop = EngineDrop.TUN_BUSY
                    self._shared.counters.drop(drop)
            except TunWriteDropped as error:
                drop = error.reason
            except TunMergeRefused:
                count = self._write_one_by_one(view[start:end])
                written += count
                drop = None if count else IoDrop.TUN_REFUSED
            if self._shared.tracer is not None:
                self._shared.tracer.packet_delivered(drop)
        data = opened.packets > opened.keepalives
        peer.handle_received(transport, origin.learn(), now, opened.wire_bytes, data=data)
        self._shared.load.opened.add(opened.packets)
        return written

    def _write_one_by_one(self, frame: memoryview) -> int:
        """Write the packets that were merged into `frame`; how many the TUN took."""
        written = 0
        for packet in packets_of(frame):
            with suppress(TunWriteDropped):
                if self._shared.tun.write(packet):
                    written += 1
                else:
                    self._shared.counters.drop(EngineDrop.TUN_BUSY)
        if written:
            self._merging.refuse(frame)
        return written

    def _queue_handshake_untrusted(self, datagram: bytes, origin: Origin, now: float) -> None:
        queue = self._handshake_queue
        if len(queue) >= HANDSHAKE_QUEUE:
            # At random: to refuse the newest would leave to the flood whatever room there is.
            self._shared.counters.drop(EngineDrop.HANDSHAKE_QUEUE_FULL)
            queue[self._draw(32) % HANDSHAKE_QUEUE] = (datagram, origin)
            return
        queue.append((datagram, origin))
        if len(queue) >= UNDER_LOAD_QUEUE:
            self._shared.interface.set_under_load(now)
        self._handshake_ready.set()

    async def answer_handshakes(self) -> None:
        """Hand handshake messages to the protocol, a time slice of them in a turn."""
        clock, queue = self._shared.clock, self._handshake_queue
        while True:
            await self._handshake_ready.wait()
            self._handshake_ready = trio.Event()
            while queue:
                now = began = clock()
                # One message is enough while datagrams wait.
                ends = began if self._is_behind else began + HANDSHAKE_SLICE
                while True:
                    # The newest first: those that wait longest, as after a suspend, may have been
                    # followed by others of the same peer, which are the ones that it expects.
                    datagram, origin = queue.pop()
                    if self._shared.link_up:
                        self._answer_untrusted(datagram, origin, now)
                    else:
                        self._shared.interface.count_drop(ProtocolDrop.INTERFACE_DOWN)
                    now = clock()
                    if not queue or now >= ends:
                        break
                if len(queue) >= UNDER_LOAD_QUEUE:
                    await trio.sleep(HANDSHAKE_REST)
                else:
                    await trio.lowlevel.checkpoint()

    def _answer_untrusted(self, datagram: bytes, origin: Origin, now: float) -> None:
        self._shared.interface.handle_message_untrusted(datagram, origin.endpoint, now)
        self._shared.drain(now)
