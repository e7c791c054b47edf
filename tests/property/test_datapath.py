"""What must hold for every datapath by itself, told by oracles that are slow and obvious.

`test_datapath_twins` compares the two datapaths; a misreading they share shows only here.
"""

from __future__ import annotations

from collections import defaultdict
from random import Random

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.packets import TCP, Flow, mangled, ones_sum
from tunnel import datapath
from tunnel.datapath import DatapathDrop, SessionFactory
from tunnel.datapath.interface import REPLAY_WINDOW, SEAL_OUT_SIZE
from tunnel.datapath.replay import ReplayWindow
from tunnel.packet.checksum import checksum, folded, replaced, residue, short_residue

KEY, LOCAL, REMOTE = bytes(range(32)), 0x01020304, 0xA0B0C0D0
CIPHER = ChaCha20Poly1305(KEY)
WORD = st.integers(0, 0xFFFF)


@pytest.fixture(scope="module", params=datapath.available())
def make(request: pytest.FixtureRequest) -> SessionFactory:
    return datapath.load(request.param).session


def message(plain: bytes, counter: int) -> bytes:
    """A datagram made by the library alone."""
    head = b"\4\0\0\0" + LOCAL.to_bytes(4, "little") + counter.to_bytes(8, "little")
    return head + CIPHER.encrypt(bytes(4) + head[8:], plain, None)


def carried(packet: bytes) -> bytes | None:
    """The packet without what follows its own length; None if it is not IP."""
    if packet[:1] and packet[0] >> 4 == 6 and len(packet) >= 40:
        length = 40 + int.from_bytes(packet[4:6], "big")
        return packet[:length] if length <= len(packet) else None
    if packet[:1] and packet[0] >> 4 == 4 and len(packet) >= 20:
        length, header = int.from_bytes(packet[2:4], "big"), (packet[0] & 15) * 4
        return packet[:length] if 20 <= header <= length <= len(packet) else None
    return None


def meaning(packet: bytes) -> bytes:
    """The packet with every field set to zero that may have two values of one meaning."""
    same = bytearray(packet)
    transport, protocol = 40, packet[6]
    if packet[0] >> 4 == 4:
        transport, protocol = (packet[0] & 15) * 4, packet[9]
        if packet[6:8] == b"\x40\0":  # an atomic datagram: its identification means nothing
            same[10:12] = b"\0\0" if ones_sum(packet[:transport]) == 0xFFFF else b"\1\1"
            same[4:6] = b"\0\0"
        elif same[10:12] == b"\xff\xff":
            same[10:12] = b"\0\0"
    at = transport + 16
    if protocol == TCP and packet[at : at + 2] == b"\xff\xff":
        same[at : at + 2] = b"\0\0"
    return bytes(same)


def flow_of(packet: bytes) -> bytes:
    return packet[12:24] if packet[0] >> 4 == 4 else packet[8:44]


@given(st.integers(0, 2**64))
@settings(deadline=None, max_examples=200)
def test_splitting_what_was_coalesced_gives_back_every_packet(
    make: SessionFactory, seed: int
) -> None:
    """Also the corrupt ones, as they were, and all of a flow in their order."""
    random = Random(seed)
    flows = [Flow.draw(random) for _ in range(random.choice((1, 1, 2, 4)))]
    packets = [
        mangled(random, random.choice(flows).next_packet(), random.choice((0.0, 0.1)))
        for _ in range(random.choice((2, 10, 64)))
    ]
    length = max(map(len, packets))
    batch = b"".join(message(each.ljust(length, b"\0"), n) for n, each in enumerate(packets))
    opened_out, sealed_out = bytearray(len(batch)), bytearray(SEAL_OUT_SIZE)
    opened = make(KEY, KEY, LOCAL, REMOTE).open(batch, 0, len(batch), length + 32, opened_out)
    assert opened.packets == len(packets)
    # An MTU of 0 leaves no room for padding.
    sealed = make(KEY, KEY, LOCAL, REMOTE).seal(opened_out, opened.frames, 0, sealed_out)
    assert sealed.drops == {}
    assert sealed.consumed == len(opened.frames)

    sent, received = defaultdict(list), defaultdict(list)
    for packet in packets:
        inside = carried(packet.ljust(length, b"\0"))
        if inside is not None:
            sent[flow_of(inside)].append(meaning(inside))
    for number, datagram in enumerate(
        sealed_out[at : min(at + each.stride, each.end)]
        for each in sealed.batches
        for at in range(each.start, each.end, each.stride)
    ):
        nonce = bytes(4) + number.to_bytes(8, "little")
        inside = CIPHER.decrypt(nonce, bytes(datagram[16:]), None)
        received[flow_of(inside)].append(meaning(inside))
    assert received == sent


@given(
    st.sampled_from((4, 6)),
    st.booleans(),
    st.binary(min_size=1, max_size=300),
    st.integers(1, 40),
    st.integers(1, 60),
    st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=200)
