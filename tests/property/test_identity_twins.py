"""The compiled handshakes against those in Python: any keys, and messages damaged in any way."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.identity import Identity
from crypto.keys import PrivateKey
from tests.support.packets import mangled
from tunnel import datapath

NAME = datapath.available()[0]
TWIN = datapath.load(NAME).identity or Identity
"""Where nothing is compiled it is Python's own, and only the messages are tried."""

keys = st.binary(min_size=32, max_size=32)


@settings(max_examples=60, deadline=None)
@given(keys, keys, keys, keys, keys, st.binary(min_size=12, max_size=12), st.randoms())
def test_both_read_and_write_the_same(
    static: bytes,
    other: bytes,
    ours: bytes,
    theirs: bytes,
    psk: bytes,
    stamp: bytes,
    random: Random,
) -> None:
    public, remote = (bytes(PrivateKey(key).public_key()) for key in (other, static))
    made = [kind(static).create_initiation(public, ours, 7, stamp) for kind in (Identity, TWIN)]
    assert made[0][0] == made[1][0]
    messages = [made[0][0], *(mangled(random, made[0][0], 1) for _ in range(5))]
    received = [kind(other).consume_initiations(messages) for kind in (Identity, TWIN)]
    assert received[0].senders == received[1].senders
    assert received[0].senders[0] == (remote, 7, stamp)
    answers = [list(each.create_responses([(0, theirs, 9, psk)])) for each in received]
    assert answers[0] == answers[1]
    response = answers[0][0][0]
    for message in (*(mangled(random, response, 1) for _ in range(5)), response):
        results = [awaited.consume_response(message, psk) for _, awaited in made]
        assert results[0] == results[1]
        if results[0] is not None:
            break
    assert results[0] == answers[0][0][:0:-1]
