"""Who is sent a cookie reply under load: each source once in a while, and peers by all means."""

import random

from crypto.cookies import source_bytes
from tests.support.protocol_pair import COOKIE_REPLY, Pair
from tests.support.simulation.node import Address
from tunnel.protocol import ProtocolDrop
from tunnel.protocol.constants import (
    COOKIE_REPLIES_BURST,
    COOKIE_REPLIES_PER_SECOND,
    COOKIE_REPLY_SPACING,
    KNOWN_COOKIE_REPLIES_PER_SECOND,
    REKEY_TIMEOUT,
)
from tunnel.protocol.cookie_replies import CookieReplies


def test_a_source_is_sent_one_until_it_asks_again() -> None:
    replies = CookieReplies()
    assert replies.take(b"source", 10.0, known=False)
    assert not replies.may_send(b"source", 10.0, known=False)
    assert not replies.take(b"source", 9.999 + COOKIE_REPLY_SPACING, known=False)
    assert replies.take(b"source", 10.0 + REKEY_TIMEOUT, known=False)
    assert not replies.take(b"source", 10.0 + REKEY_TIMEOUT, known=False)


def test_more_sources_than_can_be_answered_have_the_same_chance() -> None:
    """Those before the one that is asked about, and after it, are the same to it."""
    draw = random.Random(1)
    replies = CookieReplies()
    answered = 0
    for step in range(100_000):
        now = step / (10 * COOKIE_REPLIES_PER_SECOND)
        may = replies.may_send(draw.randbytes(6), now, known=False)
        source = draw.randbytes(6)
        assert replies.take(source, now, known=False) is may
        answered += may
    expected = COOKIE_REPLIES_BURST + 100_000 / 10
    assert abs(answered - expected) <= 1


def test_memory_is_bounded_by_the_budget_and_forgets() -> None:
    replies = CookieReplies()
    for step in range(200_000):
        replies.take(step.to_bytes(6), step / 10_000, known=False)
    assert len(replies) <= COOKIE_REPLIES_BURST + COOKIE_REPLY_SPACING * COOKIE_REPLIES_PER_SECOND
    assert replies.take(b"later", 1000.0, known=False)
    assert len(replies) == 1


def test_the_budget_of_peers_is_their_own_and_bounded() -> None:
    replies = CookieReplies()
    while replies.take(random.randbytes(6), 1.0, known=False):
        pass
    assert not replies.may_send(b"peer", 1.0, known=False)
    assert replies.may_send(b"peer", 1.0, known=True)
    assert sum(replies.take(b"peer", 1.0, known=True) for _ in range(500)) == COOKIE_REPLIES_BURST
    sent = sum(replies.take(b"peer", 1.0 + n / 10_000, known=True) for n in range(1, 10_001))
    # All that is theirs, and one of what is everybody's.
    assert abs(sent - KNOWN_COOKIE_REPLIES_PER_SECOND - 1) <= 2


def test_a_flood_from_ever_new_sources_ends_no_session_of_a_peer() -> None:
    """Its initiation, from where we know it to be, gets a cookie all the same."""
    pair = Pair()
    pair.connect()
    draw = random.Random(2)
    pair.b.interface.set_under_load(pair.now)
    pair.a.interface.peers[pair.b.public_key]._initiate(pair.now)
    pair.a.drain()
    (initiation,) = pair.take()
    for _ in range(200):
        pair.b.receive(initiation.data, Address(draw.randbytes(4), 9))
    assert pair.b.interface.drops[ProtocolDrop.COOKIE_UNANSWERED] == 200 - COOKIE_REPLIES_BURST
    pair.take()
    stranger = Address(draw.randbytes(4), 9)
    assert not pair.b.interface.may_send_cookie(source_bytes(stranger.address, 9), pair.now)
    address = pair.a.address
    assert pair.b.interface.may_send_cookie(source_bytes(address.address, address.port), pair.now)
    pair.deliver(initiation)
    assert [sent.kind for sent in pair.take()] == [COOKIE_REPLY]
