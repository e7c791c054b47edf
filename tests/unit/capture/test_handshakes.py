"""A handshake that is seen before its key holds back what follows, for a time."""

from __future__ import annotations

import pytest

from crypto.keys import PrivateKey
from tests.support.stack import message
from tunnel.capture.handshakes import MAX_KEYS, PATIENCE_NS, Handshakes

NOW = 10 * PATIENCE_NS
KEY = PrivateKey.from_random(bytes([3]) * 32)


def handshake(kind: int, key: PrivateKey = KEY) -> bytes:
    """An initiation or a response over IPv4, up to its ephemeral key."""
    start = message(7, 0, kind)[: 20 + 8]
    return start + bytes([kind, 0, 0, 0]) + bytes(4 * kind) + bytes(key.public_key()) + bytes(16)


@pytest.mark.parametrize("kind", [1, 2])
def test_what_follows_waits_for_the_key(kind: int) -> None:
    handshakes = Handshakes()
    handshakes.sent(handshake(kind), NOW - 5)
    assert handshakes.complete_until(NOW) == NOW - 5
    handshakes.add_key(KEY.to_base64())
    assert handshakes.complete_until(NOW) == NOW


@pytest.mark.parametrize("kind", [1, 2])
def test_a_key_that_came_first_is_not_waited_for(kind: int) -> None:
    handshakes = Handshakes()
    handshakes.add_key(KEY.to_base64())
    handshakes.sent(handshake(kind), NOW - 5)
    handshakes.sent(handshake(kind), NOW - 4)  # sent again
    assert handshakes.complete_until(NOW) == NOW


def test_a_key_that_does_not_come_is_given_up() -> None:
    handshakes = Handshakes()
    handshakes.sent(handshake(1), NOW)
    assert handshakes.complete_until(NOW + PATIENCE_NS - 1) == NOW
    assert handshakes.complete_until(NOW + PATIENCE_NS) == NOW + PATIENCE_NS


@pytest.mark.parametrize("packet", [b"", bytes(40), message(7, 0, 3), message(7, 1, 4)])
def test_other_datagrams_are_not_waited_for(packet: bytes) -> None:
    handshakes = Handshakes()
    handshakes.sent(packet, NOW)
    assert handshakes.complete_until(NOW + 1) == NOW + 1


def test_the_keys_that_are_remembered_are_bounded() -> None:
    handshakes = Handshakes()
    handshakes.add_key(KEY.to_base64())
    for number in range(MAX_KEYS - 1):
        handshakes._keys[number.to_bytes(32, "big")] = None
    handshakes.add_key(PrivateKey.from_random(bytes([4]) * 32).to_base64())
    assert len(handshakes._keys) == MAX_KEYS
    handshakes.sent(handshake(1), NOW - 5)
    assert handshakes.complete_until(NOW) == NOW - 5
