"""Starting, repeating, answering, completing, refusing."""

from collections.abc import Generator
from itertools import pairwise

import pytest

from crypto.cookies import mac1
from crypto.keys import PresharedKey, PrivateKey, PublicKey
from tests.support.protocol_pair import (
    DATA,
    INITIATION,
    KEEPALIVE,
    RESPONSE,
    START_UNIX_NS,
    Pair,
    remaining,
)
from tests.support.simulation.node import Address
from tunnel.protocol import (
    HandshakeCompleted,
    HandshakeFailed,
    HandshakeUnanswered,
    PeerRoamed,
    ProtocolDrop,
    take_step,
)

ELSEWHERE = Address(bytes([203, 0, 113, 9]), 1234)


def test_first_packet_makes_a_keypair_and_goes_out_under_it() -> None:
    pair = Pair()
    serial = pair.send(pair.a)
    pair.flow()
    assert pair.kinds() == "IRD"
    assert serial in pair.b.received
    completed = [e for e in pair.a.events if isinstance(e, HandshakeCompleted)]
    assert [e.is_initiator for e in completed] == [True]
    completed = [e for e in pair.b.events if isinstance(e, HandshakeCompleted)]
    assert [e.is_initiator for e in completed] == [False]


def test_initiation_carries_nothing_else_and_lengths_are_the_protocol_s() -> None:
    pair = Pair()
    pair.send(pair.a)
    pair.flow()
    assert [len(sent.data) for sent in pair.log] == [148, 92, 48]


def test_initiator_with_nothing_staged_confirms_by_an_empty_message() -> None:
    pair = Pair()
    pair.ab.set_persistent_keepalive(25, pair.now)
    pair.advance(0)
    pair.flow()
    assert pair.kinds() == "IRK"
    assert pair.ba.last_handshake_unix_ns == START_UNIX_NS + int(pair.now * 10**9)


def test_responder_sends_no_data_before_confirmation() -> None:
    pair = Pair()
    pair.send(pair.a)
    (initiation,) = pair.take()
    pair.deliver(initiation)
    serial = pair.send(pair.b)
    # A handshake of its own is wanted, but the response was just sent: not within 5 s.
    (response,) = pair.take()
    assert response.kind == RESPONSE
    assert pair.ba.staged_frames == 1
    assert remaining(pair.ba) == (False, False, True)
    assert pair.ba.last_handshake_unix_ns == 0
    pair.deliver(response)
    pair.flow()
    assert serial in pair.a.received
    assert remaining(pair.ba) == (False, True, False)
    assert pair.ba.last_handshake_unix_ns == START_UNIX_NS + int(pair.now * 10**9)
    pair.advance(8.0)
    assert pair.times(INITIATION) == [0.0]


def test_retries_every_five_seconds_with_new_index_key_and_timestamp() -> None:
    pair = Pair()
    pair.send(pair.a)
    pair.advance(30.0)
    times = pair.times(INITIATION)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert len(gaps) == 5
    assert all(5.0 <= gap < 5.0 + 1 / 3 + 1e-9 for gap in gaps)
    assert len({round(gap, 6) for gap in gaps}) > 1
    initiations = [sent.data for sent in pair.take()]
    assert len({data[4:8] for data in initiations}) == 6
    assert len({data[8:40] for data in initiations}) == 6
    attempts = [e.attempt for e in pair.a.events if isinstance(e, HandshakeUnanswered)]
    assert attempts == [1, 2, 3, 4, 5]


def test_gives_up_after_ninety_seconds_and_starts_again_on_traffic() -> None:
    pair = Pair()
    pair.send(pair.a)
    pair.send(pair.a)
    pair.advance(300.0)
    times = pair.times(INITIATION)
    assert 84.0 < times[-1] < 90.0
    (failed,) = [e for e in pair.a.events if isinstance(e, HandshakeFailed)]
    assert (failed.dropped, failed.reason, failed.attempts) == (2, "no answer", len(times))
    assert pair.ab.drops == {ProtocolDrop.HANDSHAKE_TIMEOUT: 2}
    assert pair.ab.staged_frames == 0
    before = len(times)
    pair.send(pair.a)
    assert len(pair.times(INITIATION)) == before + 1


def test_new_traffic_gives_it_another_ninety_seconds() -> None:
    pair = Pair()
    pair.send(pair.a)
    pair.advance_to(80.0)
    pair.send(pair.a)
    pair.advance_to(168.0)
    assert not any(isinstance(e, HandshakeFailed) for e in pair.a.events)
    pair.advance_to(176.0)
    assert any(isinstance(e, HandshakeFailed) for e in pair.a.events)


