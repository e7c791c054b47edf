"""The native datapath against the Python reference: the same calls give the same bytes.

Both get the same frames, or the same hostile batch; results, drop counts, output bytes and counters
must be equal. TUNNEL_FUZZ_SECONDS makes `test_long` go on for that long with fresh seeds.
"""

import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from hashlib import blake2s
from random import Random, SystemRandom
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.cookies import MacChecker, MacError, mac1, mac1_key, source_bytes
from crypto.keys import PrivateKey, PublicKey
from tests.support.packets import Flow, draw_ethernet, draw_frame, draw_tap_frame, mangled
from tunnel import datapath
from tunnel.datapath import reference
from tunnel.datapath.interface import (
    MAX_BATCH_SEGMENTS,
    MAX_DATAGRAM,
    OPEN_OUT_SIZE,
    REJECT_AFTER_MESSAGES,
    SEAL_OUT_SIZE,
    Offload,
    Sealed,
    Session,
    SessionFactory,
)

KEY, LOCAL, REMOTE = bytes(range(32)), 0x01020304, 0xA0B0C0D0
FUZZ_SECONDS = float(os.environ.get("TUNNEL_FUZZ_SECONDS") or 0)
PAINT = 0x5A


@pytest.fixture(scope="module", params=datapath.CIPHERS)
def native(request: pytest.FixtureRequest, machine_path: str) -> SessionFactory:
    """The compiled datapath with each cipher; the tests skip where it was not built, and fail there
    in CI.

    Not where there is no cargo to build it with, nor for the cipher that few machines have.
    """
    cipher = str(request.param)

    def make(*arguments: Any, **options: Any) -> Session:
        return datapath.load("native", cipher).session(*arguments, **options)

    try:
        datapath.load("native", cipher)
    except datapath.UnknownDatapathError as error:
        has_cargo = shutil.which("cargo", path=machine_path)
        if os.environ.get("CI") == "true" and has_cargo and cipher != datapath.CIPHERS[0]:
            raise
        pytest.skip(str(error))
    return make


def pair(
    native: SessionFactory, counter: int = 0, *, ethernet: bool = False, short_tails: bool = False
) -> list[Session]:
    return [
        make(
            KEY,
            KEY,
            LOCAL,
            REMOTE,
            initial_counter=counter,
            ethernet=ethernet,
            short_tails=short_tails,
        )
        for make in (reference.ReferenceSession, native)
    ]


def check_seal(native: SessionFactory, seed: int, *, ethernet: bool) -> None:
    random = Random(seed)
    counter = 0
    if random.random() < 0.1:
        counter = REJECT_AFTER_MESSAGES - random.randrange(60)
    short_tails = random.random() < 0.4
    twins = pair(native, counter, ethernet=ethernet, short_tails=short_tails)
    for _ in range(random.randint(1, 3)):
        buffer, spans = bytearray(), []
        for _ in range(random.choice((1, 1, 2, 5, 30))):
            buffer += bytes(random.choice((0, 0, 3, 40_000)))
            frame = (draw_tap_frame if ethernet else draw_frame)(random)
            spans.append((len(buffer), len(buffer) + len(frame)))
            buffer += frame
        mtu = random.choice((1420, 1420, 1280, 1500, 65_535, 9000, 0))
        size = random.choice((SEAL_OUT_SIZE, SEAL_OUT_SIZE, 70_000, 5000))
        start = random.choice((0, 0, 7, size))
        source = random.choice((bytes(buffer), buffer, memoryview(buffer)))
        results: list[tuple[Sealed | None, bytes, int]] = []
        for session in twins:
            out = bytearray([PAINT]) * size
            try:
                sealed = session.seal(source, spans, mtu, out, start)
            except datapath.SessionExhausted:
                results.append((None, bytes(out), session.send_counter))
                continue
            end = sealed.batches[-1].end if sealed.batches else start
            assert out[:start] + out[end:] == bytes([PAINT]) * (size - end + start)
            results.append((sealed, bytes(out), session.send_counter))
        assert results[0] == results[1]
        if results[0][0] is not None:
            check_batches(results[0][0], start, short_tails=short_tails)


