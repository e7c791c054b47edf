"""The running tunnel: one trio nursery that joins protocol, datapath and io.

Its tasks share the state machine; none of them awaits while it holds a half-done step:

- `Sender.pump`      TUN frames in, batches of sealed datagrams out;
- `Receiver.pump`    datagrams in, opened frames out to the TUN (one task per address family), and
                     what the kernel has answered by then to a packet that came alone;
- `HandshakeQueue.answer`
                     handshake messages, a time slice in a turn;
- `_timers`          the one deadline that `Interface.next_deadline` names;
- `Metering.run`     what waited for the rate of its peer, in time.

Bounds: `DRAIN_BYTES` per wake-up, `HANDSHAKE_QUEUE` handshake messages waiting, and the staged
packets that the protocol bounds per peer. A full UDP socket stops the reading of the TUN, so the
kernel's own queue of the TUN device takes the rest and counts what it drops.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial

import trio

from tunnel import datapath
from tunnel.io.endpoint import Endpoint
from tunnel.io.tun import Tun
from tunnel.io.udp import FAMILIES, Udp
from tunnel.protocol import Datagram, DatagramKind, Event, PeerRemoved, Seal
from tunnel.protocol import Interface as ProtocolInterface

from .common import PREPARE_REST, PREPARED_TOGETHER, Clock, Interface, Peer, boot_time
from .handshake_queue import HandshakeQueue
from .histograms import Load
from .instrument import Tracer, joined
from .keeping import Keeping, Revived
from .limits import Way
from .metering import Metering
from .pumping import Pumping
from .receiver import Receiver
from .sender import Sender
from .session_record import SessionRecord
from .shared import Counters, Shared
from .switching import Switching

MAX_SLEEP = 10.0
"""Seconds. trio sleeps by a clock that stops in suspend while key ages do not: look this often."""


class Engine:
    """One interface's packets. Owns neither the descriptors nor the host's state around them.

    Those of a TAP are Ethernet frames, and there is a switch for them, `switching`.

    `run()` returns only by cancellation or by an exception: `tunnel.io.errors.TunDeleted` when the
    device is gone. `mtu` (bytes of an inner packet) may be changed while it runs. `on_event` is
    called for every event of the protocol, from within the event loop; it must not block.
    `retry_endpoint` gives the endpoint to try after one that did not answer. `clock` gives the
    seconds by which keys age: never back, and on in suspend. With `short_tails` no batch is of
    equally long datagrams only (`datapath.interface.Session.seal`). `tracer` and `inner_filter`, if
    they are there, see every packet; they may be set and unset at any time. `load` counts batches.
    `metering` holds peers to their limits.
    With a `record`, which stays the caller's, sessions are kept there for a later process: one that
    was adopted wants `revive` before `run`.
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
        clock: Clock = boot_time,
        on_event: Callable[[Event], None] | None = None,
        retry_endpoint: Callable[[Endpoint], Endpoint] = Endpoint.without_source,
        short_tails: bool = False,
        record: SessionRecord | None = None,
    ) -> None:
        self.tun = tun
        self.udp = udp
        self.datapath = path or datapath.load()
        self.short_tails = short_tails
        self.clock = clock
        make = partial(self.datapath.session, ethernet=tun.tap, short_tails=short_tails)
        self._keeping = None if record is None else Keeping(record, self.datapath, make)
        self.interface: Interface = ProtocolInterface(
            random=random,
            unix_time_ns=unix_time_ns,
            make_transport=make if self._keeping is None else self._keeping.make_transport,
            make_identity=self.datapath.identity,
            retry_endpoint=retry_endpoint,
        )
        if self._keeping is not None:
            self._keeping.interface = self.interface
            self.interface.add_on_change(self._keeping.handle_peer_change)
        self._trace: Tracer | None = None
        self._inner_filter: Tracer | None = None
        self._on_event = on_event
        self._rearm = trio.Event()
        self._settled = trio.Event()
        self._armed = float("-inf")
        self.metering = Metering(
            self.interface,
            clock,
            lambda: unix_time_ns() / 1e9,
            lambda event: None if on_event is None else on_event(event),
        )
        self._shared = Shared(
            tun=tun,
            udp=udp,
            mtu=mtu,
            interface=self.interface,
            clock=clock,
            drain=self._drain_outputs,
            metering=self.metering,
        )
        self.switching = Switching(self._shared) if tun.tap else None
        pump = None
        if self.datapath.pump is not None and tun.vnet_hdr and not tun.tap:
            pump = Pumping(self._shared, self.datapath.pump())
            self.metering.forget_taught = pump.forget_addresses
        self._sender = Sender(self._shared, self.switching, pump)
        self._handshakes = HandshakeQueue(self._shared, self.datapath, random=random)
        self._receiver = Receiver(
            self._shared, self._sender, self._handshakes, self.switching, pump
        )
        self.metering.release = self._release

    @property
    def mtu(self) -> int:
        """Bytes of an inner packet."""
        return self._shared.mtu

    @mtu.setter
    def mtu(self, mtu: int) -> None:
        self._shared.mtu = mtu

    @property
    def load(self) -> Load:
        """Batches sealed and opened, by their size."""
        return self._shared.load

    @property
    def tracer(self) -> Tracer | None:
        """What makes a record of each packet: traces."""
        return self._trace

    @tracer.setter
    def tracer(self, tracer: Tracer | None) -> None:
        self._trace = tracer
        self._shared.tracer = joined(tracer, self._inner_filter)

    @property
    def inner_filter(self) -> Tracer | None:
        """What finds out which datagrams carry which packets: captures with a filter."""
        return self._inner_filter

    @inner_filter.setter
    def inner_filter(self, tracer: Tracer | None) -> None:
        self._inner_filter = tracer
        self._shared.tracer = joined(self._trace, tracer)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry packets until cancelled."""
        async with trio.open_nursery() as nursery:
            self._sender.nursery = nursery
            nursery.start_soon(self._timers)
            nursery.start_soon(self._prepare)
            nursery.start_soon(self.metering.run, self._sender.wait_free)
            nursery.start_soon(self._handshakes.answer)
            nursery.start_soon(self._handshakes.keep_queue_short)
            nursery.start_soon(self._sender.pump)
            for family in FAMILIES:
                nursery.start_soon(self._receiver.pump, family)
            task_status.started()

    def revive(self) -> Revived:
        """Go on with the sessions in the record, as far as they are those of the peers that there
        are now, with the keys that these have now. Once, before `run`."""
        return Revived() if self._keeping is None else self._keeping.revive(self.clock())

    def set_given(self, peer: Peer, place: bytes) -> None:
        """Note where the conf has the peer, in any form; empty where it does not say. After a
        restart it is where it was last, unless the conf then has it elsewhere.
        """
        if self._keeping is not None:
            self._keeping.set_given(peer, place)

    def hand_over(self) -> None:
        """Leave the sessions to the next process: from here on nothing is sent under them."""
        if self._keeping is not None:
            self._keeping.hand_over()

    def settle(self) -> None:
        """Carry out what a change of configuration asks for. To be called after each."""
        self._settled.set()
        self._drain_outputs(self.clock())

    def set_link_up(self, up: bool) -> None:
        """Follow the interface, which begins up. Down, keypairs end and no packet passes.

        Peers, keys and counters stay. Up again, peers with a persistent keepalive get one at once.
        """
        if up == self._shared.link_up:
            return
        self._shared.link_up = up
        if up:
            self.interface.handle_up(self.clock())
        else:
            self.interface.handle_down()
        self.settle()
        self._rearm.set()

    def drops(self) -> dict[str, int]:
        """Packets dropped so far, by reason, of all rooms together."""
        total = Counters()
        total.drop_all(self._shared.counters.drops)
        total.drop_all(self.interface.drops)
        total.drop_all(self.tun.drops)
        total.drop_all(self.udp.drops)
        return total.drops

    @property
    def handshakes_waiting(self) -> int:
        """Handshake messages received and not yet looked at."""
        return len(self._handshakes)

    def _release(self, peer: Peer, way: Way, frame: bytes) -> None:
        """Let a frame go on that waited for the rate of its peer."""
        if way is Way.IN:
            self._receiver.deliver_held(frame)
        elif not peer.removed:
            self._sender.send_held(peer, frame, self.clock())

    def _drain_outputs(self, now: float) -> None:
        poll, keeping = self.interface.poll_output, self._keeping
        if keeping is not None:
            keeping.write()
        while (output := poll()) is not None:
            if isinstance(output, Datagram):
                if (
                    keeping is not None
                    and output.peer is not None
                    and output.kind is DatagramKind.INITIATION
                ):
                    # Its timestamp.
                    keeping.handle_peer_change(output.peer)
                    keeping.write()
                self._sender.send_handshake(output)
            elif isinstance(output, Seal):
                self._sender.send_staged(output, now)
            else:
                if self.switching is not None and isinstance(output, PeerRemoved):
                    self.switching.forget(output.public_key)
                if self._on_event is not None:
                    self._on_event(output)
        if keeping is not None:
            keeping.write()
        deadline = self.interface.next_deadline()
        if deadline is not None and deadline < self._armed:
            self._rearm.set()

    async def _timers(self) -> None:
        while True:
            now = self.clock()
            # What is set while the interface is down waits for it to come up.
            deadline = self.interface.next_deadline() if self._shared.link_up else None
            if deadline is not None and deadline <= now:
                self.interface.handle_deadline(now)
                self._drain_outputs(now)
                await trio.lowlevel.checkpoint()
                continue
            self._armed = float("inf") if deadline is None else deadline
            self._rearm = trio.Event()
            with trio.move_on_after(min(MAX_SLEEP, self._armed - now)):
                await self._rearm.wait()

    async def _prepare(self) -> None:
        """Compute the shared secrets of new peers ahead; other tasks have most of the time."""
        while True:
            self._settled = trio.Event()
            while self.interface.prepare(PREPARED_TOGETHER):
                await trio.sleep(PREPARE_REST)
            await self._settled.wait()
