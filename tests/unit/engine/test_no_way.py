"""Frames that go to no peer: our own datagrams that came back, and destinations of no one."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Network, IPv6Network, ip_address

import pytest
import trio

from tests.support.engines import Side, Sides, packet, run, until
from tunnel.datapath.virtio import GSO_UDP_L4, NEEDS_CSUM, VirtioNetHdr
from tunnel.engine.no_way import ICMP_BURST, ICMP_RATE
from tunnel.io.endpoint import Endpoint
from tunnel.protocol import RoutingLoop

HERE = {4: bytes([192, 0, 2, 1]), 6: bytes([0xFD]) + bytes(14) + b"\1"}
THERE = {4: bytes([192, 0, 2, 2]), 6: bytes([0xFD]) + bytes(14) + b"\2"}
NO_HEADER = bytes(10)


def outer(version: int, data: bytes, port: int = 51820, *, fragment: bool = False) -> bytes:
    """The packet in which `data` goes to the peer."""
    udp = (51820).to_bytes(2, "big") + port.to_bytes(2, "big")
    udp += (8 + len(data)).to_bytes(2, "big") + bytes(2) + data
    if version == 4:
        size = (20 + len(udp)).to_bytes(2, "big")
        flags = b"\x20\0" if fragment else bytes(2)
        header = b"\x45\0" + size + bytes(2) + flags + b"\x40\x11" + bytes(2)
        return header + HERE[4] + THERE[4] + udp
    extension = b"\x11\0\0\1" + bytes(4) if fragment else b""
    size = (len(extension) + len(udp)).to_bytes(2, "big")
    following = b"\x2c" if fragment else b"\x11"
    return b"\x60\0\0\0" + size + following + b"\x40" + HERE[6] + THERE[6] + extension + udp


def empty(destination: str) -> bytes:
    """A packet to that address, without anything in it."""
    to = ip_address(destination)
    if to.version == 4:
        return b"\x45\0\0\x14" + bytes(4) + b"\x01\x11" + bytes(2) + HERE[4] + to.packed
    return b"\x60\0\0\0\0\0\x3b\x01" + HERE[6] + to.packed


def lead_back(side: Side, other: Side, version: int) -> None:
    """The peer's endpoint is in its own allowed IPs, and what is sent to it is not delivered."""
    (peer,) = side.engine.interface.peers.values()
    endpoint = Endpoint(THERE[version], 51820)
    peer.set_endpoint(endpoint)
    side.engine.interface.allowed_ips.insert(
        IPv4Network((THERE[4], 32)) if version == 4 else IPv6Network((THERE[6], 128)), peer
    )
    side.udp.other = other.udp.other = None