def check_batches(sealed: Sealed, start: int, *, short_tails: bool) -> None:
    """The batches are what one call of sendmsg takes, back to back, and all that was sealed."""
    packets = 0
    for batch in sealed.batches:
        size = batch.end - batch.start
        count = -(-size // batch.stride)
        assert batch.start == start
        assert size <= MAX_DATAGRAM
        assert count <= MAX_BATCH_SEGMENTS
        if short_tails and count > 1:
            assert size % batch.stride, "a batch of equally long datagrams"
        start = batch.end
        packets += count
    assert packets == sealed.packets


def draw_batch(
    random: Random, cipher: ChaCha20Poly1305, counter: int, *, ethernet: bool
) -> tuple[bytes, int, int]:
    """Return a batch of datagrams, its stride and the next counter."""
    flows = [Flow.draw(random) for _ in range(random.choice((1, 1, 2, 4)))]
    links = [draw_ethernet(random, flow.next_packet()) for flow in flows]
    packets = []
    for _ in range(random.choice((1, 2, 10, 40, 64, 90))):
        flow = random.randrange(len(flows))
        packet = flows[flow].next_packet()
        if random.random() < 0.02:
            packet = random.choice((b"", random.randbytes(30), draw_frame(random)[10:300]))
        if ethernet if random.random() < 0.98 else not ethernet:
            packet = b"\x30\0" + random.choice((links[flow],) * 9 + (links[0],)) + packet
        packets.append(mangled(random, packet, 0.03))
    length = max(map(len, packets))
    if random.random() < 0.3:
        length = max(length - random.randrange(50), 0)
    batch = bytearray()
    for packet in packets:
        number = counter
        if random.random() < 0.03:
            jumps = (0, -1, -9000, -8128, 70, 9000, 2**64)
            number = min(max(counter + random.choice(jumps), 0), 2**64 - 1)
        plain = packet[:length].ljust(length, random.choice((b"\0", b"\0", b"x")))
        nonce = bytes(4) + number.to_bytes(8, "little")
        index = LOCAL if random.random() < 0.998 else REMOTE
        datagram = bytearray((4, 0, 0, 0))
        datagram += index.to_bytes(4, "little") + nonce[4:] + cipher.encrypt(nonce, plain, None)
        if random.random() < 0.02:
            datagram[random.choice((15, 16, -1, -20))] ^= 1
        if len(batch) + len(datagram) > MAX_DATAGRAM:
            break
        batch += datagram
        counter = max(counter, number if number < 2**60 else 0) + 1
    if random.random() < 0.2:
        del batch[len(batch) - random.randrange(min(len(batch), length + 32)) :]
    stride = length + 32 if random.random() < 0.97 else random.randint(1, 2000)
    return bytes(batch), stride, counter


def check_open(native: SessionFactory, seed: int, *, ethernet: bool) -> None:
    random = Random(seed)
    twins = pair(native, ethernet=ethernet)
    cipher = ChaCha20Poly1305(KEY)
    counter = random.choice((0, 5, 8191, 2**40))
    batches = []
    for _ in range(random.randint(1, 4)):
        batch, stride, counter = draw_batch(random, cipher, counter, ethernet=ethernet)
        batches.append((batch, stride))
    if random.random() < 0.2:
        batches.append(batches[0])
    for batch, stride in batches:
        coalesce = Offload(random.choice((15, 15, 15, 0, 1, 2, 4, 8)))
        ecn = random.choice((0, 0, 1, 2, 3))
        padding = bytes(random.choice((0, 9)))
        datagrams = bytearray(padding + batch + padding)
        first, last = len(padding), len(padding) + len(batch)
        before = bytes(datagrams)
        results = []
        for session in twins:
            out = bytearray([PAINT]) * OPEN_OUT_SIZE
            opened = session.open(
                datagrams, first, last, stride, out, coalesce=coalesce, outer_ecn=ecn
            )
            assert datagrams == before
            results.append((opened, bytes(out)))
        assert results[0] == results[1]


@given(st.integers(0, 2**64), st.booleans())
@settings(deadline=None, max_examples=500)
def test_seal(native: SessionFactory, seed: int, ethernet: bool) -> None:
    check_seal(native, seed, ethernet=ethernet)


@given(st.integers(0, 2**64), st.booleans())
@settings(deadline=None, max_examples=500)
def test_open(native: SessionFactory, seed: int, ethernet: bool) -> None:
    check_open(native, seed, ethernet=ethernet)


@given(st.lists(st.binary(max_size=120), max_size=5), st.integers(0, 9000), st.booleans())
@settings(deadline=None)
def test_seal_arbitrary_frames(
    native: SessionFactory, frames: list[bytes], mtu: int, ethernet: bool
) -> None:
    spans, at = [], 0
    for frame in frames:
        spans.append((at, at + len(frame)))
        at += len(frame)
    results = []
    for session in pair(native, ethernet=ethernet):
        out = bytearray(SEAL_OUT_SIZE)
        results.append((session.seal(b"".join(frames), spans, mtu, out), out))
    assert results[0] == results[1]


@given(st.binary(max_size=300), st.integers(1, 400), st.booleans())
@settings(deadline=None)
def test_open_arbitrary_bytes(
    native: SessionFactory, junk: bytes, stride: int, addressed: bool
) -> None:
    if addressed:
        junk = b"\4\0\0\0" + LOCAL.to_bytes(4, "little") + junk
    results = []
    for session in pair(native):
        out = bytearray(len(junk))
        results.append((session.open(junk, 0, len(junk), stride, out), out))
    assert results[0] == results[1]


@given(st.integers(0, 2**64))
@settings(deadline=None)
def test_check_macs(native: SessionFactory, seed: int) -> None:
    """Batches of right, wrong and cut messages, against the protocol's own checks."""
    random = Random(seed)
    public_key = PrivateKey.from_random(random.randbytes(32)).public_key()
    checker = MacChecker(public_key, random=random.randbytes)
    checker.create_cookie_reply(signed(public_key, bytes(8)) + bytes(16), SOURCE, 0.0)
    cookie = checker.cookie_of(SOURCE, 0.0)
    assert cookie is not None
    stride = random.choice((1, 39, 40, 41, 92, 148, 200))
    messages = []
    for _ in range(random.randrange(8)):
        body = random.randbytes(max(0, stride - 32))
        body = signed(public_key, body) if random.random() < 0.6 else body + random.randbytes(16)
        mac2 = blake2s(body, digest_size=16, key=cookie).digest()
        messages.append((body + random.choice((mac2, bytes(16))))[:stride])
    if messages and random.random() < 0.3:
        messages[-1] = messages[-1][: random.randrange(1, stride + 1)]
    before = random.randbytes(random.randrange(20))
    batch = b"".join((before, *messages))

    def is_right(check: Callable[[], None]) -> bool:
        try:
            check()
        except MacError:
            return False
        return True

    expected = (
        bytes(is_right(partial(checker.check_mac1, each)) for each in messages),
        bytes(is_right(partial(checker.check_mac2, each, SOURCE, 0.0)) for each in messages),
    )
    for path in map(datapath.load, ("python", "native")):
        for buffer in (batch, bytearray(batch), memoryview(batch)):
            place = buffer, len(before), len(batch), stride
            found = path.check_mac1(mac1_key(public_key), *place), path.check_mac2(cookie, *place)
            assert found == expected


SOURCE = source_bytes(bytes([192, 0, 2, 1]), 9)


def signed(public_key: PublicKey, body: bytes) -> bytes:
    return body + mac1(public_key, body)


@pytest.mark.parametrize(
    ("short", "start", "end", "stride"),
    [(1, 0, 8, 8), (0, 0, 9, 8), (0, 5, 4, 8), (0, -1, 4, 8), (0, 0, 8, 0)],
)
def test_check_macs_refuse_what_is_no_batch(
    native: SessionFactory, short: int, start: int, end: int, stride: int
) -> None:
    for path in map(datapath.load, ("python", "native")):
        for check, length in ((path.check_mac1, 32), (path.check_mac2, 16)):
            with pytest.raises(ValueError, match=r"has \d\d bytes|outside its buffer|at least 1"):
                check(bytes(length - short), bytes(8), start, end, stride)


@pytest.mark.skipif(not FUZZ_SECONDS, reason="TUNNEL_FUZZ_SECONDS is not set")
@pytest.mark.timeout(FUZZ_SECONDS + 60)
def test_long(native: SessionFactory) -> None:
    seeds = SystemRandom()
    end = time.monotonic() + FUZZ_SECONDS
    while time.monotonic() < end:
        seed = seeds.getrandbits(64)
        try:
            for ethernet in (False, True):
                check_seal(native, seed, ethernet=ethernet)
                check_open(native, seed, ethernet=ethernet)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
