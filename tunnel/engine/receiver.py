"""The way in: datagrams opened and written to the TUN; handshake messages go to their queue."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress

from tunnel import datapath
from tunnel.datapath import Opened, Session
from tunnel.datapath.interface import MESSAGE_OVERHEAD
from tunnel.datapath.pump import Frames, Incoming
from tunnel.io.drops import IoDrop
from tunnel.io.errors import TunMergeRefused, TunWriteDropped
from tunnel.io.udp_socket import RECEIVE_SIZE, Origin, Received
from tunnel.protocol import ProtocolDrop

from .common import DRAIN_BYTES, LONE_AFTER, LONE_ROW, LOOK_COST, READ_COST, EngineDrop, Peer, Span
from .handshake_queue import TYPE_TRANSPORT, HandshakeQueue
from .limits import Way
from .merging import Merging
from .metering import HELD
from .pumping import Pumping
from .sender import Sender
from .shared import Shared
from .switching import Switching

CE = 3
"""ECN field of a datagram that met congestion."""


class Receiver:
    """Opens and delivers. Each family has a `pump`."""

    def __init__(
        self,
        shared: Shared,
        sender: Sender,
        handshakes: HandshakeQueue,
        switching: Switching | None,
        pump: Pumping | None,
    ) -> None:
        self._shared = shared
        self._pump = pump
        self._refusal = self._packet_refusal if switching is None else switching.refusal
        self._sender = sender
        self._handshakes = handshakes
        self._merging = Merging(shared.tun.offloads, shared.clock, ethernet=switching is not None)

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
            skip = self._handshakes.skip(now)
            while budget > 0:
                if (
                    self._pump is not None
                    and self._pump.is_on
                    and (sock := self._shared.udp.socket_of(family)) is not None
                ):
                    pumped = self._pump.receive(
                        family,
                        now,
                        budget,
                        self._merging.kinds,
                        lone,
                        unseen < 2,
                        not self._sender.is_held_up,
                        self._handshakes.unanswered(now),
                        skip is None,  # not under load, when each is to prove its address
                        buffer,
                        out,
                        self._sender.arena,
                    )
                    self._finish(self._pump, pumped, out, now)
                    if pumped.initiations:
                        self._handshakes.gather(sock, pumped.initiations, now)
                    batches += pumped.batches
                    budget -= pumped.cost
                    stop = pumped.stop
                    if pumped.alone or stop is None:
                        lone = pumped.alone
                        break
                    lone = lone and not pumped.batches
                    if isinstance(stop, int):
                        sock.handle_receive_error(OSError(stop, "receiving a datagram"))
                        continue
                    if isinstance(stop, Frames):
                        continue
                    received = sock.sort(buffer, *stop, skip)
                    if received is None:
                        budget -= LOOK_COST
                        continue
                else:
                    received = self._shared.udp.receive(family, buffer, skip=skip)
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
            self._handshakes.is_behind = budget <= 0
            unseen = unseen - 1 if lone and unseen > 1 else LONE_ROW if batches < 2 else 0
            self._shared.drain(now)

    def _finish(self, pump: Pumping, pumped: Incoming, out: bytearray, now: float) -> None:
        """Count what the pump received, and do what it left, but for datagrams."""
        stop = pumped.stop
        if isinstance(stop, Frames):
            peer, _, _ = pump.receiver(stop.local_index)
            self._write(peer, stop.spans, out)
        pump.count_received(pumped, now)
        if pumped.refused is not None:
            bare, rest = pumped.refused.forged
            self._handshakes.count(bare + pumped.refused.unanswered, is_bare=True)
            self._handshakes.count(rest + pumped.refused.malformed, is_bare=False)
        answer = pumped.answer
        if answer is not None and (answer.frames or answer.error):
            # What the protocol asks for was there before it.
            self._shared.drain(now)
            pump.count_sent(answer, now)
            self._sender.finish_answer(answer, now)

    def _handle_datagrams_untrusted(
        self, buffer: bytearray, received: Received, out: bytearray, now: float
    ) -> int:
        """Sort one receive's datagrams: data is opened here, handshake messages are screened.

        How many frames were written to the TUN.
        """
        length, stride, origin, ecn = received
        if not self._shared.link_up:
            self._shared.interface.count_drop(ProtocolDrop.INTERFACE_DOWN, -(-length // stride))
            return 0
        written = 0
        tracer = self._shared.tracer
        start = 0
        while start < length:
            # Not all that is left: a short datagram's index would be bytes of the next one.
            if buffer[start] == TYPE_TRANSPORT and min(stride, length - start) >= MESSAGE_OVERHEAD:
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
            start = self._handshakes.screen_untrusted(buffer, start, length, stride, origin, now)
        return written

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
        written = self._write(peer, opened.frames, out)
        data = opened.packets > opened.keepalives
        peer.handle_received(transport, origin.learn(), now, opened.wire_bytes, data=data)
        if self._pump is not None:
            self._pump.teach_receiver(peer, transport, origin)
        self._shared.load.opened.add(opened.packets)
        return written

    def _write(self, peer: Peer, spans: Sequence[Span], out: bytearray) -> int:
        """Write those frames in `out` that come from an allowed source; how many the TUN took."""
        written = 0
        metering = self._shared.metering
        view = memoryview(out)
        for start, end in spans:
            frame = view[start:end]
            drop = self._refusal(peer, frame)
            if drop is not None:
                if self._shared.tracer is not None:
                    self._shared.tracer.packet_delivered(drop)
                continue
            if self._shared.tracer is not None:
                self._shared.tracer.source_allowed()
            if metering.watches(peer):
                drop = metering.admit(peer, frame, Way.IN)
            if drop is None:
                count, drop = self._write_frame(frame)
                written += count
            if self._shared.tracer is not None:
                self._shared.tracer.packet_delivered(None if drop is HELD else drop)
        return written

    def deliver_held(self, frame: bytes) -> None:
        """Write a frame that was held back."""
        self._write_frame(memoryview(frame))

    def _write_frame(self, frame: memoryview) -> tuple[int, str | None]:
        """Write a frame: how many the TUN took, and why it took none, which is counted."""
        try:
            if self._shared.tun.write(frame):
                return 1, None
        except TunWriteDropped as error:
            return 0, error.reason
        except TunMergeRefused:
            count = self._write_one_by_one(frame)
            return count, None if count else IoDrop.TUN_REFUSED
        self._shared.counters.drop(EngineDrop.TUN_BUSY)
        return 0, EngineDrop.TUN_BUSY

    def _packet_refusal(self, peer: Peer, frame: memoryview) -> str | None:
        """Why a packet is not written, and counted: its source is not the peer's."""
        packet = datapath.VIRTIO_NET_HDR_LEN
        if frame[packet] >> 4 == 4:
            source = bytes(frame[packet + 12 : packet + 16])
        else:
            source = bytes(frame[packet + 8 : packet + 24])
        if self._shared.interface.source_allowed(peer, source):
            if self._pump is not None:
                self._pump.teach_address(source, peer)
            return None
        peer.count(ProtocolDrop.SOURCE_NOT_ALLOWED)
        return ProtocolDrop.SOURCE_NOT_ALLOWED

    def _write_one_by_one(self, frame: memoryview) -> int:
        """Write the packets that were merged into `frame`; how many the TUN took."""
        written = 0
        for packet in self._merging.apart(frame):
            with suppress(TunWriteDropped):
                if self._shared.tun.write(packet):
                    written += 1
                else:
                    self._shared.counters.drop(EngineDrop.TUN_BUSY)
        if written:
            self._merging.refuse(frame)
        return written
