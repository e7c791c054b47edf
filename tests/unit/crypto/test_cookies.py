"""mac1, mac2, cookies: who gets one, whom it is good for, and for how long."""

import hashlib

import pytest

from crypto.cookies import (
    COOKIE_LIFETIME,
    CookieError,
    CookieFault,
    MacChecker,
    MacError,
    MacFault,
    MacGenerator,
    mac1,
    source_bytes,
)
from crypto.keys import PrivateKey
from crypto.messages import CookieReply

ME = PrivateKey(bytes([1]) * 32).public_key()
OTHER = PrivateKey(bytes([2]) * 32).public_key()
SOURCE = source_bytes(bytes([192, 0, 2, 1]), 51820)
INITIATION = bytes([1, 0, 0, 0, 0xAA, 0xBB, 0xCC, 0xDD]) + bytes(range(108)) + bytes(32)
RESPONSE = bytes([2, 0, 0, 0, 0xAA, 0xBB, 0xCC, 0xDD]) + bytes(range(52)) + bytes(32)


class Random:
    """Seeded bytes that never repeat."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, length: int) -> bytes:
        self.calls += 1
        return hashlib.shake_128(self.calls.to_bytes(4, "big")).digest(length)


def pair() -> tuple[MacChecker, MacGenerator]:
    return MacChecker(ME, random=Random()), MacGenerator(ME)


def with_cookie(now: float = 1000.0) -> tuple[MacChecker, MacGenerator]:
    checker, generator = pair()
    reply = checker.create_cookie_reply(generator.add_macs(INITIATION, now), SOURCE, now)
    generator.consume_cookie_reply_untrusted(reply, now)
    return checker, generator


@pytest.mark.parametrize("message", [INITIATION, RESPONSE])
def test_mac1_is_where_and_what_it_should_be(message: bytes) -> None:
    checker, generator = pair()
    sent = generator.add_macs(message, 0.0)
    assert len(sent) == len(message)
    assert sent[:-32] == message[:-32]
    assert sent[-32:-16] == mac1(ME, message[:-32])
    assert sent[-16:] == bytes(16)
    checker.check_mac1(sent)
    checker.check_mac1(memoryview(bytearray(sent)))


def test_mac1_fails_on_any_damage_and_for_another_key() -> None:
    checker, generator = pair()
    sent = generator.add_macs(INITIATION, 0.0)
    for place in range(len(sent) - 16):
        damaged = bytearray(sent)
        damaged[place] ^= 1
        with pytest.raises(MacError) as caught:
            checker.check_mac1(damaged)
        assert caught.value.fault is MacFault.MAC1
    with pytest.raises(MacError):
        MacChecker(OTHER, random=Random()).check_mac1(sent)
    with pytest.raises(MacError):
        checker.check_mac1(INITIATION)


@pytest.mark.parametrize("length", [0, 1, 31, 32, 39])
def test_what_is_too_short_for_macs_fails(length: int) -> None:
    checker, generator = with_cookie()
    with pytest.raises(MacError):
        checker.check_mac1(bytes(length))
    with pytest.raises(MacError):
        checker.check_mac2(bytes(length), SOURCE, 1000.0)
    with pytest.raises(MacError):
        checker.create_cookie_reply(bytes(length), SOURCE, 1000.0)
    with pytest.raises(ValueError, match="no handshake message"):
        generator.add_macs(bytes(length), 1000.0)


@pytest.mark.parametrize("message", [INITIATION, RESPONSE])
def test_a_cookie_makes_mac2_valid(message: bytes) -> None:
    checker, generator = with_cookie()
    sent = generator.add_macs(message, 1001.0)
    checker.check_mac1(sent)
    checker.check_mac2(sent, SOURCE, 1001.0)
    for place in range(len(sent)):
        damaged = bytearray(sent)
        damaged[place] ^= 0x80
        with pytest.raises(MacError) as caught:
            checker.check_mac2(damaged, SOURCE, 1001.0)
        assert caught.value.fault is MacFault.MAC2


@pytest.mark.parametrize(
    "source",
    [
        source_bytes(bytes([192, 0, 2, 1]), 51821),
        source_bytes(bytes([192, 0, 2, 2]), 51820),
        source_bytes(bytes(12) + bytes([192, 0, 2, 1]), 51820),
    ],
)
def test_a_cookie_is_of_one_address_and_port(source: bytes) -> None:
    checker, generator = with_cookie()
    with pytest.raises(MacError):
        checker.check_mac2(generator.add_macs(INITIATION, 1001.0), source, 1001.0)


def test_no_mac2_is_valid_before_the_first_cookie() -> None:
    checker, generator = pair()
    # A clock may well begin at 0, where an unset secret must not count as young.
    with pytest.raises(MacError, match="no cookie"):
        checker.check_mac2(generator.add_macs(INITIATION, 0.0), SOURCE, 0.0)


def test_the_secret_lives_120_seconds() -> None:
    checker, generator = with_cookie(now=1000.0)
    sent = generator.add_macs(INITIATION, 1000.0)
    checker.check_mac2(sent, SOURCE, 1119.9)
    with pytest.raises(MacError, match="no cookie"):
        checker.check_mac2(sent, SOURCE, 1120.0)
    with pytest.raises(MacError, match="no cookie"):
        checker.check_mac2(sent, SOURCE, 999.0)


def test_a_new_secret_ends_the_old_cookies() -> None:
    checker, generator = with_cookie(now=1000.0)
    old = generator.add_macs(INITIATION, 1000.0)
    reply = checker.create_cookie_reply(old, SOURCE, 1120.0)
    with pytest.raises(MacError):
        checker.check_mac2(old, SOURCE, 1120.0)
    generator.consume_cookie_reply_untrusted(reply, 1120.0)
    checker.check_mac2(generator.add_macs(INITIATION, 1121.0), SOURCE, 1121.0)


def test_a_secret_is_kept_while_it_lives_and_nonces_are_fresh() -> None:
    checker, generator = with_cookie(now=1000.0)
    old = generator.add_macs(INITIATION, 1000.0)
    first = checker.create_cookie_reply(old, SOURCE, 1119.0)
    second = checker.create_cookie_reply(old, SOURCE, 1119.0)
    assert first.nonce != second.nonce
    checker.check_mac2(old, SOURCE, 1119.0)


def test_the_initiator_uses_a_cookie_115_seconds() -> None:
    assert COOKIE_LIFETIME == 115.0
    _, generator = with_cookie(now=1000.0)
    assert generator.add_macs(INITIATION, 1114.9)[-16:] != bytes(16)
    assert generator.add_macs(INITIATION, 1115.0)[-16:] == bytes(16)
    assert generator.add_macs(INITIATION, 1001.0)[-16:] == bytes(16)


def test_a_cookie_reply_names_the_sender_and_hides_the_cookie() -> None:
    checker, generator = pair()
    reply = checker.create_cookie_reply(generator.add_macs(INITIATION, 0.0), SOURCE, 0.0)
    assert reply.receiver == 0xDDCCBBAA
    assert CookieReply.parse_untrusted(reply.emit()) == reply


def test_a_wrong_mac1_earns_no_reply() -> None:
    checker, _ = pair()
    with pytest.raises(MacError):
        checker.create_cookie_reply(INITIATION, SOURCE, 0.0)


def test_a_damaged_cookie_reply_is_refused_and_changes_nothing() -> None:
    checker, generator = pair()
    reply = checker.create_cookie_reply(generator.add_macs(INITIATION, 0.0), SOURCE, 0.0)
    wire = reply.emit()
    for place in range(8, len(wire)):
        damaged = bytearray(wire)
        damaged[place] ^= 1
        with pytest.raises(CookieError) as caught:
            generator.consume_cookie_reply_untrusted(CookieReply.parse_untrusted(damaged), 0.0)
        assert caught.value.fault is CookieFault.AUTHENTICATION
    generator.consume_cookie_reply_untrusted(reply, 0.0)


def test_a_cookie_reply_counts_once() -> None:
    checker, generator = pair()
    reply = checker.create_cookie_reply(generator.add_macs(INITIATION, 0.0), SOURCE, 0.0)
    generator.consume_cookie_reply_untrusted(reply, 0.0)
    with pytest.raises(CookieError) as caught:
        generator.consume_cookie_reply_untrusted(reply, 100.0)
    assert caught.value.fault is CookieFault.NOT_EXPECTED
    assert generator.add_macs(INITIATION, 115.0)[-16:] == bytes(16)


def test_a_cookie_reply_to_an_earlier_message_is_refused() -> None:
    checker, generator = pair()
    reply = checker.create_cookie_reply(generator.add_macs(INITIATION, 0.0), SOURCE, 0.0)
    generator.add_macs(RESPONSE, 0.0)
    with pytest.raises(CookieError):
        generator.consume_cookie_reply_untrusted(reply, 0.0)


def test_an_unasked_cookie_reply_is_refused() -> None:
    _, generator = pair()
    with pytest.raises(CookieError) as caught:
        generator.consume_cookie_reply_untrusted(CookieReply(0, bytes(24), bytes(32)), 0.0)
    assert caught.value.fault is CookieFault.NOT_EXPECTED


def test_source_bytes() -> None:
    assert source_bytes(bytes(4), 258) == bytes(4) + b"\1\2"
    assert source_bytes(bytes(16), 0) == bytes(18)
    with pytest.raises(ValueError, match="found 5"):
        source_bytes(bytes(5), 1)
    with pytest.raises(OverflowError):
        source_bytes(bytes(4), 65536)
