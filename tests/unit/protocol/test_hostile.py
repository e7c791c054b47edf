"""Bytes from anywhere, load, and limits: nothing raises, everything is counted."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.cookies import mac1
from tests.support.protocol_pair import COOKIE_REPLY, INITIATION, RESPONSE, Pair, remaining
from tests.support.simulation.node import Address
from tunnel.protocol import DatagramKind, HandshakeRefused, ProtocolDrop
from tunnel.protocol.constants import COOKIE_REPLIES_BURST, MAX_RATE_LIMITED_SOURCES
from tunnel.protocol.rate_limiter import RateLimiter

ELSEWHERE = Address(bytes([203, 0, 113, 9]), 1234)


def total(pair: Pair) -> int:
    return sum(pair.b.interface.drops.values())


@given(
    st.one_of(
        st.binary(max_size=200),
        st.tuples(st.integers(0, 5), st.sampled_from([148, 92, 64, 32])).map(
            lambda p: bytes([p[0], 0, 0, 0]) + bytes(p[1] - 4)
        ),
    )
)
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_dropped_counted_and_not_answered(data: bytes) -> None:
    pair = Pair()
    for view in (data, bytearray(data), memoryview(data)):
        before = total(pair)
        pair.b.interface.handle_message_untrusted(view, ELSEWHERE, 1.0)
        assert total(pair) == before + 1
        # It may be reported, and is not answered.
        assert isinstance(pair.b.interface.poll_output(), HandshakeRefused | None)
        assert pair.b.interface.poll_output() is None


def test_every_single_damaged_byte_of_an_initiation_is_noticed() -> None:
    pair = Pair()
    pair.send(pair.a)
    (initiation,) = pair.take()
    for place in range(132):  # mac2 does not count unless under load
        data = bytearray(initiation.data)
        data[place] ^= 0x01
        pair.b.receive(bytes(data), ELSEWHERE)
        if place >= 4 and place < 116:
            # As one who knows the public key would: with a right mac1.
            data[116:132] = mac1(pair.b.public_key, bytes(data[:116]))
            if not 4 <= place < 8:
                pair.b.receive(bytes(data), ELSEWHERE)
    assert not pair.wire
    assert set(pair.b.interface.drops) == {
        ProtocolDrop.MALFORMED,
        ProtocolDrop.BAD_MAC1,
        ProtocolDrop.HANDSHAKE_INVALID,
    }
    pair.deliver(initiation)
    assert [sent.kind for sent in pair.wire] == [RESPONSE]


def test_wrong_lengths_and_reserved_bytes_are_dropped() -> None:
    pair = Pair()
    pair.send(pair.a)
    data = pair.take()[0].data
    for wrong in (data[:-1], data + b"\0", data[:1] + b"\1" + data[2:], data[:40], b""):
        pair.b.receive(wrong, pair.a.address)
    assert pair.b.interface.drops == {ProtocolDrop.MALFORMED: 5}
    assert not pair.wire


def test_without_a_private_key_nothing_is_answered() -> None:
    pair = Pair()
    pair.send(pair.a)
    pair.b.interface.set_private_key(None, 0.0)
    pair.flow()
    assert pair.b.interface.drops == {ProtocolDrop.NO_PRIVATE_KEY: 1}


def test_own_initiation_comes_back() -> None:
    pair = Pair()
    pair.send(pair.a)
    (initiation,) = pair.take()
    pair.a.receive(initiation.data, ELSEWHERE)
    assert pair.a.interface.drops == {ProtocolDrop.BAD_MAC1: 1}


def test_unknown_index() -> None:
    pair = Pair()
    pair.connect()
    assert pair.b.interface.transport_for_receiving(12345, pair.now, 40) is None
    assert pair.b.interface.drops == {ProtocolDrop.UNKNOWN_SESSION: 40}


# --- Under load ----------------------------------------------------------------------------------


def test_under_load_an_initiation_earns_a_cookie_reply_and_no_more() -> None:
    pair = Pair()
    pair.b.interface.set_under_load(0.0)
    pair.send(pair.a)
    (initiation,) = pair.take()
    pair.deliver(initiation)
    (reply,) = pair.take()
    assert reply.kind == COOKIE_REPLY
    assert len(reply.data) == 64
    assert pair.b.interface.drops == {ProtocolDrop.COOKIE_REQUIRED: 1}
    assert remaining(pair.ba) == (False, False, False)
    pair.deliver(reply)
    assert pair.ab.endpoint == pair.b.address
    # The cookie goes into the next initiation, 5 s later, and that one is answered.
    pair.advance(4.9)
    pair.b.interface.set_under_load(pair.now)
    pair.advance(0.5)
    pair.flow()
    assert pair.kinds() == "ICIRD"


def test_load_is_over_after_a_second() -> None:
    pair = Pair()
    pair.b.interface.set_under_load(0.0)
    pair.send(pair.a)
    (initiation,) = pair.take()
    pair.at(0.99)
    pair.deliver(initiation)
    assert [sent.kind for sent in pair.take()] == [COOKIE_REPLY]
    pair.at(1.0)
    pair.deliver(initiation)
    assert [sent.kind for sent in pair.take()] == [RESPONSE]


def test_cookie_of_one_port_is_no_good_at_another() -> None:
    pair = Pair()
    pair.b.interface.set_under_load(0.0)
    pair.send(pair.a)
    pair.flow()
    pair.advance(5.4)
    (initiation,) = pair.take()
    pair.b.interface.set_under_load(pair.now)
    pair.deliver(initiation, source=Address(pair.a.address.address, 4))
    assert [sent.kind for sent in pair.take()] == [COOKIE_REPLY]
    pair.deliver(initiation)
    assert [sent.kind for sent in pair.take()] == [RESPONSE]


def test_cookie_reply_roams_nobody_and_forged_ones_are_counted() -> None:
    pair = Pair()
    pair.b.interface.set_under_load(0.0)
    pair.send(pair.a)
    pair.deliver(pair.take()[0])
    (reply,) = pair.take()
    forged = bytearray(reply.data)
    forged[40] ^= 1
    pair.a.receive(bytes(forged), ELSEWHERE)
    assert pair.ab.drops == {ProtocolDrop.COOKIE_INVALID: 1}
    pair.a.receive(reply.data, ELSEWHERE)
    assert pair.ab.endpoint == pair.b.address
    pair.a.receive(reply.data, ELSEWHERE)
    assert pair.ab.drops == {ProtocolDrop.COOKIE_INVALID: 2}, "a copy does not renew the cookie"
    lost = bytearray(reply.data)
    lost[4] ^= 1
    pair.a.receive(bytes(lost), ELSEWHERE)
    assert pair.a.interface.drops[ProtocolDrop.UNKNOWN_HANDSHAKE] == 1
    assert pair.kinds() == INITIATION + COOKIE_REPLY


def test_response_under_load_earns_a_cookie_too() -> None:
    pair = Pair()
    pair.send(pair.a)
    pair.deliver(pair.take()[0])
    pair.a.interface.set_under_load(0.0)
    pair.flow()
    # The responder learns the cookie through the index of the keypair that waits.
    assert pair.kinds() == "IRC"
    assert not pair.b.interface.drops
    pair.advance(5.4)
    pair.a.interface.set_under_load(pair.now)
    pair.flow()
    assert pair.kinds() == "IRCIRD"


def test_flood_with_cookies_is_limited_per_address_and_spares_others() -> None:
    pair = Pair()
    flooder = pair.node("f", 9)
    flooder.add_peer(pair.b)
    made: list[tuple[bytes, Address]] = []
    flooder.transmit = lambda source, destination, data: made.append((data, source))
    pair.b.interface.set_under_load(0.0)
    flooder.send(pair.b.inner, 1)
    pair.b.receive(*made.pop())
    (reply,) = pair.take()
    flooder.receive(reply.data, pair.b.address)
    outcomes = {ProtocolDrop.UNKNOWN_PEER: 0, ProtocolDrop.RATE_LIMITED: 0}
    for step in range(100):
        now = 6.0 + step / 100
        flooder.now = pair.now = pair.b.now = now
        pair.b.interface.set_under_load(now)
        flooder.interface.peers[pair.b.public_key]._initiate(now)
        flooder.drain()
        pair.b.receive(*made.pop())
    for reason in outcomes:
        outcomes[reason] = pair.b.interface.drops[reason]
    # A burst of 5 and then 20 a second, for a second.
    assert outcomes[ProtocolDrop.UNKNOWN_PEER] == pytest.approx(25, abs=1)
    assert outcomes[ProtocolDrop.RATE_LIMITED] == 100 - outcomes[ProtocolDrop.UNKNOWN_PEER]
    # Another source has its own share.
    pair.at(7.0)
    pair.send(pair.a)
    pair.flow()
    pair.advance(5.4)
    pair.b.interface.set_under_load(pair.now)
    pair.flow()
    assert remaining(pair.ab) == (False, True, False)


def test_initiations_from_everywhere_cost_bounded_memory_under_load() -> None:
    pair = Pair()
    pair.b.interface.set_under_load(0.0)
    draw = random.Random(1)
    pair.send(pair.a)
    data = pair.take()[0].data
    for _ in range(1000):
        pair.b.receive(data, Address(draw.randbytes(16), draw.randrange(1, 65536)))
    assert pair.b.interface.drops == {
        ProtocolDrop.COOKIE_REQUIRED: COOKIE_REPLIES_BURST,
        ProtocolDrop.COOKIE_UNANSWERED: 1000 - COOKIE_REPLIES_BURST,
    }
    assert pair.b.counts[DatagramKind.COOKIE_REPLY] == COOKIE_REPLIES_BURST
    assert len(pair.b.interface._cookie_replies) == COOKIE_REPLIES_BURST
    assert len(pair.b.interface._limiter) == 0
    pair.b.check_bounds()


# --- The rate limiter ----------------------------------------------------------------------------


def test_burst_of_five_then_twenty_a_second() -> None:
    limiter = RateLimiter()
    source = bytes([1, 2, 3, 4])
    assert [limiter.allow(source, 0.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert not limiter.allow(source, 0.049)
    assert limiter.allow(source, 0.05)
    assert not limiter.allow(source, 0.05)
    allowed = sum(limiter.allow(source, 1.0 + step / 1000) for step in range(10_000))
    assert allowed == pytest.approx(200 + 5, abs=2)
    assert sum(limiter.allow(source, 100.0) for _ in range(10)) == 5


def test_ipv6_counts_by_64_bits_and_ipv4_by_all() -> None:
    limiter = RateLimiter()
    net = bytes([0x20, 1, 0xD, 0xB8, 0, 0, 0, 1])
    assert sum(limiter.allow(net + bytes([0] * 7 + [host]), 0.0) for host in range(20)) == 5
    other = net[:7] + b"\2"
    assert limiter.allow(other + bytes(8), 0.0)
    assert all(limiter.allow(bytes([1, 2, 3, host]), 0.0) for host in range(20))


def test_memory_is_bounded_and_known_sources_go_on() -> None:
    limiter = RateLimiter()
    known = bytes([9, 9, 9, 9])
    assert limiter.allow(known, 0.0)
    for number in range(4 * MAX_RATE_LIMITED_SOURCES):
        limiter.allow(b"\x0a" + number.to_bytes(3, "big"), number / 1e5)
        assert len(limiter) <= MAX_RATE_LIMITED_SOURCES
        if number % 10_000 == 0:
            assert limiter.allow(known, number / 1e5)
    assert not limiter.allow(b"\xff\xff\xff\xff", 0.64)
    assert limiter.allow(b"\xff\xff\xff\xff", 10.0)


@given(st.lists(st.floats(0, 0.5), max_size=60))
@settings(deadline=None)
def test_limiter_agrees_with_a_bucket_of_tokens(pauses: list[float]) -> None:
    limiter = RateLimiter()
    now, tokens, last = 0.0, 5.0, 0.0
    for pause in pauses:
        now += pause
        tokens = min(5.0, tokens + 20 * (now - last))
        last = now
        allowed = limiter.allow(b"abcd", now)
        if abs(tokens - 1.0) > 1e-3:  # on the edge, rounding decides
            assert allowed == (tokens >= 1.0)
        if allowed:
            tokens -= 1.0


def test_initiation_by_a_low_order_key_is_refused() -> None:
    pair = Pair()
    before = dict(pair.b.interface.drops)
    # Nobody owns the zero point; a message that claims an ephemeral of it agrees on nothing.
    pair.send(pair.a)
    data = bytearray(pair.take()[0].data)
    data[8:40] = bytes(32)
    data[116:132] = mac1(pair.b.public_key, bytes(data[:116]))
    pair.b.receive(bytes(data), ELSEWHERE)
    assert before == {}
    assert pair.b.interface.drops == {ProtocolDrop.HANDSHAKE_INVALID: 1}


def test_a_refused_handshake_is_reported_with_its_sender_once_a_minute() -> None:
    pair = Pair()
    pair.send(pair.a)
    (initiation,) = pair.take()
    to_another = bytearray(initiation.data)
    to_another[116] ^= 0x01  # mac1 by another key

    def refused() -> list[HandshakeRefused]:
        found = [event for event in pair.b.events if isinstance(event, HandshakeRefused)]
        pair.b.events.clear()
        return found

    for _ in range(3):
        pair.b.receive(bytes(to_another), ELSEWHERE)
    assert refused() == [HandshakeRefused(ProtocolDrop.BAD_MAC1, ELSEWHERE, None)]
    # Of each reason one: noise of one kind hides no other.
    pair.b.receive(initiation.data, pair.a.address)
    pair.b.receive(initiation.data, ELSEWHERE)
    sender = pair.a.public_key
    assert refused() == [HandshakeRefused(ProtocolDrop.OLD_TIMESTAMP, ELSEWHERE, sender)]
    pair.b.interface.remove_peer(sender)
    pair.b.receive(initiation.data, ELSEWHERE)
    assert refused() == [HandshakeRefused(ProtocolDrop.UNKNOWN_PEER, ELSEWHERE, sender)]
    pair.advance_to(60.0)
    pair.b.receive(bytes(to_another), ELSEWHERE)
    assert len(refused()) == 1
