"""Sealing and opening: counters, padding, batches, replay, hostile datagrams, ECN."""

from __future__ import annotations

import pytest

from tests.support.datapaths import (
    UDP,
    MakePair,
    Pair,
    datagrams,
    ip_packet,
    message,
    open_,
    plain_frame,
    plaintext,
    seal,
    udp,
    with_checksum,
)
from tunnel.datapath import DatapathDrop, SessionExhausted
from tunnel.datapath.interface import REJECT_AFTER_MESSAGES, REPLAY_WINDOW


def packet(size: int, *, version: int = 4, tos: int = 0, fill: int = 0x55) -> bytes:
    """An IP packet of `size` bytes with something unknown inside."""
    header = 20 if version == 4 else 40
    return ip_packet(version, 99, bytes([fill]) * (size - header), tos=tos)


@pytest.mark.parametrize("version", [4, 6])
def test_a_packet_goes_through_unchanged(pair: Pair, version: int) -> None:
    frame = plain_frame(packet(101, version=version))
    sealed, out = seal(pair.a, frame)
    opened, frames = open_(pair.b, *datagrams(sealed, out))
    assert frames == [frame]
    assert (sealed.packets, sealed.consumed, sealed.drops) == (1, 1, {})
    assert (opened.packets, opened.keepalives, opened.payload_bytes) == (1, 0, 101)
    assert opened.drops == {}


def test_wire_format_is_the_whitepapers(pair: Pair) -> None:
    inner = packet(84)
    sealed, out = seal(pair.a, plain_frame(inner), plain_frame(inner))
    first, second = datagrams(sealed, out)
    assert first[:16] == b"\4\0\0\0" + b"\2\0\0\0" + bytes(8)
    assert second[8:16] == b"\1" + bytes(7)
    assert len(first) == 16 + 96 + 16
    assert plaintext(first) == inner + bytes(12)
    assert pair.a.send_counter == 2
    assert (pair.a.local_index, pair.a.remote_index) == (1, 2)


@pytest.mark.parametrize(
    ("size", "mtu", "padded"),
    [(64, 1420, 64), (65, 1420, 80), (1410, 1420, 1420), (1420, 1420, 1420), (1430, 1420, 1430)],
)
def test_padding_ends_at_the_mtu(pair: Pair, size: int, mtu: int, padded: int) -> None:
    sealed, out = seal(pair.a, plain_frame(packet(size)), mtu=mtu)
    (datagram,) = datagrams(sealed, out)
    assert len(datagram) == padded + 32


def test_keepalive_is_empty_and_counts(pair: Pair) -> None:
    keepalive = pair.a.seal_keepalive()
    assert len(keepalive) == 32
    assert plaintext(keepalive) == b""
    opened, frames = open_(pair.b, keepalive)
    assert frames == []
    assert (opened.packets, opened.keepalives, opened.wire_bytes) == (1, 1, 32)


def test_equal_sizes_share_a_batch_and_a_shorter_one_ends_it(pair: Pair) -> None:
    sizes = [100, 100, 60, 100, 200, 200]
    sealed, _ = seal(pair.a, *(plain_frame(packet(size)) for size in sizes))
    lengths = [(batch.end - batch.start, batch.stride) for batch in sealed.batches]
    assert lengths == [(2 * 144 + 96, 144), (144, 144), (2 * 240, 240)]
    assert sealed.batches[0].start == 0
    assert all(x.end == y.start for x, y in zip(sealed.batches, sealed.batches[1:], strict=False))


