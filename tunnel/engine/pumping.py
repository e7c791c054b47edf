"""The pump of the native datapath: what it is taught, and what becomes of what it gives back.

It carries the packets that need no decision (see `tunnel.datapath.pump`). What it was not taught
comes back to the sender and the receiver, who do it step by step, and have the pump taught it here.
Whatever changes of a peer makes it forget that peer.
"""

from __future__ import annotations

import socket

from tunnel import datapath
from tunnel.datapath import Offload, Session
from tunnel.datapath.pump import Incoming, Outgoing, Refused
from tunnel.io.endpoint import Endpoint
from tunnel.io.udp import FAMILIES
from tunnel.io.udp_socket import Origin
from tunnel.protocol import ProtocolDrop

from .common import EngineDrop, Peer
from .shared import Shared

V4, V6 = FAMILIES


class Pumping:
    """One per engine that has one. `is_on` is to be asked before each call."""

    def __init__(self, shared: Shared, pump: datapath.Pump) -> None:
        self._shared = shared
        self._pump = pump
        self._numbers: dict[Peer, int] = {}
        self._peers: dict[int, Peer] = {}
        self._indices: dict[int, list[int]] = {}
        self._receivers: dict[int, tuple[Peer, Session, Endpoint]] = {}
        self._last_number = 0
        self._descriptors: tuple[int, int] = (-1, -1)
        self._mac1_key: bytes | None = None
        shared.interface.add_on_change(self._handle_peer_change, pump.forget_addresses)

    @property
    def is_on(self) -> bool:
        """Whether it may work now: no one wants to see single packets, and the link is up."""
        return self._shared.tracer is None and self._shared.link_up

    def send(self, now: float, most: int, budget: int, arena: bytearray) -> Outgoing:
        """See `datapath.Pump.send`; `count_sent` is to follow."""
        self._follow()
        return self._pump.send(now, self._shared.mtu, most, budget, arena)

    def receive(
        self,
        family: socket.AddressFamily,
        now: float,
        budget: int,
        coalesce: Offload,
        lone: bool,
        look: bool,
        may_answer: bool,
        unanswered: bool | tuple[bytes, int],
        gather: bool,
        buffer: bytearray,
        out: bytearray,
        arena: bytearray,
    ) -> Incoming:
        """See `datapath.Pump.receive`; `count_received` is to follow."""
        self._follow()
        shared = self._shared
        show_forged = shared.interface.is_refusal_news(ProtocolDrop.BAD_MAC1, now)
        return self._pump.receive(
            family == V6,
            now,
            shared.mtu,
            budget,
            coalesce,
            lone,
            look,
            may_answer,
            show_forged,
            unanswered,
            gather,
            buffer,
            out,
            arena,
        )

    # --- What was done ---------------------------------------------------------------------------

    def peer(self, number: int) -> Peer:
        """The peer of that number."""
        return self._peers[number]

    def receiver(self, index: int) -> tuple[Peer, Session, Endpoint]:
        """Peer, session and origin of the data that has that receiver index."""
        return self._receivers[index]

    def count_sent(self, sent: Outgoing, now: float) -> None:
        """Report to the protocol and count what was sent."""
        shared = self._shared
        # All first: what the protocol makes of one may make the pump forget another.
        found = [(self._peers[one.peer], one.packets, one.wire_bytes) for one in sent.sealed]
        for peer, packets, wire_bytes in found:
            shared.load.sealed.add(packets)
            peer.handle_sent(now, wire_bytes, data=True)
        if sent.drops is not None:
            shared.counters.drop_all(sent.drops)
        if sent.error:
            shared.tun.handle_read_error(OSError(sent.error, "reading a frame"))

    def count_received(self, incoming: Incoming, now: float) -> None:
        """Report to the protocol and count what was received."""
        load = self._shared.load
        found = [(self._receivers[one.local_index], one) for one in incoming.opened]
        for (peer, session, endpoint), opened in found:
            data = opened.packets > opened.keepalives
            peer.handle_received(session, endpoint, now, opened.wire_bytes, data=data)
            load.opened.add(opened.packets)
        if incoming.refused is not None:
            self._count_refused(incoming.refused)

    def _count_refused(self, refused: Refused) -> None:
        shared = self._shared
        shared.counters.drop_all(refused.drops)
        shared.load.congested += refused.congested
        for reason, count in (
            (ProtocolDrop.UNKNOWN_SESSION, refused.unknown),
            (ProtocolDrop.BAD_MAC1, sum(refused.forged)),
            (ProtocolDrop.MALFORMED, refused.malformed),
            (ProtocolDrop.COOKIE_UNANSWERED, refused.unanswered),
        ):
            if count:
                shared.interface.count_drop(reason, count)
        if refused.busy:
            shared.counters.drop(EngineDrop.TUN_BUSY, refused.busy)

    # --- What it is taught -----------------------------------------------------------------------

    def teach_address(self, address: bytes, peer: Peer) -> None:
        """`address`, inside the tunnel, is the peer's. Not if each frame is to be looked at."""
        shared = self._shared
        # One that is also a peer's outside may be a loop.
        if address not in shared.interface.peers_at and not shared.metering.watches(peer):
            self._pump.teach_address(address, self._number(peer))

    def teach_way(self, peer: Peer, session: Session) -> None:
        """The peer is sent to under its current keypair, which has that session."""
        endpoint, keypair = peer.endpoint, peer.keypairs.current
        if endpoint is None or keypair is None or keypair.transport is not session:
            return
        sock = self._shared.udp.socket_of(endpoint.family)
        if sock is None or sock.is_gso_paused(endpoint):
            return
        self._pump.teach_way(
            self._number(peer),
            session,
            endpoint.address,
            endpoint.port,
            endpoint.scope_id,
            endpoint.source,
            sock.gso,
            keypair.send_until,
        )

    def teach_receiver(self, peer: Peer, session: Session, origin: Origin) -> None:
        """What comes from `origin` may be opened by that session of the peer."""
        number = self._numbers.get(peer)
        keypairs = [one for one in peer.keypairs.all() if one.transport is session]
        if number is None or not keypairs:
            return
        packed, sockaddr = origin.packed, origin.sockaddr
        scope_id = sockaddr[3] if len(sockaddr) == 4 else 0
        self._pump.teach_receiver(
            number,
            session,
            packed[:-2],
            sockaddr[1],
            scope_id,
            origin.source,
            keypairs[0].expires_at,
        )
        self._receivers[keypairs[0].local_index] = (peer, session, origin.learn())

    # --- What it forgets -------------------------------------------------------------------------

    def forget_addresses(self) -> None:
        """Be asked again whose each inner address is."""
        self._pump.forget_addresses()

    def _number(self, peer: Peer) -> int:
        number = self._numbers.get(peer)
        if number is None:
            number = self._last_number = self._last_number + 1
            self._numbers[peer] = number
            self._peers[number] = peer
            self._indices[number] = []
        return number

    def _handle_peer_change(self, peer: Peer) -> None:
        indices = [keypair.local_index for keypair in peer.keypairs.all()]
        if not indices and peer not in self._numbers:
            return
        number = self._number(peer)
        for index in self._indices[number]:
            self._receivers.pop(index, None)
        self._indices[number] = indices
        self._pump.set_indices(number, indices)
        if peer.removed:
            del self._numbers[peer], self._peers[number], self._indices[number]

    def _follow(self) -> None:
        """Have it use the present descriptors and key."""
        shared = self._shared
        tun, udp = shared.tun, shared.udp
        descriptors = (tun.fileno(), udp.generation)
        if descriptors != self._descriptors:
            self._descriptors = descriptors
            self._pump.forget()
            sockets = [udp.socket_of(family) for family in FAMILIES]
            v4, v6 = (-1 if sock is None else sock.sock.fileno() for sock in sockets)
            self._pump.set_descriptors(tun.fileno(), v4, v6)
        mac1_key = shared.interface.mac1_key
        if mac1_key is not self._mac1_key:
            self._mac1_key = mac1_key
            self._pump.set_mac1_key(mac1_key)