def test_only_the_last_initiation_can_be_answered() -> None:
    pair = Pair()
    pair.send(pair.a)
    pair.advance(6.0)
    first, second = pair.take()
    pair.deliver(first)
    (late,) = pair.take()
    pair.deliver(late)
    assert pair.a.interface.drops == {ProtocolDrop.UNKNOWN_HANDSHAKE: 1}
    assert remaining(pair.ab) == (False, False, False)
    pair.advance(0.1)
    pair.deliver(second)
    pair.flow()
    assert remaining(pair.ab) == (False, True, False)


def test_a_response_twice_makes_one_keypair_even_around_a_new_initiation() -> None:
    pair = Pair()
    pair.connect()
    pair.advance(130.0)
    pair.take()
    pair.send(pair.a)
    _, initiation = pair.take()
    pair.deliver(initiation)
    (response,) = pair.take()
    keypairs = pair.a.counts["keypairs"]
    pair.deliver(response)
    pair.deliver(response)
    assert pair.a.counts["keypairs"] == keypairs + 1
    current = pair.ab.keypairs.current
    pair.flow()
    # Now a new initiation is out, and the old response comes a third time.
    pair.advance(130.0)
    pair.take()
    pair.send(pair.a)
    assert pair.log[-1].kind == INITIATION
    pair.deliver(response)
    assert pair.ab.keypairs.current is current
    assert pair.a.counts["keypairs"] == keypairs + 1
    assert pair.a.interface.drops[ProtocolDrop.UNKNOWN_HANDSHAKE] == 2


def test_a_forged_response_does_not_kill_the_handshake() -> None:
    pair = Pair()
    pair.send(pair.a)
    pair.deliver(pair.take()[0])
    (response,) = pair.take()
    forged = bytearray(response.data)
    forged[50] ^= 1  # the encrypted nothing; anyone who knows the public key can make mac1 right
    forged[60:76] = mac1(pair.a.public_key, bytes(forged[:60]))
    pair.a.receive(bytes(forged), ELSEWHERE)
    assert pair.ab.drops == {ProtocolDrop.HANDSHAKE_INVALID: 1}
    assert pair.ab.endpoint == pair.b.address
    pair.deliver(response)
    assert remaining(pair.ab) == (False, True, False)


def test_an_initiation_is_answered_once() -> None:
    pair = Pair()
    pair.send(pair.a)
    (initiation,) = pair.take()
    pair.deliver(initiation)
    pair.advance(1.0)
    pair.deliver(initiation, source=ELSEWHERE)
    assert pair.kinds() == "IR"
    assert pair.ba.drops == {ProtocolDrop.OLD_TIMESTAMP: 1}
    assert pair.ba.endpoint == pair.a.address


def test_older_initiation_after_a_newer_one_is_refused() -> None:
    pair = Pair()
    pair.send(pair.a)
    pair.advance(6.0)
    first, second = pair.take()
    pair.deliver(second)
    pair.advance(1.0)
    pair.deliver(first)
    assert pair.ba.drops == {ProtocolDrop.OLD_TIMESTAMP: 1}


def test_initiations_within_twenty_milliseconds_are_refused() -> None:
    pair = Pair()
    pair.send(pair.a)
    pair.advance(6.0)
    first, second = pair.take()
    pair.deliver(first)
    pair.advance(0.019)
    pair.deliver(second)
    assert pair.ba.drops == {ProtocolDrop.HANDSHAKE_FLOOD: 1}
    assert pair.kinds() == "IIR"
    # It was not accepted, so it still can be.
    pair.advance(0.002)
    pair.deliver(second)
    assert pair.kinds() == "IIRR"


def test_unknown_key_gets_no_answer() -> None:
    pair = Pair()
    pair.b.interface.remove_peer(pair.a.public_key)
    pair.send(pair.a)
    pair.flow()
    assert pair.kinds() == "I"
    assert pair.b.interface.drops == {ProtocolDrop.UNKNOWN_PEER: 1}


@pytest.mark.parametrize("side", ["initiator", "responder"])
def test_preshared_key_takes_effect_with_the_next_handshake(side: str) -> None:
    pair = Pair()
    pair.connect()
    key = PresharedKey.from_bytes(bytes(range(32)))
    first, second = (pair.ab, pair.ba) if side == "initiator" else (pair.ba, pair.ab)
    first.set_preshared_key(key)
    pair.send(pair.a)
    pair.flow()
    assert len(pair.b.received) == 2, "keypairs go on"
    pair.advance(200.0)
    pair.take()
    pair.send(pair.a)
    pair.flow()
    assert remaining(pair.ab) == (False, False, False)
    assert pair.ab.drops == {ProtocolDrop.HANDSHAKE_INVALID: 1}
    second.set_preshared_key(key)
    pair.advance(6.0)
    pair.flow()
    assert len(pair.b.received) == 3