def test_a_batch_is_of_one_ecn_and_of_64_datagrams_at_most(pair: Pair) -> None:
    frames = [plain_frame(packet(60, tos=number < 3)) for number in range(80)]
    sealed, _ = seal(pair.a, *frames)
    assert [(b.ecn, (b.end - b.start) // b.stride) for b in sealed.batches] == [
        (1, 3),
        (0, 64),
        (0, 13),
    ]


def test_a_full_buffer_ends_the_taking_and_loses_nothing(pair: Pair) -> None:
    frames = [plain_frame(packet(1000)) for _ in range(5)]
    buffer = b"".join(frames)
    spans = [(n * 1010, n * 1010 + 1010) for n in range(5)]
    out = bytearray(3 * 1040 + 100)
    sealed = pair.a.seal(buffer, spans, 1420, out)
    assert (sealed.consumed, sealed.packets) == (3, 3)
    rest = pair.a.seal(buffer, spans[3:], 1420, out)
    assert (rest.consumed, pair.a.send_counter) == (2, 5)


def test_the_message_limit_stops_sealing(make_pair: MakePair) -> None:
    pair = make_pair(REJECT_AFTER_MESSAGES - 2)
    frame = plain_frame(packet(60))
    sealed, _ = seal(pair.a, frame, frame, frame)
    assert sealed.consumed == 2
    with pytest.raises(SessionExhausted):
        seal(pair.a, frame)
    with pytest.raises(SessionExhausted):
        pair.a.seal_keepalive()
    assert pair.a.send_counter == REJECT_AFTER_MESSAGES


def test_a_counter_past_the_limit_is_refused(pair: Pair) -> None:
    opened, _ = open_(pair.b, message(packet(60), REJECT_AFTER_MESSAGES))
    assert opened.drops == {DatapathDrop.COUNTER_LIMIT: 1}
    opened, frames = open_(pair.b, message(packet(60), REJECT_AFTER_MESSAGES - 1))
    assert len(frames) == 1


def test_replays_and_what_is_too_old_are_refused_once_authentic(pair: Pair) -> None:
    inner = packet(60)
    top = REPLAY_WINDOW + 10
    assert open_(pair.b, message(inner, top))[0].packets == 1
    assert open_(pair.b, message(inner, top))[0].drops == {DatapathDrop.REPLAY: 1}
    assert open_(pair.b, message(inner, 10))[0].packets == 1
    assert open_(pair.b, message(inner, 9))[0].drops == {DatapathDrop.REPLAY: 1}
    # A forgery must not mark a counter as seen.
    forged = bytearray(message(inner, top + 1))
    forged[-1] ^= 1
    assert open_(pair.b, bytes(forged))[0].drops == {DatapathDrop.AUTHENTICATION: 1}
    assert open_(pair.b, message(inner, top + 1))[0].packets == 1


def test_every_changed_byte_is_noticed(pair: Pair) -> None:
    good = message(packet(60), 5)
    for place in range(len(good)):
        bad = bytearray(good)
        bad[place] ^= 0x40
        opened, frames = open_(pair.b, bytes(bad))
        assert frames == []
        # Type and receiver say that it is not for this session; the rest breaks the tag or
        # claims another counter, which breaks it too.
        assert opened.consumed == (0 if place < 8 else len(good))
    assert open_(pair.b, good)[0].packets == 1


def test_taking_ends_before_what_is_not_ours(pair: Pair) -> None:
    ours, other = message(packet(60), 0), message(packet(60), 0, receiver=9)
    opened, frames = open_(pair.b, ours, other, message(packet(60), 1))
    assert opened.consumed == len(ours)
    assert len(frames) == 1
    assert open_(pair.b, b"\1" * len(ours))[0].consumed == 0


@pytest.mark.parametrize(
    ("inner", "reason"),
    [
        (b"\x00" * 32, DatapathDrop.IP_VERSION),
        (b"\x50" + bytes(31), DatapathDrop.IP_VERSION),
        (b"\x45\0\xff\xff" + bytes(28), DatapathDrop.IP_LENGTH),
        (b"\x45\0\0\x13" + bytes(28), DatapathDrop.IP_LENGTH),
        (b"\x44\0\0\x20" + bytes(28), DatapathDrop.IP_LENGTH),
        (b"\x45" + bytes(9), DatapathDrop.IP_LENGTH),
        (b"\x60" + bytes(31), DatapathDrop.IP_LENGTH),
        (b"\x60\0\0\0\xff\xff" + bytes(42), DatapathDrop.IP_LENGTH),
    ],
)
def test_authentic_nonsense_is_dropped_by_name(
    pair: Pair, inner: bytes, reason: DatapathDrop
) -> None:
    opened, frames = open_(pair.b, message(inner, 0))
    assert frames == []
    assert opened.drops == {reason: 1}
    assert opened.packets == 1


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", DatapathDrop.TRUNCATED),
        (bytes(10), DatapathDrop.TRUNCATED),
        (bytes(10) + b"\x99" * 40, DatapathDrop.IP_VERSION),
        (plain_frame(packet(60))[:-1], DatapathDrop.IP_LENGTH),
        (b"\1" + plain_frame(packet(60))[1:], DatapathDrop.CHECKSUM_OFFSET),
        (b"\0\2" + plain_frame(packet(60))[2:], DatapathDrop.GSO_TYPE),
        (b"\0\1" + plain_frame(packet(60))[2:], DatapathDrop.GSO_SIZE),
    ],
)
def test_frames_that_make_no_sense_are_dropped_by_name(
    pair: Pair, frame: bytes, reason: DatapathDrop
) -> None:
    sealed, _ = seal(pair.a, frame, plain_frame(packet(60)))
    assert sealed.drops == {reason: 1}
    assert (sealed.consumed, sealed.packets, pair.a.send_counter) == (2, 1, 1)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    ("inner", "outer", "result"),
    [
        (0, 0, 0),
        (2, 0, 2),
        (2, 3, 3),
        (1, 3, 3),
        (3, 3, 3),
        (2, 1, 1),
        (1, 2, 1),
        (3, 0, 3),
        (0, 1, 0),
        (0, 3, 0),  # not dropped, as the RFC has it: some boxes mark whatever passes
    ],
)
def test_ecn_follows_rfc_6040(
    pair: Pair, version: int, inner: int, outer: int, result: int
) -> None:
    opened, frames = open_(
        pair.b, message(packet(60, version=version, tos=inner), 0), outer_ecn=outer
    )
    assert opened.drops == {}
    # The header checksum is right for the new field too.
    assert frames == [plain_frame(packet(60, version=version, tos=result))]


