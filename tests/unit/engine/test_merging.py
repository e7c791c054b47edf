"""A TUN that grants an offload and refuses its frames: no packet is lost for long."""

from __future__ import annotations

import logging

import pytest
import trio

from tests.support.engines import Side, Sides, packet, run, until
from tunnel.datapath.virtio import GSO_TCPV4, GSO_UDP_L4, NEEDS_CSUM, VirtioNetHdr
from tunnel.engine.merging import TRY_AGAIN, Merging
from tunnel.io.tun import ALL_OFFLOADS
from tunnel.packet.checksum import checksum, folded

PIECE = 100


def merged(protocol: int, pieces: int) -> bytes:
    """A frame from 10.0.0.1 to 10.0.0.2 that is split into `pieces`."""
    payload = bytes(range(PIECE)) * pieces
    if protocol == 17:
        gso_type, field = GSO_UDP_L4, 6
        transport = bytearray(b"\0\1\0\2" + (8 + len(payload)).to_bytes(2, "big") + bytes(2))
    else:
        gso_type, field = GSO_TCPV4, 16
        transport = bytearray(b"\0\1\0\2" + bytes(8) + b"\x50\x10\xff\xff" + bytes(4))
    headers = 20 + len(transport)
    size = len(transport) + len(payload)
    addresses = bytes([10, 0, 0, 1, 10, 0, 0, 2])
    pseudo = folded(addresses + bytes([0, protocol]) + size.to_bytes(2, "big"))
    transport[field : field + 2] = pseudo.to_bytes(2, "big")
    head = b"\x45\0" + (20 + size).to_bytes(2, "big") + bytes(2) + b"\x40\0\x40"
    head += bytes([protocol, 0, 0]) + addresses
    head = head[:10] + checksum(head).to_bytes(2, "big") + head[12:]
    header = VirtioNetHdr(NEEDS_CSUM, gso_type, headers, PIECE, 20, field)
    return header.pack() + head + bytes(transport) + payload


@pytest.mark.parametrize("protocol", [6, 17])
def test_refused_packets_are_written_one_by_one_and_merged_again_later(
    sides: Sides, protocol: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    frame = merged(protocol, 10)
    apart = Merging(ALL_OFFLOADS, lambda: 0.0).apart(memoryview(frame))
    assert len(apart) == 10

    async def scenario(a: Side, b: Side) -> None:
        async def take() -> list[bytes]:
            b.tun.written.clear()
            a.tun.feed(frame)
            await until(lambda: sum(map(len, b.tun.written)) >= len(frame))
            return b.tun.written

        a.tun.feed(packet(1, 2))
        await until(lambda: b.tun.written)
        assert await take() == [frame]
        b.tun.refuse_merged = True
        assert await take() == apart
        # From now on nothing is tried in vain, until the time is over.
        b.tun.refuse_merged = False
        assert await take() == apart
        await trio.sleep(TRY_AGAIN)
        b.tun.refuse_merged = True
        assert await take() == apart
        b.tun.refuse_merged = False
        await trio.sleep(TRY_AGAIN)
        assert await take() == [frame]
        assert b.engine.drops() == {}

    run(sides, scenario)
    (record,) = caplog.records
    assert {6: "TCP over IPv4", 17: "UDP over IPv4"}[protocol] in record.getMessage()


def test_another_kind_is_merged_all_the_same(sides: Sides) -> None:
    async def scenario(a: Side, b: Side) -> None:
        a.tun.feed(packet(1, 2))
        await until(lambda: b.tun.written)
        b.tun.refuse_merged = True
        a.tun.feed(merged(17, 3))
        await until(lambda: len(b.tun.written) == 4)
        b.tun.refuse_merged = False
        a.tun.feed(merged(17, 3), merged(6, 3))
        await until(lambda: len(b.tun.written) == 8)
        assert b.tun.written[-1] == merged(6, 3)

    run(sides, scenario)


def test_packets_that_are_refused_one_by_one_are_counted_each(sides: Sides) -> None:
    """Then the merging is not to blame, and goes on."""

    async def scenario(a: Side, b: Side) -> None:
        a.tun.feed(packet(1, 2))
        await until(lambda: b.tun.written)
        b.tun.refuse_merged = b.tun.refuse_single = True
        a.tun.feed(merged(17, 10))
        await until(lambda: b.engine.drops() == {"tun_refused": 10})
        b.tun.refuse_merged = b.tun.refuse_single = False
        a.tun.feed(merged(17, 10))
        await until(lambda: b.tun.written[-1] == merged(17, 10))

    run(sides, scenario)