def test_what_was_split_is_one_frame_again(
    make: SessionFactory,
    version: int,
    tcp: bool,
    pattern: bytes,
    times: int,
    count: int,
    sequence: int,
) -> None:
    payload = pattern * times
    flow = Flow(
        Random(0), version, TCP if tcp else 17, 0, 64, 0, 65_530, sequence,
        b"\1\1\x08\x0a" + bytes(8) if tcp else b"", bytes(range(8 if version == 4 else 32)),
        b"\0\1\0\2", 0,
    )  # fmt: skip
    gso_size = -(-len(payload) // count)
    transport = bytearray(flow.segment(payload))
    field = 16 if tcp else 6
    transport[field : field + 2] = flow.pseudo(len(transport)).to_bytes(2, "big")
    packet = flow.packet(bytes(transport))
    start = len(packet) - len(transport)
    headers = start + (32 if tcp else 8)
    gso_type = (1 if version == 4 else 4) if tcp else 5
    virtio = bytes((1, gso_type)) + b"".join(
        value.to_bytes(2, "little") for value in (headers, gso_size, start, field)
    )
    frame = virtio + packet
    out, again = bytearray(SEAL_OUT_SIZE), bytearray(SEAL_OUT_SIZE)
    sealed = make(KEY, KEY, LOCAL, LOCAL).seal(frame, [(0, len(frame))], 1420, out)
    assert sealed.packets == -(-len(payload) // gso_size)
    receiver = make(KEY, KEY, LOCAL, LOCAL)
    for batch in sealed.batches:
        opened = receiver.open(out, batch.start, batch.end, batch.stride, again)
        assert opened.drops == {}
        (first, last) = opened.frames[0]
        if len(sealed.batches) == 1 and sealed.packets > 1:
            assert opened.frames == [(0, len(frame))]
            assert again[first:last] == frame


def replay_oracle(seen: set[int], counter: int) -> bool:
    return counter not in seen and counter + REPLAY_WINDOW >= max(seen, default=-1)


STEPS = st.lists(
    st.one_of(
        st.integers(-3, 3),
        st.integers(-70, 70),
        st.sampled_from((-REPLAY_WINDOW - 1, -REPLAY_WINDOW, -8192, 8127, 8128, 8192, 8193)),
        st.integers(-20_000, 20_000),
    ),
    max_size=120,
)


@given(st.sampled_from((0, 63, 8191, 2**32, 2**63)), STEPS)
def test_replay_window_is_a_set(start: int, steps: list[int]) -> None:
    window, seen, counter = ReplayWindow(), set[int](), start
    for step in steps:
        counter = max(counter + step, 0)
        expected = replay_oracle(seen, counter)
        assert window.is_new(counter) == expected
        if expected:
            window.mark(counter)
            seen.add(counter)


@given(st.sampled_from((0, 63, 8191, 2**32, 2**63)), STEPS, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_sessions_take_each_counter_once(
    make: SessionFactory, start: int, steps: list[int], random: Random
) -> None:
    """A forged datagram, whatever its counter, changes nothing."""
    session, seen, counter = make(KEY, KEY, LOCAL, REMOTE), set[int](), start
    out = bytearray(64)
    for step in steps:
        counter = max(counter + step, 0)
        expected = replay_oracle(seen, counter)
        datagram = bytearray(message(b"", counter))
        forged = random.random() < 0.2
        if forged:
            datagram[random.randrange(16, 32)] ^= 1 << random.randrange(8)
        opened = session.open(datagram, 0, 32, 32, out)
        assert opened.packets == (expected and not forged)
        reason = DatapathDrop.AUTHENTICATION if expected else DatapathDrop.REPLAY
        assert opened.drops == ({} if opened.packets else {reason: 1})
        if opened.packets:
            seen.add(counter)


@given(st.lists(st.binary(max_size=120), min_size=1, max_size=8), st.integers(0, 3))
@settings(deadline=None, max_examples=200)
def test_authentic_junk_never_raises_and_is_all_accounted_for(
    make: SessionFactory, inner: list[bytes], ecn: int
) -> None:
    length = max(map(len, inner))
    batch = b"".join(message(each.ljust(length, b"\0"), n) for n, each in enumerate(inner))
    out = bytearray(len(batch))
    session = make(KEY, KEY, LOCAL, REMOTE)
    opened = session.open(batch, 0, len(batch), length + 32, out, outer_ecn=ecn)
    assert opened.consumed == opened.wire_bytes == len(batch)
    assert opened.packets == len(inner)
    kept = [carried(each.ljust(length, b"\0")) for each in inner]
    assert opened.keepalives == (len(inner) if not length else 0)
    assert sum(opened.drops.values()) + opened.keepalives == kept.count(None)


@given(st.binary(max_size=400), st.integers(1, 500), st.integers(0, 60))
def test_hostile_bytes_never_raise(
    make: SessionFactory, junk: bytes, stride: int, start: int
) -> None:
    start = min(start, len(junk))
    opened = make(KEY, KEY, LOCAL, REMOTE).open(
        junk, start, len(junk), stride, bytearray(len(junk))
    )
    assert opened.frames == []
    assert 0 <= opened.consumed <= len(junk) - start


@given(st.binary(max_size=3000))
def test_checksum_is_that_of_rfc_1071(data: bytes) -> None:
    slow = ones_sum(data)
    assert residue(data) == short_residue(data)
    assert folded(data) == (slow or 0xFFFF)
    assert checksum(data) == (0xFFFF - slow or 0xFFFF)


@given(st.binary(min_size=2, max_size=60), WORD, WORD)
def test_an_updated_checksum_is_wrong_by_as_much_as_before(rest: bytes, old: int, new: int) -> None:
    def error(word: int, value: int) -> int:
        return ones_sum(word.to_bytes(2, "big") + value.to_bytes(2, "big") + rest) % 0xFFFF

    for value in (0, 1, 0xFFFF, checksum(old.to_bytes(2, "big") + rest)):
        assert error(new, replaced(value, old, new)) == error(old, value)
