"""The way out: frames of the TUN, sealed and sent in batches, and what the protocol asks for."""

from __future__ import annotations

from typing import TypeAlias

import trio

from tunnel import datapath
from tunnel.datapath import Sealed, Session, SessionExhausted
from tunnel.datapath.pump import Outgoing
from tunnel.io.endpoint import Endpoint
from tunnel.io.tun import READ_SIZE
from tunnel.io.udp_socket import SENT
from tunnel.protocol import Datagram, ProtocolDrop, Seal

from .common import DRAIN_BYTES, LONE_AFTER, LONE_ROW, READ_COST, EngineDrop, Peer, Span
from .limits import Way
from .metering import HELD
from .no_way import NoWay
from .pumping import Pumping
from .shared import Shared
from .switching import Switching

Unsent: TypeAlias = tuple[memoryview, int, int]
"""The rest of a batch that the socket had no room for, its stride in bytes, and its ECN bits."""

Run: TypeAlias = tuple[Peer, list[Span]]
"""Frames of the arena in a row, all for one peer."""

Waiting: TypeAlias = tuple[Peer, list[Unsent]]
"""What was sealed for a peer and has to wait for the socket."""

MAX_FRAMES = DRAIN_BYTES // READ_COST
"""Frames read in one go at most; more than that no budget allows."""

ARENA_SIZE = 4 * READ_SIZE
"""Frames read before they are sealed: small ones are sealed together, four of 64 KiB fit."""

ARENA_ROOM = ARENA_SIZE - READ_SIZE
"""The last place in the arena where a frame may begin."""

TOS_HANDSHAKE = 0x88
"""TOS byte of handshake datagrams: AF41, as every WireGuard marks them."""