def test_checksum_left_to_us_is_completed(pair: Pair) -> None:
    for version in (4, 6):
        datagram = udp(b"question")
        done = ip_packet(version, UDP, with_checksum(version, UDP, datagram))
        start = 20 if version == 4 else 40
        length = len(datagram)
        addresses_and_rest = done[start - (8 if version == 4 else 32) : start]
        pseudo = sum(
            int.from_bytes(addresses_and_rest[at : at + 2], "big")
            for at in range(0, len(addresses_and_rest), 2)
        )
        pseudo += UDP + length
        pseudo = (pseudo & 0xFFFF) + (pseudo >> 16)
        left = datagram[:6] + pseudo.to_bytes(2, "big") + datagram[8:]
        frame = b"\1\0" + bytes(4) + start.to_bytes(2, "little") + b"\6\0"
        sealed, out = seal(pair.a, frame + ip_packet(version, UDP, left))
        assert plaintext(datagrams(sealed, out)[0])[: len(done)] == done


def test_misuse_by_the_caller_is_told(pair: Pair) -> None:
    frame = plain_frame(packet(60))
    with pytest.raises(ValueError, match=r".+"):
        pair.a.seal(frame, [(0, len(frame) + 1)], 1420, bytearray(1000))
    with pytest.raises(ValueError, match=r".+"):
        pair.b.open(bytearray(100), 0, 200, 50, bytearray(1000))
    with pytest.raises(ValueError, match=r".+"):
        pair.b.open(bytearray(100), 0, 100, 0, bytearray(1000))
    with pytest.raises(ValueError, match=r".+"):
        pair.b.open(bytearray(100), 0, 100, 50, bytearray(99))
