"""Batches of datagrams taken apart, as the wire has them."""

from __future__ import annotations

import struct

import pytest

from tunnel.capture.segments import split


def message(index: int, counter: int, length: int) -> bytes:
    return struct.pack("<IIQ", 4, index, counter) + bytes([counter]) * (length - 16)


def packet(version: int, payload: bytes) -> bytes:
    udp = struct.pack("!HHHH", 51820, 51821, 8 + len(payload), 0xABCD)
    if version == 6:
        head = struct.pack("!IHBB", 6 << 28, 8 + len(payload), 17, 64)
        return head + bytes(range(32)) + udp + payload
    head = struct.pack("!BBHHHBBH", 0x45, 0, 28 + len(payload), 0xFFFF, 0, 64, 17, 0xABCD)
    return head + bytes(range(8)) + udp + payload


def ones_complement_sum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("last", [1452, 96, 33])
def test_a_batch_becomes_its_datagrams(version: int, last: int) -> None:
    messages = [message(7, 0, 1452), message(7, 1, 1452), message(7, 2, last)]
    header = 20 if version == 4 else 40
    found = split(packet(version, b"".join(messages)))
    assert [datagram[header + 8 :] for datagram in found] == messages
    for number, datagram in enumerate(found):
        length = len(datagram) - header
        assert struct.unpack_from("!H", datagram, header + 4) == (length,)
        if version == 4:
            assert struct.unpack_from("!HH", datagram, 2) == (
                len(datagram),
                (0xFFFF + number) & 0xFFFF,
            )
            assert ones_complement_sum(datagram[:20]) == 0xFFFF
            addresses = datagram[12:20]
        else:
            assert struct.unpack_from("!H", datagram, 4) == (length,)
            addresses = datagram[8:40]
        pseudo = addresses + struct.pack("!HH", 17, length)
        assert ones_complement_sum(pseudo + datagram[header:]) == 0xFFFF


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\4",
        message(7, 0, 32),
        message(7, 0, 96),
        message(7, 0, 64) + message(8, 1, 64),
        message(7, 0, 64)[:40] + message(7, 0, 64)[:8] + bytes(200),
        b"\1\0\0\0" + bytes(144),
    ],
)
def test_what_is_no_batch_stays_whole(payload: bytes) -> None:
    whole = packet(4, payload)
    assert split(whole) == [whole]


@pytest.mark.parametrize("length", range(1, 60))
def test_a_packet_cut_short_stays_as_it_is(length: int) -> None:
    for version in (4, 6):
        short = packet(version, message(7, 0, 96))[:length]
        assert split(short) == [short]
