"""Handshakes as the protocol asks for them: in Python and in the compiled datapath, by one suite.

Each is also the other's peer: what one creates the other consumes.
"""

from collections.abc import Callable, Iterator
from itertools import product

import pytest

from crypto import tai64n
from crypto.identity import Identity
from crypto.keys import PrivateKey
from tests.support import whitepaper
from tests.support.vectors import wycheproof
from tunnel import datapath
from tunnel.protocol.driver import AwaitedResponse, MakeIdentity, StaticIdentity

KINDS: dict[str, MakeIdentity] = {
    name: datapath.load(name).identity or Identity for name in datapath.available()
}
A, B = bytes([1]) * 32, bytes([2]) * 32
A_PUBLIC, B_PUBLIC = (bytes(PrivateKey(key).public_key()) for key in (A, B))
EPHEMERAL_A, EPHEMERAL_B = bytes([3]) * 32, bytes([4]) * 32
PSK, NO_PSK = bytes([5]) * 32, bytes(32)
NOW = tai64n.encode(1_700_000_000_123_456_789)


@pytest.fixture(params=list(KINDS.values()), ids=list(KINDS))
def make(request: pytest.FixtureRequest) -> MakeIdentity:
    kind: MakeIdentity = request.param
    return kind


def initiate(identity: StaticIdentity, index: int = 11) -> tuple[bytes, AwaitedResponse]:
    return identity.create_initiation(B_PUBLIC, EPHEMERAL_A, index, NOW)


def respond(
    identity: StaticIdentity, message: bytes, psk: bytes = NO_PSK
) -> tuple[bytes, bytes, bytes]:
    received = identity.consume_initiations([message])
    (response,) = received.create_responses([(0, EPHEMERAL_B, 22, psk)])
    return response


def bit_flips(message: bytes, end: int) -> Iterator[bytes]:
    for place, bit in product(range(end), (0x01, 0x80)):
        damaged = bytearray(message)
        damaged[place] ^= bit
        yield bytes(damaged)


@pytest.mark.parametrize("make_b", list(KINDS.values()), ids=list(KINDS))
@pytest.mark.parametrize("psk", [PSK, NO_PSK])
@pytest.mark.parametrize("times", [1, 3])
def test_every_byte_is_the_whitepapers(
    make: MakeIdentity, make_b: MakeIdentity, psk: bytes, times: int
) -> None:
    """Also when the agreement of the static keys was kept from the handshake before."""
    paper = whitepaper.handshake(A, EPHEMERAL_A, B, EPHEMERAL_B, psk, NOW, 11, 22)
    a, b = make(A), make_b(B)
    a.add_peer(B_PUBLIC)
    b.add_peer(A_PUBLIC)
    for _ in range(times):
        message, awaited = initiate(a)
        assert message == paper.initiation[:-16] + bytes(32)
        received = b.consume_initiations([message])
        assert received.senders == [(A_PUBLIC, 11, NOW)]
        ((response, send, receive),) = received.create_responses([(0, EPHEMERAL_B, 22, psk)])
        assert response == paper.response[:-16] + bytes(32)
        keys = awaited.consume_response(response, psk)
        assert keys == (receive, send)
        assert keys == (paper.initiator_to_responder, paper.responder_to_initiator)


def test_of_many_each_keeps_its_place(make: MakeIdentity) -> None:
    """Those of strangers, and between them some that do not open."""
    identity = make(B)
    sent = []
    for number in range(60):
        other = Identity(bytes([100 + number]) * 32)
        sent.append(other.create_initiation(B_PUBLIC, EPHEMERAL_A, number, NOW))
    messages = [b"" if n % 7 == 3 else message for n, (message, _) in enumerate(sent)]
    received = identity.consume_initiations(messages)
    for number, sender in enumerate(received.senders):
        if number % 7 == 3:
            assert sender is None
        else:
            key = PrivateKey(bytes([100 + number]) * 32).public_key()
            assert sender == (bytes(key), number, NOW)
    # Answered in another order, and not all of them.
    places = [n for n in reversed(range(60)) if n % 7 != 3 and n % 5]
    answers = received.create_responses([(n, bytes([n]) * 32, 1000 + n, PSK) for n in places])
    for place, (response, send, receive) in zip(places, answers, strict=True):
        assert int.from_bytes(response[4:8], "little") == 1000 + place
        assert sent[place][1].consume_response(response, PSK) == (receive, send)


def test_a_damaged_initiation_does_not_open(make: MakeIdentity) -> None:
    identity = make(B)
    message, _ = initiate(make(A))
    flips = [flip for flip in bit_flips(message, 116) if flip[4:8] == message[4:8]]
    # X25519 ignores the top bit of the ephemeral key, but the transcript does not.
    assert len(flips) == 2 * (116 - 4)
    assert identity.consume_initiations(flips).senders == [None] * len(flips)
    lengths = [message[:-1], message + b"\0", message[:116], b"", b"\1\0\0\0"]
    assert identity.consume_initiations(lengths).senders == [None] * len(lengths)


def test_a_damaged_response_leaves_the_handshake_pending(make: MakeIdentity) -> None:
    message, awaited = initiate(make(A))
    response, send, receive = respond(make(B), message, PSK)
    refused = [flip for flip in bit_flips(response, 60) if flip[4:8] == response[4:8]]
    refused += [response[:-1], response + b"\0", b"", message]
    for damaged in refused:
        assert awaited.consume_response(damaged, PSK) is None
    assert awaited.consume_response(response, NO_PSK) is None
    assert awaited.consume_response(response, PSK) == (receive, send)


def test_an_initiation_for_another_does_not_open(make: MakeIdentity) -> None:
    message, _ = initiate(make(A))
    assert make(A).consume_initiations([message]).senders == [None]


