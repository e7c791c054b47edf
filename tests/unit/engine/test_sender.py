"""What the engine does with packets that cannot be sent: counted each, and nothing else is lost."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.support.engines import FakeUdp, Side, Sides, packet, run, until
from tunnel.datapath.interface import REJECT_AFTER_MESSAGES
from tunnel.datapath.reference import ReferenceSession
from tunnel.engine import EngineDrop
from tunnel.engine.common import Peer
from tunnel.io.endpoint import Endpoint, Source
from tunnel.io.udp_socket import Sent
from tunnel.protocol.constants import REKEY_TIMEOUT


def only_peer(side: Side) -> Peer:
    (peer,) = side.engine.interface.peers.values()
    return peer


async def have_session(a: Side, b: Side) -> None:
    a.tun.feed(packet(1, 2))
    await until(lambda: len(b.tun.written) == 1)
    await trio.sleep(1)
    await trio.testing.wait_all_tasks_blocked()


def test_packets_for_a_peer_without_endpoint_are_counted(sides: Sides) -> None:
    async def scenario(a: Side, b: Side) -> None:
        await have_session(a, b)
        only_peer(a).set_endpoint(None)
        a.tun.feed(*(packet(1, 2) for _ in range(3)))
        await until(lambda: a.engine.drops() == {EngineDrop.NO_ENDPOINT: 3})
        assert len(b.tun.written) == 1

    run(sides, scenario)


def test_a_full_socket_drops_what_cannot_wait_and_counts_it(sides: Sides) -> None:
    """A handshake message and a keepalive are made again; frames that were staged are lost."""

    async def scenario(a: Side, b: Side) -> None:
        a.udp.room = 0
        a.tun.feed(packet(1, 2, 300))
        await until(lambda: a.engine.drops() == {EngineDrop.SEND_QUEUE_FULL: 1})
        assert a.udp.sent == []
        a.udp.room = 148  # an initiation passes, the data behind it does not
        await trio.sleep(REKEY_TIMEOUT + 1)
        await until(lambda: a.engine.drops() == {EngineDrop.SEND_QUEUE_FULL: 2})
        assert b.tun.written == []
        a.udp.room = 0
        only_peer(a).set_persistent_keepalive(5, a.engine.clock())
        a.engine.settle()
        await until(lambda: a.engine.drops() == {EngineDrop.SEND_QUEUE_FULL: 3})
        a.udp.room = float("inf")
        a.tun.feed(packet(1, 2))
        await until(lambda: len(b.tun.written) == 1)

    run(sides, scenario)


def test_an_endpoint_whose_source_has_gone_is_replaced(
    sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = sides
    moved = Endpoint(b.udp.own.address, b.udp.own.port, source=Source(bytes([192, 0, 2, 77]), 0))

    def send(batch: bytes | memoryview, stride: int, endpoint: Endpoint, tos: int = 0) -> Sent:
        FakeUdp.send(a.udp, batch, stride, endpoint, tos)
        return Sent(endpoint=moved)

    monkeypatch.setattr(a.udp, "send", send)

    async def scenario(a: Side, b: Side) -> None:
        a.tun.feed(packet(1, 2))
        await until(lambda: b.tun.written)
        assert only_peer(a).endpoint == moved

    run(sides, scenario)


def test_a_keypair_at_its_last_message_is_not_used_and_the_loss_is_counted(sides: Sides) -> None:
    async def scenario(a: Side, b: Side) -> None:
        await have_session(a, b)
        peer = only_peer(a)
        transport = peer.keypairs.transport_for_sending(a.engine.clock())
        assert transport is not None
        assert isinstance(transport, ReferenceSession)
        # Two messages are left, and three frames come in one row.
        transport._sent = REJECT_AFTER_MESSAGES - 2
        a.tun.feed(*(packet(1, 2) for _ in range(3)))
        await until(lambda: len(b.tun.written) + sum(a.engine.drops().values()) >= 4)
        assert transport.send_counter <= REJECT_AFTER_MESSAGES
        # What did not go out by the old keypair is sent by a new one, or counted.
        await trio.sleep(REKEY_TIMEOUT + 1)
        lost = a.engine.drops().get(EngineDrop.MESSAGE_LIMIT, 0)
        assert len(b.tun.written) + lost == 4
        a.tun.feed(packet(1, 2))
        await until(lambda: len(b.tun.written) + lost == 5)

    run(sides, scenario)