def test_preshared_key_set_while_a_response_is_awaited_counts() -> None:
    pair = Pair()
    key = PresharedKey.from_bytes(bytes(range(32)))
    pair.send(pair.a)
    pair.ab.set_preshared_key(key)
    pair.ba.set_preshared_key(key)
    pair.flow()
    assert len(pair.b.received) == 1


def test_both_start_at_once() -> None:
    for seed in range(4):
        pair = Pair(seed)
        one, other = pair.send(pair.a), pair.send(pair.b)
        pair.flow()
        assert one in pair.b.received
        assert other in pair.a.received
        # Both send with the same keypair, initiated by the smaller key.
        current = pair.ab.keypairs.current, pair.ba.keypairs.current
        assert current[0] is not None
        assert current[1] is not None
        assert current[0].local_index == current[1].remote_index
        assert current[0].is_initiator == (bytes(pair.a.public_key) < bytes(pair.b.public_key))
        pair.advance(8.0)
        assert pair.kinds().count("I") == 2


def test_indices_are_random_and_change_with_every_handshake() -> None:
    pair = Pair()
    seen = set()
    for _ in range(5):
        pair.connect()
        assert pair.ab.keypairs.current is not None
        seen.add(pair.ab.keypairs.current.local_index)
        seen.add(pair.ab.keypairs.current.remote_index)
        pair.advance(200.0)
        pair.take()
    assert len(seen) == 10
    assert max(seen) > 1 << 24


def test_a_colliding_index_is_drawn_again() -> None:
    pair = Pair()
    pair.connect()
    assert pair.ab.keypairs.current is not None
    taken = pair.ab.keypairs.current.local_index
    drawn = iter([taken, taken, 7])
    indices = pair.a.interface._context.index_table
    indices._random = lambda count: next(drawn).to_bytes(count, "little")
    assert indices.draw() == 7


def test_peer_without_endpoint_waits_for_one() -> None:
    pair = Pair()
    pair.ab.set_endpoint(None)
    serial = pair.send(pair.a)
    pair.advance(20.0)
    assert pair.kinds() == ""
    pair.ab.set_endpoint(pair.b.address, pair.now)
    pair.advance(0.0)
    pair.flow()
    assert serial in pair.b.received


def test_peer_without_endpoint_is_given_up_with_the_reason() -> None:
    pair = Pair()
    pair.ab.set_endpoint(None)
    pair.send(pair.a)
    pair.advance(100.0)
    (failed,) = [e for e in pair.a.events if isinstance(e, HandshakeFailed)]
    assert failed.reason == "the peer's endpoint is not known"
    assert failed.dropped == 1


def test_peer_without_endpoint_speaks_when_spoken_to() -> None:
    pair = Pair()
    pair.ab.set_endpoint(None)
    serial = pair.send(pair.a)
    pair.send(pair.b)
    pair.flow()
    assert serial in pair.b.received
    assert [e.new for e in pair.a.events if isinstance(e, PeerRoamed)] == [pair.b.address]


LOW_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


@pytest.mark.parametrize("key", LOW_ORDER)
def test_low_order_key_is_accepted_and_nothing_is_ever_sent_to_it(key: str) -> None:
    pair = Pair()
    peer = pair.a.interface.add_peer(PublicKey.from_hex(key))
    peer.set_endpoint(pair.b.address)
    peer.set_persistent_keepalive(1, pair.now)
    peer.stage(b"frame", pair.now)
    pair.advance(600.0)
    assert pair.kinds() == ""
    assert peer.drops == {ProtocolDrop.LOW_ORDER_PEER: 1}


def test_retry_endpoint_is_asked_before_every_repetition() -> None:
    pair = Pair()
    other = Address(pair.b.address.address, 7)
    asked = []

    def retry(endpoint: Address) -> Address:
        asked.append(endpoint)
        return other

    pair.a.interface._context.retry_endpoint = retry
    pair.send(pair.a)
    pair.advance(6.0)
    assert [sent.destination for sent in pair.log] == [pair.b.address, other]
    assert asked == [pair.b.address]
    assert pair.kinds() == INITIATION * 2


def test_under_a_standing_keypair_data_flows_while_the_next_is_made() -> None:
    pair = Pair()
    pair.connect()
    mark = len(pair.log)
    pair.advance_to(121.0)
    pair.take()
    one = pair.send(pair.a)
    two = pair.send(pair.a)
    assert pair.kinds(mark).endswith(DATA + INITIATION + DATA)
    pair.flow()
    assert {one, two} <= pair.b.received
    assert pair.kinds(mark).endswith(RESPONSE + KEEPALIVE)
    assert remaining(pair.ab) == remaining(pair.ba) == (True, True, False)


