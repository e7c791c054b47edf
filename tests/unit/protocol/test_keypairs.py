"""Ages, limits, keepalives, roaming: what a standing keypair does as time passes."""

import gc
import weakref
from ipaddress import ip_network

import pytest

from tests.support.protocol_pair import DATA, INITIATION, KEEPALIVE, Pair, remaining
from tests.support.simulation.node import Address
from tunnel.protocol import KeypairExpired, KeysErased, PeerRoamed, ProtocolDrop
from tunnel.protocol.constants import (
    REJECT_AFTER_MESSAGES,
    REKEY_AFTER_MESSAGES,
)
from tunnel.protocol.keypairs import Keypair

ELSEWHERE = Address(bytes([203, 0, 113, 9]), 1234)


def connected(seed: int = 0) -> Pair:
    pair = Pair(seed)
    pair.connect()
    return pair


def quiet() -> Pair:
    """A keypair made at 0; now it is 10, and neither side waits for anything."""
    pair = connected()
    pair.live_to(10.0)
    assert pair.kinds() == "IRDK"
    return pair


# --- Rekeying ------------------------------------------------------------------------------------


def test_initiator_rekeys_when_it_sends_at_120_seconds() -> None:
    pair = connected()
    pair.advance_to(119.9)
    pair.take()
    pair.send(pair.a)
    assert pair.log[-1].kind == DATA
    pair.advance_to(120.0)
    pair.send(pair.a)
    assert pair.kinds()[-2:] == DATA + INITIATION


def test_initiator_does_not_rekey_while_silent() -> None:
    pair = connected()
    pair.flow()
    pair.advance_to(10.0)
    pair.flow()
    mark = len(pair.log)
    pair.advance_to(600.0)
    assert pair.kinds(mark) == ""


def test_keepalives_alone_keep_the_keypair_fresh() -> None:
    pair = quiet()
    pair.ab.set_persistent_keepalive(25, pair.now)
    pair.live_to(1010.0)
    assert 1000 / 150 - 1 < pair.a.counts["initiation"] <= 1000 / 120 + 1
    assert pair.ab.keypairs.transport_for_sending(pair.now) is not None


def test_responder_never_rekeys_by_age() -> None:
    pair = quiet()
    for second in range(11, 165):
        pair.live_to(float(second))
        pair.send(pair.b)
        pair.flow()
    # The initiator did, when it sent its passive keepalive after 120 s.
    assert pair.times(INITIATION) == [0.0, 121.0]
    assert pair.b.counts["initiation"] == 0


@pytest.mark.parametrize(("age", "expected"), [(164.9, 1), (165.0, 2)])
def test_initiator_rekeys_when_it_receives_at_165_seconds(age: float, expected: int) -> None:
    pair = quiet()
    pair.advance_to(age)
    pair.send(pair.b)
    pair.flow()
    assert len(pair.times(INITIATION)) == expected
    # Once: more of the same asks for no more.
    pair.send(pair.b)
    pair.flow()
    assert len(pair.times(INITIATION)) == expected


@pytest.mark.parametrize("side", ["initiator", "responder"])
def test_either_side_rekeys_after_its_number_of_messages(side: str) -> None:
    pair = connected()
    pair.advance(6.0)
    node, peer = (pair.a, pair.ab) if side == "initiator" else (pair.b, pair.ba)
    assert peer.keypairs.current is not None
    peer.keypairs.current.transport.send_counter = REKEY_AFTER_MESSAGES - 2
    mark = len(pair.log)
    pair.send(node)
    assert INITIATION not in pair.kinds(mark)
    pair.send(node)
    assert pair.kinds(mark).count(INITIATION) == 1
    pair.flow()
    assert peer.keypairs.current.transport.send_counter < 3


def test_nothing_is_sent_past_the_number_of_messages() -> None:
    pair = connected()
    pair.advance(6.0)
    assert pair.ab.keypairs.current is not None
    pair.ab.keypairs.current.transport.send_counter = REJECT_AFTER_MESSAGES - 1
    serial = pair.send(pair.a)
    pair.flow()
    assert serial in pair.b.received
    assert pair.ab.keypairs.current.transport.send_counter < 3
    pair.ab.keypairs.current.transport.send_counter = REJECT_AFTER_MESSAGES
    assert pair.ab.keypairs.transport_for_sending(pair.now) is None
    pair.send(pair.a)
    assert pair.ab.staged_frames == 1


# --- Ends ----------------------------------------------------------------------------------------