async def looped(side: Side, version: int, **how: bool) -> None:
    """Give back to the TUN what was sent, as the kernel would; until nothing more is sent."""
    rounds = 0
    while side.udp.sent:
        rounds += 1
        assert rounds < 5
        sent = [data for data, *_ in side.udp.sent]
        side.udp.sent.clear()
        side.tun.feed(*(NO_HEADER + outer(version, data, **how) for data in sent))
        await until(lambda: not side.tun.incoming)
        await trio.testing.wait_all_tasks_blocked()


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("fragment", [False, True])
def test_own_datagrams_that_come_back_are_dropped(
    sides: Sides, version: int, fragment: bool
) -> None:
    """In a session and without one; what comes back is counted once, and reported once."""

    async def scenario(a: Side, b: Side) -> None:
        a.tun.feed(packet(1, 2))
        await until(lambda: b.tun.written)
        lead_back(a, b, version)
        a.udp.sent.clear()
        a.tun.feed(*(packet(1, 2, 100 + n) for n in range(10)))
        await until(lambda: sum(-(-len(data) // stride) for data, stride, *_ in a.udp.sent) == 10)
        count = len(a.udp.sent)
        await looped(a, version, fragment=fragment)
        assert a.engine.drops() == {"routing_loop": count}
        # Then the keypair expires: initiations come back, too.
        await trio.sleep(200)
        a.udp.sent.clear()
        a.tun.feed(packet(1, 2))
        await until(lambda: a.udp.sent)
        await looped(a, version, fragment=fragment)
        assert a.engine.drops() == {"routing_loop": count + 1}
        assert sum(isinstance(event, RoutingLoop) for event in a.events) == 1

    run(sides, scenario)


def test_datagrams_of_a_large_frame_are_counted_each(sides: Sides) -> None:
    async def scenario(a: Side, b: Side) -> None:
        a.tun.feed(packet(1, 2))
        await until(lambda: b.tun.written)
        lead_back(a, b, 4)
        a.udp.sent.clear()
        a.tun.feed(packet(1, 2))
        await until(lambda: a.udp.sent)
        data = a.udp.sent.pop()[0]
        header = VirtioNetHdr(NEEDS_CSUM, GSO_UDP_L4, 28, len(data), 20, 6).pack()
        a.tun.feed(header + outer(4, data * 3 + data[:40]))
        await until(lambda: a.engine.drops() == {"routing_loop": 4})

    run(sides, scenario)


def test_what_is_not_ours_is_carried_to_an_endpoint(sides: Sides) -> None:
    """Another tunnel behind us may have our very port, and the same peer."""

    async def scenario(a: Side, b: Side) -> None:
        a.tun.feed(packet(1, 2))
        await until(lambda: b.tun.written)
        a.tun.feed(packet(1, 2))
        await until(lambda: len(b.tun.written) == 2)
        own = a.udp.sent[-1][0]
        for side, address in ((a, THERE[4]), (b, HERE[4])):
            (peer,) = side.engine.interface.peers.values()
            side.engine.interface.allowed_ips.insert(IPv4Network((address, 32)), peer)
        other_session = own[:4] + bytes([own[4] ^ 1]) + own[5:]
        foreign = [
            outer(4, other_session),  # data
            outer(4, b"\1\0\0\0" + bytes(144)),  # an initiation
            outer(4, b"\2\0\0\0" + bytes(88)),
            outer(4, own, port=53),  # no endpoint is there
            outer(4, b"a question"),
            outer(4, b""),
        ]
        a.tun.feed(*(NO_HEADER + data for data in foreign))
        await until(lambda: len(b.tun.written) == 2 + len(foreign))
        assert a.engine.drops() == {}

    run(sides, scenario)


def test_what_the_host_says_to_its_link_is_counted_apart(sides: Sides) -> None:
    async def scenario(a: Side, b: Side) -> None:
        expected = Counter[str]()
        for group, reason in {
            "224.0.0.22": "link_multicast",
            "224.0.1.1": "no_peer",
            "255.255.255.255": "no_peer",
            "ff02::2": "link_multicast",
            "ff12::16": "link_multicast",
            "ff05::2": "no_peer",
            "fe80::1": "no_peer",
        }.items():
            a.tun.feed(NO_HEADER + empty(group))
            expected[reason] += 1
            await until(lambda: a.engine.drops() == expected)

    run(sides, scenario)


def test_no_peer_at_a_destination_is_answered_in_moderation(sides: Sides) -> None:
    async def scenario(a: Side, b: Side) -> None:
        stray = packet(1, 9)
        a.tun.feed(*(stray for _ in range(200)))
        await until(lambda: a.engine.drops() == {"no_peer": 200})
        assert len(a.tun.written) == ICMP_BURST
        answer = a.tun.written[0][10:]
        assert (answer[9], answer[20:22]) == (1, b"\3\1")
        assert answer[28:] == stray[10:]
        await trio.sleep(10 / ICMP_RATE)
        a.tun.feed(*(stray for _ in range(200)))
        await until(lambda: a.engine.drops() == {"no_peer": 400})
        assert len(a.tun.written) == pytest.approx(ICMP_BURST + 10, abs=1)
        # An interface that is down takes no answer, and that is no failure.
        a.tun.refuse = True
        await trio.sleep(1)
        a.tun.feed(stray)
        await until(lambda: a.engine.drops().get("no_peer") == 401)

    run(sides, scenario)