def test_initiations_that_come_together_are_answered_as_one_by_one() -> None:
    """Of two of one peer the first in the batch is answered. What is wrong is counted, and is in
    no one's way; and no two of a batch get one index."""
    pair = Pair()
    pair.send(pair.a)
    (older,) = pair.take()
    pair.advance(5.4)
    (newer,) = pair.take()
    stranger = pair.node("c", 3)
    stranger.add_peer(pair.b)
    stranger.send(pair.b.inner, 1)
    known = pair.node("d", 4)
    pair.b.add_peer(known)
    known.add_peer(pair.b)
    known.send(pair.b.inner, 2)
    from_stranger, from_known = pair.take()
    body = bytes([1, 0, 0, 0]) + bytes(112)
    key = pair.b.interface.public_key
    assert key is not None
    datagrams = [
        from_known.data,
        bytes([*newer.data[:-33], newer.data[-33] ^ 1, *newer.data[-32:]]),
        body + mac1(key, body) + bytes(16),
        newer.data,
        from_stranger.data,
        older.data,
    ]
    draw = pair.b.interface._context.random
    fours = iter([b"same", b"same", b"else"])
    pair.b.interface._context.index_table._random = lambda n: next(fours) if n == 4 else draw(n)
    # By our own mac1 key it would not be checked again; this one was ours before.
    messages = [(data, ELSEWHERE, False, bytes(32)) for data in datagrams]
    steps = pair.b.interface.initiation_steps(messages)
    while take_step(steps, pair.now):
        pass
    pair.b.drain()
    assert [sent.kind for sent in pair.take()] == [RESPONSE, RESPONSE]
    assert [sent.data[4:8] for sent in pair.log[-2:]] == [b"same", b"else"]
    assert pair.ba.endpoint == ELSEWHERE
    assert pair.b.interface.drops == {
        ProtocolDrop.BAD_MAC1: 1,
        ProtocolDrop.HANDSHAKE_INVALID: 1,
        ProtocolDrop.UNKNOWN_PEER: 1,
        ProtocolDrop.OLD_TIMESTAMP: 1,
    }


def initiations(pair: Pair) -> tuple[bytes, bytes]:
    """Two of a, the older one first."""
    pair.send(pair.a)
    (older,) = pair.take()
    pair.advance(5.4)
    (newer,) = pair.take()
    return older.data, newer.data


def begun(pair: Pair, initiation: bytes, taken: int) -> Generator[int, float, None]:
    """The steps of b's answer, of which so many are taken and others are left."""
    steps = pair.b.interface.initiation_steps([(initiation, ELSEWHERE, False, None)])
    for _ in range(taken):
        assert take_step(steps, pair.now)
    return steps


def test_what_is_answered_step_by_step_is_answered_only_if_the_peer_still_waits_for_it() -> None:
    pair = Pair()
    older, newer = initiations(pair)
    interface = pair.b.interface
    first = begun(pair, older, 2)
    second = interface.initiation_steps([(newer, ELSEWHERE, False, None)])
    pair.advance(0.1)
    while take_step(second, pair.now):
        pass
    assert not take_step(first, pair.now)
    pair.b.drain()
    (answer,) = pair.take()
    pair.a.receive(answer.data, pair.b.address)
    assert remaining(pair.ab) == (False, True, False)
    assert interface.drops == {ProtocolDrop.OLD_TIMESTAMP: 1}


@pytest.mark.parametrize("steps_before", [1, 2])
@pytest.mark.parametrize("change", ["key", "removal"])
def test_what_changes_between_two_steps_of_an_answer_holds(change: str, steps_before: int) -> None:
    pair = Pair()
    _, newer = initiations(pair)
    interface = pair.b.interface
    steps = begun(pair, newer, steps_before)
    if change == "key":
        interface.set_private_key(PrivateKey.from_random(bytes([77] * 32)), pair.now)
        reason = ProtocolDrop.BAD_MAC1
    else:
        interface.remove_peer(pair.a.public_key)
        reason = (ProtocolDrop.UNKNOWN_PEER, ProtocolDrop.PEER_REMOVED)[steps_before - 1]
    while take_step(steps, pair.now):
        pass
    pair.b.drain()
    assert pair.take() == []
    assert interface.drops == {reason: 1}


@pytest.mark.parametrize("steps_before", [1, 2])
def test_no_answer_is_made_with_a_preshared_key_of_before(steps_before: int) -> None:
    pair = Pair()
    _, newer = initiations(pair)
    steps = begun(pair, newer, steps_before)
    pair.ba.set_preshared_key(PresharedKey(bytes([5]) * 32))
    while take_step(steps, pair.now):
        pass
    pair.b.drain()
    for answer in pair.take():
        pair.a.receive(answer.data, pair.b.address)
    assert remaining(pair.ab) == (False, False, False)
    assert pair.b.interface.drops == ({}, {ProtocolDrop.HANDSHAKE_INVALID: 1})[steps_before - 1]