def test_keypair_neither_sends_nor_receives_at_180_seconds() -> None:
    pair = connected()
    pair.advance_to(179.9)
    pair.take()
    late = pair.send(pair.b)
    (data,) = pair.take()
    assert pair.ba.keypairs.transport_for_sending(179.99) is not None
    assert pair.ba.keypairs.transport_for_sending(180.0) is None
    # Before the timer had its turn, the age alone refuses.
    pair.at(180.0)
    pair.deliver(data)
    assert pair.ab.drops == {ProtocolDrop.SESSION_EXPIRED: 1}
    pair.advance_to(181.0)
    assert remaining(pair.ab) == remaining(pair.ba) == (False, False, False)
    assert not pair.a.interface._context.index_table.keypairs
    pair.deliver(data)
    assert pair.a.interface.drops[ProtocolDrop.UNKNOWN_SESSION] == 1
    assert late not in pair.a.received
    assert sum(isinstance(e, KeypairExpired) for e in pair.a.events) == 1


def test_keys_are_unreachable_once_a_keypair_is_gone() -> None:
    pair = connected()
    assert pair.ab.keypairs.current is not None
    cipher = weakref.ref(pair.ab.keypairs.current.transport)
    gc.disable()
    try:
        pair.advance_to(181.0)
        assert cipher() is None
    finally:
        gc.enable()


def test_everything_is_erased_after_540_seconds() -> None:
    pair = connected()
    pair.ab.keys.macs()._cookie = bytes(16)
    pair.advance_to(539.9)
    pair.take()
    assert not any(isinstance(e, KeysErased) for e in pair.a.events)
    pair.advance_to(540.1)
    assert sum(isinstance(e, KeysErased) for e in pair.a.events) == 1
    assert pair.ab.keys._macs is None
    pair.advance_to(10_000.0)
    assert pair.a.interface.next_deadline() is None
    assert pair.b.interface.next_deadline() is None


def test_erasing_does_not_touch_what_is_just_starting() -> None:
    pair = connected()
    pair.advance_to(539.0)
    pair.take()
    serial = pair.send(pair.a)
    pair.advance_to(541.0)
    pair.flow()
    assert serial in pair.b.received


def test_previous_keypair_still_receives_and_is_dropped_by_the_one_after() -> None:
    pair = connected()
    ciphers = []
    for _ in range(3):
        assert pair.ba.keypairs.current is not None
        ciphers.append(pair.ba.keypairs.current)
        pair.advance(121.0)
        late = pair.send(pair.b)
        held = pair.take()[-1]
        pair.send(pair.a)
        pair.flow()
        pair.deliver(held)
        assert late in pair.a.received
    standing = pair.ba.keypairs.all()
    assert ciphers[0] not in standing
    assert len(pair.b.interface._context.index_table.keypairs) == 2


# --- Noticing loss -------------------------------------------------------------------------------


def test_new_handshake_when_nothing_comes_back_for_15_seconds() -> None:
    pair = quiet()
    mark = len(pair.log)
    pair.send(pair.a)
    pair.take()
    pair.advance_to(100.0)
    first = pair.times(INITIATION, mark)[0]
    assert 25.0 <= first <= 25.0 + 1 / 3


def test_more_data_does_not_put_the_new_handshake_off() -> None:
    pair = quiet()
    mark = len(pair.log)
    for _ in range(20):
        pair.send(pair.a)
        pair.take()
        pair.advance(1.0)
    assert len(pair.times(INITIATION, mark)) == 1


def test_anything_authentic_puts_the_new_handshake_off() -> None:
    pair = connected()
    for _ in range(10):
        pair.send(pair.a)
        pair.advance(10.0)
        pair.flow()  # the passive keepalive of b
    assert len(pair.times(INITIATION)) == 1


# --- Keepalives ----------------------------------------------------------------------------------


def test_passive_keepalive_ten_seconds_after_data() -> None:
    pair = connected()
    mark = len(pair.log)
    pair.advance_to(30.0)
    assert pair.times(KEEPALIVE, mark) == [10.0]


def test_passive_keepalive_not_when_something_was_sent() -> None:
    pair = connected()
    pair.advance_to(5.0)
    pair.send(pair.b)
    pair.take()
    mark = len(pair.log)
    pair.advance_to(14.0)
    assert pair.kinds(mark) == ""


def test_a_keepalive_answers_no_keepalive() -> None:
    pair = quiet()
    mark = len(pair.log)
    pair.live_to(50.0)
    assert pair.kinds(mark) == ""
    pair.ab.set_persistent_keepalive(7, pair.now)
    pair.live_to(110.0)
    assert len(pair.log) - mark == 9
    assert all(sent.source == pair.a.address for sent in pair.log[mark:])