class Sender:
    """Seals and sends. `pump` is a task of its own; the other methods never wait.

    What the socket has no room for waits in `pump`, or in a task of `nursery`.
    """

    def __init__(self, shared: Shared, switching: Switching | None, pump: Pumping | None) -> None:
        self.nursery: trio.Nursery
        self._shared = shared
        self._pump = pump
        self.arena = bytearray(ARENA_SIZE)
        """Frames read before they are sealed; the pump gives back here what it leaves."""
        self._arena = memoryview(self.arena)
        self._seal_out = bytearray(datapath.SEAL_OUT_SIZE)
        self.is_held_up = False
        """Whether a task waits for the socket with frames in hand: no other may overtake it."""
        self._going_on = trio.lowlevel.ParkingLot()
        self._no_way = NoWay(shared)
        self._switching = switching
        # What is the same for every frame is looked up once.
        self._peer_for_destination = shared.interface.peer_for_destination
        self._peers_at = shared.interface.peers_at

    async def pump(self) -> None:
        """Send what the TUN gives, until cancelled."""
        clock = self._shared.clock
        unseen, before = LONE_ROW, 0.0
        while True:
            await self._shared.tun.wait_readable()
            while self.is_held_up:
                await self._going_on.park()
            now = clock()
            lone = unseen > 1 and now - before > LONE_AFTER
            before = now
            most = 1 if lone else MAX_FRAMES
            budget = DRAIN_BYTES
            frames = 0
            while budget > 0:
                waiting: Waiting | None = None
                if self._pump is not None and self._pump.is_on:
                    pumped = self._pump.send(now, most, budget, self.arena)
                    self._pump.count_sent(pumped, now)
                    waiting = self._unsent(pumped)
                    runs, count, taken = self._runs(pumped.left), pumped.frames, pumped.cost
                    is_empty = pumped.empty
                else:
                    runs, count, taken = self._read_frames(budget, most)
                    is_empty = count < 2
                waiting = waiting or self._send_runs(runs, now)
                if waiting is not None:
                    await self._send_waiting(waiting, runs)
                    now = clock()
                self._shared.drain(now)
                frames += count
                if is_empty or count >= most:
                    break
                budget -= taken
                now = clock()
            unseen = unseen - 1 if lone else LONE_ROW if frames < 2 else 0

    async def wait_free(self) -> None:
        """Wait until no task has frames in hand that others must not overtake."""
        await trio.lowlevel.checkpoint()
        while self.is_held_up:
            await self._going_on.park()

    def send_answer(self, now: float) -> None:
        """Send what the kernel answered to a packet within our write of it, if it did.

        An echo reply and most acknowledgements are there already, and so go out in the wake-up
        that brought what they answer. To be called when what the protocol asks for is drained:
        frames that were staged are older.
        """
        if self.is_held_up:
            return
        runs, _, _ = self._read_frames(DRAIN_BYTES, 1)
        self._send_soon(None, runs, now)

    def finish_answer(self, answer: Outgoing, now: float) -> None:
        """The same for what the pump made of the answer."""
        self._send_soon(self._unsent(answer), self._runs(answer.left), now)

    def _send_soon(self, waiting: Waiting | None, runs: list[Run], now: float) -> None:
        """Send without waiting: what has to wait does so in a task. Receiving goes on meanwhile."""
        waiting = waiting or self._send_runs(runs, now)
        if waiting is not None:
            self.is_held_up = True
            self.nursery.start_soon(self._send_waiting, waiting, runs)

    def _unsent(self, pumped: Outgoing) -> Waiting | None:
        """What the socket did not take of what the pump sealed, which is all for one peer."""
        if not pumped.unsent or self._pump is None:
            return None
        peer = self._pump.peer(pumped.unsent[0].peer)
        return peer, [(memoryview(one.datagrams), one.stride, one.ecn) for one in pumped.unsent]

    def _runs(self, spans: list[Span]) -> list[Run]:
        """The peers of the frames that the pump left in the arena."""
        runs: list[Run] = []
        for start, end in spans:
            peer = self._peer_for(self._arena, start, end)
            if peer is None:
                continue
            if runs and runs[-1][0] is peer:
                runs[-1][1].append((start, end))
            else:
                runs.append((peer, [(start, end)]))
        return runs

    def _read_frames(self, budget: int, most: int) -> tuple[list[Run], int, int]:
        """Read what fits the arena, `most` frames, until `budget` is used up.

        Runs of frames to one peer each; how many frames; how much of the budget they took.
        """
        view = self._arena
        read = self._shared.tun.read
        runs: list[Run] = []
        latest: Peer | None = None
        start = count = taken = 0
        while taken < budget and count < most and start <= ARENA_ROOM:
            length = read(view, start)
            if not length:
                break
            count += 1
            taken += length + READ_COST
            end = start + length
            if self._switching is None:
                peer = self._peer_for(view, start, end)
            else:
                peers = [
                    peer
                    for peer in self._switching.peers_for(view, start, end)
                    if self._refusal(peer, view, start, end) is None
                ]
                peer = peers[0] if len(peers) == 1 else None
                if len(peers) > 1:
                    runs += ((each, [(start, end)]) for each in peers)
                    taken += (length + READ_COST) * (len(peers) - 1)
                    latest, start = None, end
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
            self._shared.counters.drop(EngineDrop.NOT_IP)
            return None
        peer = self._peer_for_destination(destination)
        drop: ProtocolDrop | None = None
        if peer is None:
            drop = self._no_way.handle_no_peer(view[start:end], destination)
        elif destination in self._peers_at and self._no_way.is_loop(view[start:end]):
            peer, drop = None, ProtocolDrop.ROUTING_LOOP
        elif self._pump is not None:
            self._pump.teach_address(destination, peer)
        refusal: str | None = drop
        if peer is not None and (refusal := self._refusal(peer, view, start, end)) is not None:
            peer = None
        if self._shared.tracer is not None and refusal is not HELD:
            self._shared.tracer.frame_read(view, start, end, refusal)
        return peer

    def _refusal(self, peer: Peer, view: memoryview, start: int, end: int) -> str | None:
        """Why a frame for a peer is not to be sealed now; None if it is."""
        metering = self._shared.metering
        if not metering.watches(peer):
            return None
        return metering.admit(peer, view[start:end], Way.OUT)

    def _send_frames(
        self, peer: Peer, spans: list[Span], now: float
    ) -> tuple[list[Span], list[Unsent]]:
        """Seal and send frames of the arena, as many as fit the room for what is sealed.

        The spans left over, and what the socket does not take now: that is to be sent before
        anything else is sealed.
        """
        # Each time: while the socket was full the keypair may have expired.
        transport = peer.keypairs.transport_for_sending(now)
        if transport is None:
            if self._shared.tracer is not None:
                self._shared.tracer.frames_staged(peer, self._arena, spans)
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
        if self._pump is not None and not unsent:
            self._pump.teach_way(peer, transport)
        # Counting comes last: it must not delay what is sent.
        self._count_sealed(peer, sealed, now)
        return spans[sealed.consumed :], unsent

    def _send_runs(self, runs: list[Run], now: float) -> Waiting | None:
        """Send what is in `runs`, and take it out, until the socket is full: what has to wait.

        What waits lies in the one buffer for what is sealed, so until it is sent nothing else may
        be sealed there. The rest of `runs` waits in the arena.
        """
        while runs:
            peer, spans = runs[0]
            spans, unsent = self._send_frames(peer, spans, now)
            if spans:
                runs[0] = peer, spans
            else:
                del runs[0]
            if unsent:
                return peer, unsent
        return None

    async def _send_waiting(self, waiting: Waiting | None, runs: list[Run]) -> None:
        """Send what waits, then `runs`, as the socket has room; nothing overtakes them."""
        self.is_held_up = True
        try:
            while waiting is not None:
                await self._send_unsent(*waiting)
                # The clock is read again: while the socket was full a keypair may have expired.
                waiting = self._send_runs(runs, self._shared.clock())
        finally:
            self.is_held_up = False
            self._going_on.unpark_all()

    async def _send_unsent(self, peer: Peer, unsent: list[Unsent]) -> None:
        """Send what was sealed and not taken, as the socket has room."""
        for batch, stride, ecn in unsent:
            rest = len(batch)
            while rest:
                if peer.endpoint is not None:
                    await self._shared.udp.wait_writable(peer.endpoint.family)
                rest = self._send(peer, batch[len(batch) - rest :], stride, ecn)

    def _seal(
        self,
        peer: Peer,
        transport: Session,
        frames: memoryview | bytes,
        spans: list[Span],
        out: bytearray,
    ) -> Sealed:
        """Seal as many frames as `out` takes; `_count_sealed` is to follow."""
        tracer, counter = self._shared.tracer, 0
        together = spans
        if tracer is not None:
            together = spans[: tracer.together(memoryview(frames), spans)]
            counter = transport.send_counter
        try:
            sealed = transport.seal(frames, together, self._shared.mtu, out)
        except SessionExhausted:
            # None of the frames can be sealed with this keypair, now or later.
            count = len(spans)
            return Sealed([], consumed=count, packets=0, drops={EngineDrop.MESSAGE_LIMIT: count})
        if tracer is not None and sealed.consumed:
            start, end = spans[0]
            frame = memoryview(frames)[start:end]
            tracer.frame_sealed(peer, transport, frame, start, counter, sealed)
        return sealed

    def _count_sealed(self, peer: Peer, sealed: Sealed, now: float) -> None:
        if sealed.drops:
            self._shared.counters.drop_all(sealed.drops)
        if sealed.packets:
            self._shared.load.sealed.add(sealed.packets)
            wire_bytes = sealed.batches[-1].end - sealed.batches[0].start
            peer.handle_sent(now, wire_bytes, data=True)

    def _send(self, peer: Peer, batch: memoryview | bytes, stride: int, tos: int) -> int:
        """Send one batch to the peer's endpoint; how many bytes at its end have to wait."""
        endpoint = peer.endpoint
        if endpoint is None:
            self._shared.counters.drop(EngineDrop.NO_ENDPOINT, -(-len(batch) // stride))
            if self._shared.tracer is not None:
                self._shared.tracer.sent(None, EngineDrop.NO_ENDPOINT)
            return 0
        if self._shared.tracer is not None:
            self._shared.tracer.sending()
        sent = self._shared.udp.send(batch, stride, endpoint, tos)
        if self._shared.tracer is not None:
            self._shared.tracer.sent(endpoint, sent.drop)
        if sent is SENT:
            return 0
        if sent.endpoint is not None:
            peer.set_endpoint(sent.endpoint)
        return sent.rest

    # --- What the protocol asks for --------------------------------------------------------------

    def send_handshake(self, output: Datagram[Peer, Endpoint]) -> None:
        """Send a handshake message; what the socket has no room for now is dropped and counted."""
        sent = self._shared.udp.send(output.data, len(output.data), output.endpoint, TOS_HANDSHAKE)
        if sent.rest:
            self._shared.counters.drop(EngineDrop.SEND_QUEUE_FULL)
        peer = output.peer
        # Not if it has roamed since: the message was for where it was.
        if sent.endpoint is not None and peer is not None and peer.endpoint is output.endpoint:
            peer.set_endpoint(sent.endpoint)

    def send_held(self, peer: Peer, frame: bytes, now: float) -> None:
        """Send a frame that was held back; without a keypair it waits for one."""
        transport = peer.keypairs.transport_for_sending(now)
        if transport is None:
            peer.stage(frame, now)
        else:
            self.send_staged(Seal(peer, transport, (frame,)), now)
        self._shared.drain(now)

    def send_staged(self, output: Seal[Peer, Session], now: float) -> None:
        """Seal and send staged frames, or a keepalive if there are none.

        Any task may call this, so it never waits, and has a buffer of its own.
        """
        peer, transport = output.peer, output.transport
        if not output.frames:
            try:
                keepalive = transport.seal_keepalive()
            except SessionExhausted:
                self._shared.counters.drop(EngineDrop.MESSAGE_LIMIT)
                return
            peer.handle_sent(now, len(keepalive), data=False)
            if self._send(peer, keepalive, len(keepalive), 0):
                self._shared.counters.drop(EngineDrop.SEND_QUEUE_FULL)
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
                        self._shared.counters.drop(EngineDrop.SEND_QUEUE_FULL, -(-rest // stride))
                self._count_sealed(peer, sealed, now)
                spans = spans[sealed.consumed :]
