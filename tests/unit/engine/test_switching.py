"""Engines of TAP devices in virtual time: who gets a frame, and what is dropped, and why."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network

import pytest
import trio
import trio.testing

from tests.support.datapaths import TCP, gso_frame, tcp
from tests.support.engines import Side, make_side, packet, run, until
from tests.support.frames import BROADCAST, arp, ethernet, ipv4_packet, mac
from tunnel.datapath import DatapathDrop
from tunnel.datapath.virtio import GSO_TCPV4, VirtioNetHdr
from tunnel.engine.common import EngineDrop
from tunnel.protocol import ProtocolDrop
from tunnel.switch import SwitchDrop

NO_HEADER = bytes(10)
A, B, C = mac(1), mac(2), mac(3)


def mesh(*taps: bool) -> list[Side]:
    """As many sides, with a TAP or a TUN, each a peer of each other."""
    sides = [make_side(number, tap=tap) for number, tap in enumerate(taps, 1)]
    for side in sides:
        for other in sides:
            public = other.engine.interface.public_key
            if other is not side and public is not None:
                side.engine.interface.add_peer(public).set_endpoint(other.udp.own)
                side.udp.others[other.udp.own.address] = other.udp
    return sides


def allow(side: Side, other: Side, network: str) -> None:
    public = other.engine.interface.public_key
    assert public is not None
    interface = side.engine.interface
    interface.allowed_ips.insert(IPv4Network(network), interface.peers[public])


def frame(source: bytes, destination: bytes, host: int = 1, other: int = 2) -> bytes:
    addresses = f"10.0.0.{host}", f"10.0.0.{other}"
    return NO_HEADER + ethernet(source, destination, 0x0800, ipv4_packet(*addresses))


async def settled(*sides: Side) -> None:
    await trio.sleep(1)
    await trio.testing.wait_all_tasks_blocked()


def written(sides: Sequence[Side]) -> list[list[bytes]]:
    found = [list(side.tun.written) for side in sides]
    for side in sides:
        side.tun.written.clear()
    return found


def test_frames_reach_all_peers_and_then_the_one_that_answered() -> None:
    async def scenario(*sides: Side) -> None:
        a, b, _c = sides
        asked = NO_HEADER + ethernet(A, BROADCAST, 0x0806, arp(1, "10.0.0.1", "10.0.0.2"))
        a.tun.feed(asked)  # staged for both: there is no session yet
        await settled(*sides)
        assert written(sides) == [[], [asked], [asked]]
        answer = NO_HEADER + ethernet(B, A, 0x0806, arp(2, "10.0.0.2", "10.0.0.1"))
        b.tun.feed(answer)
        await settled(*sides)
        # b has learned where A is: c hears nothing of the answer, and passes nothing on.
        assert written(sides) == [[answer], [], []]
        a.tun.feed(frame(A, B), frame(A, C), frame(A, B))
        await settled(*sides)
        assert written(sides) == [[], [frame(A, B), frame(A, C), frame(A, B)], [frame(A, C)]]
        assert [side.engine.drops() for side in sides] == [{}, {}, {}]
        assert a.engine.switching is not None
        counts = [a.engine.switching.count_of(key) for key in a.engine.interface.peers]
        assert counts == [1, 0]

    run(mesh(True, True, True), scenario)


def test_a_large_frame_crosses_as_one() -> None:
    link = B + A + b"\x81\0\0\7\x08\0"
    payload = bytes(range(250)) * 20
    whole = gso_frame(4, TCP, tcp(payload), gso_type=GSO_TCPV4, gso_size=1000)
    header = VirtioNetHdr.unpack_untrusted(whole)
    header = header._replace(hdr_len=len(link) + 40, csum_start=len(link) + 20)
    large = header.pack() + link + whole[10:]

    async def scenario(a: Side, b: Side) -> None:
        a.tun.feed(frame(A, B))
        await settled(a, b)
        written((a, b))
        a.tun.feed(large)
        await settled(a, b)
        assert written((a, b)) == [[], [large]]
        # Where the kernel takes no merged frames, each comes by itself, with its Ethernet header.
        b.tun.refuse_merged = True
        a.tun.feed(large)
        await settled(a, b)
        single = b.tun.written
        assert len(single) == 5
        assert all(each.startswith(NO_HEADER + link) for each in single)

    run(mesh(True, True), scenario)


def test_a_peer_may_send_from_its_own_addresses_only() -> None:
    async def scenario(a: Side, b: Side) -> None:
        allow(a, b, "10.0.0.2/32")
        b.tun.feed(frame(B, BROADCAST, 2, 1))
        await settled(a, b)
        assert written((a, b)) == [[frame(B, BROADCAST, 2, 1)], []]
        b.tun.feed(
            frame(B, BROADCAST, 3, 1),
            NO_HEADER + ethernet(B, BROADCAST, 0x0806, arp(2, "10.0.0.1", "10.0.0.1")),
            NO_HEADER + ethernet(B, BROADCAST, 0x88B5, b"anything"),
            frame(B, b"\1\x80\xc2\0\0\x0e", 2, 1),
        )
        await settled(a, b)
        assert written((a, b)) == [[], []]
        assert a.engine.drops() == {
            ProtocolDrop.SOURCE_NOT_ALLOWED: 2,
            SwitchDrop.ETHERTYPE_NOT_ALLOWED: 1,
        }
        assert b.engine.drops() == {SwitchDrop.RESERVED_GROUP: 1}
        (peer,) = a.engine.interface.peers.values()
        assert peer.drops == {ProtocolDrop.SOURCE_NOT_ALLOWED: 2}

    run(mesh(True, True), scenario)


def test_what_no_peer_may_have_is_counted() -> None:
    async def scenario(a: Side, b: Side) -> None:
        allow(a, b, "10.0.0.2/32")
        a.tun.feed(frame(A, C, 1, 3), NO_HEADER + bytes(13), frame(BROADCAST, B))
        await settled(a, b)
        assert written((a, b)) == [[], []]
        assert a.engine.drops() == {
            SwitchDrop.NO_DESTINATION: 1,
            EngineDrop.NOT_IP: 1,
            SwitchDrop.SOURCE_MAC: 1,
        }

    run(mesh(True, True), scenario)


def test_a_peer_that_was_removed_is_forgotten() -> None:
    async def scenario(*sides: Side) -> None:
        a, b, _c = sides
        b.tun.feed(frame(B, BROADCAST, 2, 1))
        await settled(*sides)
        written(sides)
        public = b.engine.interface.public_key
        assert public is not None
        a.engine.interface.remove_peer(public)
        a.tun.feed(frame(A, B))  # before the engine has heard of it
        a.engine.settle()
        await settled(*sides)
        assert written(sides) == [[], [], [frame(A, B)]]
        assert a.engine.switching is not None
        assert a.engine.switching.count_of(public) == 0

    run(mesh(True, True, True), scenario)


@pytest.mark.parametrize("tap", [True, False])
def test_a_tun_and_a_tap_take_nothing_of_each_other(tap: bool) -> None:
    async def scenario(a: Side, b: Side) -> None:
        allow(a, b, "10.0.0.2/32")
        allow(b, a, "10.0.0.1/32")
        a.tun.feed(frame(A, B) if tap else packet(1, 2))
        reason = DatapathDrop.ETHERNET if tap else DatapathDrop.NOT_ETHERNET
        await until(lambda: b.engine.drops() == {reason: 1})
        assert b.tun.written == []
        # The session stands all the same: an answer, if only an empty one, is due.
        (peer,) = b.engine.interface.peers.values()
        assert peer.rx_bytes > 0

    run(mesh(tap, not tap), scenario)


def test_our_own_datagrams_do_not_enter_the_tunnel_again() -> None:
    """The route to the endpoint leads into the TAP."""

    async def scenario(a: Side, b: Side) -> None:
        a.tun.feed(frame(A, B))
        await settled(a, b)
        sent = [data for data, *_ in a.udp.sent if data[0] == 4]
        for tag in (b"", b"\x81\0\0\7"):
            udp = b"\xca\x6c\xca\x6c" + (8 + len(sent[0])).to_bytes(2, "big") + bytes(2) + sent[0]
            head = (
                b"\x45\0" + (20 + len(udp)).to_bytes(2, "big") + bytes(4) + b"\x40\x11" + bytes(2)
            )
            looped = head + a.udp.own.address + b.udp.own.address + udp
            a.tun.feed(NO_HEADER + B + A + tag + b"\x08\0" + looped)
        await settled(a, b)
        assert a.engine.drops() == {ProtocolDrop.ROUTING_LOOP: 2}

    run(mesh(True, True), scenario)