def test_persistent_keepalive_comes_after_silence_in_either_direction() -> None:
    pair = quiet()
    pair.live_to(20.0)
    mark = len(pair.log)

    def own() -> list[float]:
        return [sent.when for sent in pair.log[mark:] if sent.source == pair.a.address]

    pair.ab.set_persistent_keepalive(30, pair.now)
    pair.live_to(20.0)
    assert own() == [20.0], "at once when turned on"
    pair.live_to(35.0)
    pair.send(pair.a)  # puts it off to 65, and the passive keepalive of b, at 45, to 75
    pair.flow()
    pair.live_to(104.9)
    assert own() == [20.0, 35.0, 75.0]
    pair.live_to(105.0)
    assert own() == [20.0, 35.0, 75.0, 105.0]
    pair.ab.set_persistent_keepalive(10, pair.now)
    pair.live_to(115.0)
    assert own()[4:] == [115.0]
    pair.ab.set_persistent_keepalive(0, pair.now)
    pair.live_to(300.0)
    assert own()[5:] == []


def test_persistent_keepalive_goes_on_trying_without_a_keypair() -> None:
    pair = Pair()
    pair.ab.set_persistent_keepalive(25, pair.now)
    pair.advance(1000.0)
    assert len(pair.times(INITIATION)) > 100
    pair.take()
    pair.live_to(1031.0)
    assert remaining(pair.ab) == (False, True, False)


def test_persistent_keepalive_range() -> None:
    pair = Pair()
    for seconds in (-1, 65_536):
        with pytest.raises(ValueError, match="0 to 65535"):
            pair.ab.set_persistent_keepalive(seconds, 0.0)
    pair.ab.set_persistent_keepalive(65_535, 0.0)


# --- Confirmation, roaming, sources --------------------------------------------------------------


def test_empty_message_confirms_the_keys() -> None:
    pair = Pair()
    pair.ab.set_persistent_keepalive(60, pair.now)
    pair.advance(0.0)
    initiation = pair.take()[0]
    pair.deliver(initiation)
    serial = pair.send(pair.b)
    pair.flow()
    assert KEEPALIVE in pair.kinds()
    assert serial in pair.a.received


def test_roams_on_authentic_data_only() -> None:
    pair = connected()
    pair.send(pair.a)
    (data,) = pair.take()
    forged = bytearray(data.data)
    forged[-1] ^= 1
    pair.b.receive(bytes(forged), ELSEWHERE)
    assert pair.ba.endpoint == pair.a.address
    pair.deliver(data, source=ELSEWHERE)
    assert pair.ba.endpoint == ELSEWHERE
    assert PeerRoamed(pair.a.public_key, pair.a.address, ELSEWHERE) in pair.b.events
    pair.deliver(data)
    assert pair.ba.endpoint == ELSEWHERE, "a replay moves no peer"
    pair.send(pair.b)
    assert pair.log[-1].destination == ELSEWHERE


def test_roams_on_handshakes() -> None:
    pair = Pair()
    pair.send(pair.a)
    pair.deliver(pair.take()[0], source=ELSEWHERE)
    assert pair.ba.endpoint == ELSEWHERE
    (response,) = pair.take()
    assert response.destination == ELSEWHERE
    third = Address(ELSEWHERE.address, 99)
    pair.a.receive(response.data, third)
    assert pair.ab.endpoint == third


def test_counts_bytes_of_authentic_messages() -> None:
    pair = connected()
    assert pair.ab.tx_bytes == pair.ba.rx_bytes == 148 + 48
    assert pair.ba.tx_bytes == pair.ab.rx_bytes == 92
    pair.b.receive(pair.log[-1].data, pair.a.address)
    pair.b.receive(b"junk", pair.a.address)
    assert pair.ba.rx_bytes == 148 + 48


def test_source_must_belong_to_this_very_peer() -> None:
    pair = connected()
    third = pair.node("c", 3)
    other = pair.b.interface.add_peer(third.public_key)
    allowed = pair.b.interface.allowed_ips
    allowed.insert(ip_network("10.0.0.0/8"), pair.ba)
    allowed.insert(ip_network("10.1.0.0/16"), other)
    check = pair.b.interface.source_allowed
    assert check(pair.ba, bytes([10, 2, 0, 1]))
    assert not check(pair.ba, bytes([10, 1, 0, 1])), "a longer prefix is another peer's"
    assert check(other, bytes([10, 1, 0, 1]))
    assert not check(other, bytes([11, 0, 0, 1]))
    assert not check(pair.ba, b"")


def test_last_handshake_is_a_time_of_the_wall_clock() -> None:
    pair = Pair()
    assert pair.ab.last_handshake_unix_ns == 0
    pair.advance_to(12.5)
    pair.connect()
    assert pair.ab.last_handshake_unix_ns == 1_750_000_012_500_000_000


def test_stopped_keypair_asks_for_another_as_soon_as_anything_comes() -> None:
    pair = connected()
    keypair = pair.ab.keypairs.current
    assert isinstance(keypair, Keypair)
    pair.advance(6.0)
    keypair.stop_sending()
    assert pair.ab.keypairs.transport_for_sending(pair.now) is None
    pair.send(pair.b)
    pair.flow()
    assert len(pair.times(INITIATION)) == 2
