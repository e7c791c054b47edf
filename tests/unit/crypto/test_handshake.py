"""The handshake: against the whitepaper's own lines, and against people who mean us harm."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from crypto import tai64n
from crypto.cookies import MacChecker, MacError, MacGenerator
from crypto.handshake import HandshakeError, HandshakeFault, Initiator, Responder, TransportKeys
from crypto.keys import PresharedKey, PrivateKey, PublicKey
from crypto.messages import HandshakeInitiation, HandshakeResponse
from tests.support import whitepaper

A, B = PrivateKey(bytes([1]) * 32), PrivateKey(bytes([2]) * 32)
EPHEMERAL_A, EPHEMERAL_B = PrivateKey(bytes([3]) * 32), PrivateKey(bytes([4]) * 32)
PSK = PresharedKey(bytes([5]) * 32)
NOW = tai64n.encode(1_700_000_000_123_456_789)
LOW_ORDER = PublicKey(bytes(32))


def initiator(psk: PresharedKey = PSK, remote: PublicKey | None = None) -> Initiator:
    remote = B.public_key() if remote is None else remote
    return Initiator(static=A, remote_static=remote, preshared_key=psk)


def initiate(side: Initiator, sender: int = 11) -> HandshakeInitiation:
    return side.create_initiation(ephemeral=EPHEMERAL_A, sender=sender, timestamp=NOW)


def respond(
    message: HandshakeInitiation, psk: PresharedKey = PSK
) -> tuple[HandshakeResponse, TransportKeys]:
    side = Responder.consume_initiation_untrusted(message, static=B)
    return side.create_response(ephemeral=EPHEMERAL_B, sender=22, preshared_key=psk)


def bit_flips(value: bytes) -> Iterator[bytes]:
    for place in range(len(value)):
        for bit in (0x01, 0x80):
            damaged = bytearray(value)
            damaged[place] ^= bit
            yield bytes(damaged)


def damage(message: Any, field: str) -> Iterator[Any]:
    for value in bit_flips(getattr(message, field)):
        yield dataclasses.replace(message, **{field: value})


@pytest.mark.parametrize("psk", [PSK, PresharedKey.ZERO])
def test_every_byte_is_the_whitepapers(psk: PresharedKey) -> None:
    paper = whitepaper.handshake(
        bytes(A), bytes(EPHEMERAL_A), bytes(B), bytes(EPHEMERAL_B), bytes(psk), NOW, 11, 22
    )
    side = initiator(psk)
    initiation = initiate(side)
    with_macs = MacGenerator(B.public_key()).add_macs(initiation.emit(), now=0.0)
    assert with_macs == paper.initiation + bytes(16)

    responder = Responder.consume_initiation_untrusted(initiation, static=B)
    assert responder.remote_static == A.public_key()
    assert responder.timestamp == NOW
    assert responder.remote_index == 11
    response, responder_keys = responder.create_response(
        ephemeral=EPHEMERAL_B, sender=22, preshared_key=psk
    )
    with_macs = MacGenerator(A.public_key()).add_macs(response.emit(), now=0.0)
    assert with_macs == paper.response + bytes(16)
    assert responder_keys.receive == paper.initiator_to_responder
    assert responder_keys.send == paper.responder_to_initiator

    keys = side.consume_response_untrusted(response)
    assert keys.send == paper.initiator_to_responder
    assert keys.receive == paper.responder_to_initiator


def test_kept_static_static_agreement_changes_no_byte() -> None:
    kept = A.exchange(B.public_key())
    side = Initiator(static=A, remote_static=B.public_key(), preshared_key=PSK, static_static=kept)
    message = initiate(side)
    assert message == initiate(initiator())
    asked = []

    def look_up(remote: PublicKey) -> bytes | None:
        asked.append(remote)
        return kept if remote == A.public_key() else None

    responder = Responder.consume_initiation_untrusted(message, static=B, static_static=look_up)
    response, keys = responder.create_response(ephemeral=EPHEMERAL_B, sender=22, preshared_key=PSK)
    assert asked == [A.public_key()]
    assert side.consume_response_untrusted(response).send == keys.receive


def test_a_sender_unknown_to_the_lookup_is_still_read() -> None:
    responder = Responder.consume_initiation_untrusted(
        initiate(initiator()), static=B, static_static=lambda _: None
    )
    assert responder.remote_static == A.public_key()


def test_a_wrong_kept_agreement_opens_nothing() -> None:
    with pytest.raises(HandshakeError):
        Responder.consume_initiation_untrusted(
            initiate(initiator()), static=B, static_static=lambda _: bytes([9]) * 32
        )


def test_wrong_preshared_key_fails_at_the_initiator_and_leaves_it_pending() -> None:
    side = initiator()
    response, _ = respond(initiate(side), PresharedKey.ZERO)
    with pytest.raises(HandshakeError) as caught:
        side.consume_response_untrusted(response)
    assert caught.value.fault is HandshakeFault.AUTHENTICATION
    # The key that counts is the one at the time of the response.
    side.preshared_key = PresharedKey.ZERO
    side.consume_response_untrusted(response)


def test_initiation_for_another_responder_does_not_open() -> None:
    with pytest.raises(HandshakeError) as caught:
        Responder.consume_initiation_untrusted(
            initiate(initiator()), static=PrivateKey(bytes([7]) * 32)
        )
    assert caught.value.fault is HandshakeFault.AUTHENTICATION


@pytest.mark.parametrize("field", ["ephemeral", "encrypted_static", "encrypted_timestamp"])
def test_a_damaged_initiation_is_refused(field: str) -> None:
    message = initiate(initiator())
    for damaged in damage(message, field):
        with pytest.raises(HandshakeError):
            Responder.consume_initiation_untrusted(damaged, static=B)


def test_on_the_wire_mac1_guards_every_byte_before_mac2() -> None:
    initiation = initiate(initiator())
    response, _ = respond(initiation)
    for message, receiver in ((initiation, B), (response, A)):
        wire = MacGenerator(receiver.public_key()).add_macs(message.emit(), now=0.0)
        checker = MacChecker(receiver.public_key(), random=bytes)
        for damaged in bit_flips(wire[:-16]):
            with pytest.raises(MacError):
                checker.check_mac1(damaged + wire[-16:])


@pytest.mark.parametrize("field", ["ephemeral", "encrypted_nothing"])
def test_a_damaged_response_is_refused_and_the_handshake_goes_on(field: str) -> None:
    side = initiator()
    response, keys = respond(initiate(side))
    for damaged in damage(response, field):
        with pytest.raises(HandshakeError):
            side.consume_response_untrusted(damaged)
    assert side.consume_response_untrusted(response).send == keys.receive


def test_a_response_is_accepted_once() -> None:
    side = initiator()
    response, _ = respond(initiate(side))
    side.consume_response_untrusted(response)
    with pytest.raises(HandshakeError) as caught:
        side.consume_response_untrusted(response)
    assert caught.value.fault is HandshakeFault.NOT_PENDING


def test_an_old_response_around_a_new_initiation_is_refused() -> None:
    side = initiator()
    old, _ = respond(initiate(side, sender=11))
    new_initiation = side.create_initiation(
        ephemeral=PrivateKey(bytes([6]) * 32), sender=12, timestamp=NOW
    )
    with pytest.raises(HandshakeError) as caught:
        side.consume_response_untrusted(old)
    assert caught.value.fault is HandshakeFault.WRONG_RECEIVER
    # Even where an index came again, the ephemeral key is another.
    with pytest.raises(HandshakeError) as caught:
        side.consume_response_untrusted(dataclasses.replace(old, receiver=12))
    assert caught.value.fault is HandshakeFault.AUTHENTICATION
    new, keys = respond(new_initiation)
    assert side.pending_index == 12
    assert side.consume_response_untrusted(new).receive == keys.send
    assert side.pending_index is None


def test_a_response_before_any_initiation_is_refused() -> None:
    response, _ = respond(initiate(initiator()))
    with pytest.raises(HandshakeError) as caught:
        initiator().consume_response_untrusted(response)
    assert caught.value.fault is HandshakeFault.NOT_PENDING


def test_an_abandoned_handshake_is_over() -> None:
    side = initiator()
    response, _ = respond(initiate(side))
    side.abandon()
    with pytest.raises(HandshakeError):
        side.consume_response_untrusted(response)


def test_an_initiation_is_answered_once() -> None:
    responder = Responder.consume_initiation_untrusted(initiate(initiator()), static=B)
    responder.create_response(ephemeral=EPHEMERAL_B, sender=22, preshared_key=PSK)
    with pytest.raises(HandshakeError) as caught:
        responder.create_response(ephemeral=EPHEMERAL_B, sender=23, preshared_key=PSK)
    assert caught.value.fault is HandshakeFault.NOT_PENDING


def test_nothing_is_sent_to_a_low_order_peer() -> None:
    side = initiator(remote=LOW_ORDER)
    with pytest.raises(HandshakeError) as caught:
        initiate(side)
    assert caught.value.fault is HandshakeFault.LOW_ORDER
    assert side.pending_index is None


def test_a_low_order_ephemeral_is_refused_on_both_sides() -> None:
    side = initiator()
    message = initiate(side)
    response, _ = respond(message)
    with pytest.raises(HandshakeError) as caught:
        Responder.consume_initiation_untrusted(
            dataclasses.replace(message, ephemeral=bytes(32)), static=B
        )
    assert caught.value.fault is HandshakeFault.LOW_ORDER
    with pytest.raises(HandshakeError) as caught:
        side.consume_response_untrusted(dataclasses.replace(response, ephemeral=bytes(32)))
    assert caught.value.fault is HandshakeFault.LOW_ORDER
    side.consume_response_untrusted(response)


@pytest.mark.parametrize("length", [0, 11, 13])
def test_a_timestamp_has_twelve_bytes(length: int) -> None:
    side = initiator()
    with pytest.raises(ValueError, match="12 bytes"):
        side.create_initiation(ephemeral=EPHEMERAL_A, sender=1, timestamp=bytes(length))
    assert side.pending_index is None


def test_a_refused_index_leaves_the_pending_handshake() -> None:
    side = initiator()
    initiate(side)
    with pytest.raises(ValueError, match="32-bit"):
        initiate(side, sender=1 << 32)
    assert side.pending_index == 11


def test_session_keys_do_not_show() -> None:
    _, keys = respond(initiate(initiator()))
    for shown in (repr(keys), str(keys)):
        assert keys.send.hex()[:8] not in shown
        assert repr(keys.send)[2:10] not in shown