def test_an_initiation_is_answered_once_and_only_where_it_is(make: MakeIdentity) -> None:
    message, _ = initiate(make(A))
    received = make(B).consume_initiations([message, b""])
    received.create_responses([(0, EPHEMERAL_B, 22, NO_PSK)])
    for place in (0, 1, 2):
        with pytest.raises(ValueError, match="no initiation is to be answered there"):
            received.create_responses([(place, EPHEMERAL_B, 22, NO_PSK)])


def test_x25519_of_wycheproof(make: MakeIdentity) -> None:
    """Low-order points are refused, as public keys and as ephemeral ones; all else gives the result
    of the vectors, by which Python's messages are proved (`test_vectors`)."""
    low_order = usual = 0
    for case in wycheproof("x25519_test.json"):
        private, public = case["private"], case["public"]
        identity = make(private)
        if "ZeroSharedSecret" not in case.flags:
            assert not identity.is_low_order(public)
            made, _ = identity.create_initiation(public, EPHEMERAL_A, 1, NOW)
            assert made == Identity(private).create_initiation(public, EPHEMERAL_A, 1, NOW)[0]
            usual += 1
            continue
        assert identity.is_low_order(public)
        with pytest.raises(ValueError, match="low-order"):
            identity.create_initiation(public, EPHEMERAL_A, 1, NOW)
        message, awaited = initiate(identity)
        forged = message[:8] + public + message[40:]
        assert make(B).consume_initiations([forged]).senders == [None]
        response, send, receive = respond(make(B), message)
        assert awaited.consume_response(response[:12] + public + response[44:], NO_PSK) is None
        assert awaited.consume_response(response, NO_PSK) == (receive, send)
        low_order += 1
    assert (usual, low_order) == (487, 31)


def test_a_peer_that_was_removed_is_a_stranger_and_may_come_back(make: MakeIdentity) -> None:
    a, b = make(A), make(B)
    message, _ = initiate(a)
    for step in (b.add_peer, b.remove_peer, b.remove_peer, b.add_peer, b.add_peer):
        step(A_PUBLIC)
        assert b.consume_initiations([message]).senders == [(A_PUBLIC, 11, NOW)]


def test_what_was_prepared_for_a_peer_is_what_is_made_without(make: MakeIdentity) -> None:
    a, b = make(A), make(B)
    message, _ = initiate(a)
    assert not b.prepare(1)
    for public_key in (bytes(32), A_PUBLIC):
        b.add_peer(public_key)
    assert b.prepare(1)
    assert b.prepare(1)
    assert not b.prepare(1)
    assert b.is_low_order(bytes(32))
    assert b.consume_initiations([message]).senders == [(A_PUBLIC, 11, NOW)]


def test_many_answers_are_given_once(make: MakeIdentity) -> None:
    message, _ = initiate(make(A))
    received = make(B).consume_initiations([message] * 8)
    answers = iter(received.create_responses([(n, EPHEMERAL_B, n, PSK) for n in range(8)]))
    assert [response[4] for response, _, _ in answers] == list(range(8))
    assert list(answers) == []


Call = Callable[[MakeIdentity, bytes], object]


def answer(make: MakeIdentity, ephemeral: bytes, index: int, psk: bytes) -> object:
    message, _ = initiate(make(A))
    return make(B).consume_initiations([message]).create_responses([(0, ephemeral, index, psk)])


WRONG_LENGTHS: dict[str, Call] = {
    "private key": lambda make, raw: make(raw),
    "peer": lambda make, raw: make(A).add_peer(raw),
    "removed peer": lambda make, raw: make(A).remove_peer(raw),
    "low order": lambda make, raw: make(A).is_low_order(raw),
    "remote": lambda make, raw: make(A).create_initiation(raw, EPHEMERAL_A, 1, NOW),
    "ephemeral": lambda make, raw: make(A).create_initiation(B_PUBLIC, raw, 1, NOW),
    "timestamp": lambda make, raw: make(A).create_initiation(B_PUBLIC, EPHEMERAL_A, 1, raw),
    "answering ephemeral": lambda make, raw: answer(make, raw, 22, PSK),
    "preshared key": lambda make, raw: answer(make, EPHEMERAL_B, 22, raw),
    "preshared key of a response": lambda make, raw: initiate(make(A))[1].consume_response(
        bytes(92), raw
    ),
}


@pytest.mark.parametrize("call", WRONG_LENGTHS.values(), ids=WRONG_LENGTHS)
@pytest.mark.parametrize("length", [0, 11, 31, 33])
def test_a_wrong_length_is_an_error(make: MakeIdentity, call: Call, length: int) -> None:
    with pytest.raises(ValueError, match=f"bytes long, found {length}"):
        call(make, bytes(length))


@pytest.mark.parametrize("index", [-1, 1 << 32, 1 << 70])
def test_an_index_has_32_bits(make: MakeIdentity, index: int) -> None:
    with pytest.raises(ValueError, match="unsigned 32-bit number"):
        initiate(make(A), index)
    with pytest.raises(ValueError, match="unsigned 32-bit number"):
        answer(make, EPHEMERAL_B, index, PSK)


def test_the_twins_agree_on_hostile_messages(make: MakeIdentity) -> None:
    """Ephemeral keys of all kinds, in messages that are otherwise as they should be."""
    messages = []
    for case in wycheproof("x25519_test.json"):
        message, _ = Identity(A).create_initiation(B_PUBLIC, case["private"], 1, NOW)
        messages += [message, message[:8] + case["public"] + message[40:]]
    seen = make(B).consume_initiations(messages).senders
    assert seen == Identity(B).consume_initiations(messages).senders
    assert seen.count(None) * 2 == len(seen)
