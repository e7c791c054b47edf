"""A handshake that is seen before its key holds back what follows, for a time."""

from __future__ import annotations

import pytest

from crypto.keys import PrivateKey
from tests.support.stack import message
from tunnel.capture.handshake_keys import MAX_KEYS, PATIENCE_NS, HandshakeKeys

NOW = 10 * PATIENCE_NS
KEY = PrivateKey.from_random(bytes([3]) * 32)


def handshake(kind: int, key: PrivateKey = KEY) -> bytes:
    """An initiation or a response over IPv4, up to its ephemeral key."""
    start = message(7, 0, kind)[: 20 + 8]
    return start + bytes([kind, 0, 0, 0]) + bytes(4 * kind) + bytes(key.public_key()) + bytes(16)


@pytest.mark.parametrize("kind", [1, 2])
def test_what_follows_waits_for_the_key(kind: int) -> None:
    keys = HandshakeKeys()
    keys.sent(handshake(kind), NOW - 5)
    assert keys.complete_until(NOW) == NOW - 5
    keys.add_key(KEY.to_base64())
    assert keys.complete_until(NOW) == NOW


@pytest.mark.parametrize("kind", [1, 2])
def test_a_key_that_came_first_is_not_waited_for(kind: int) -> None:
    keys = HandshakeKeys()
    keys.add_key(KEY.to_base64())
    keys.sent(handshake(kind), NOW - 5)
    keys.sent(handshake(kind), NOW - 4)  # sent again
    assert keys.complete_until(NOW) == NOW


def test_a_key_that_does_not_come_is_given_up() -> None:
    keys = HandshakeKeys()
    keys.sent(handshake(1), NOW)
    assert keys.complete_until(NOW + PATIENCE_NS - 1) == NOW
    assert keys.complete_until(NOW + PATIENCE_NS) == NOW + PATIENCE_NS


@pytest.mark.parametrize("packet", [b"", bytes(40), message(7, 0, 3), message(7, 1, 4)])
def test_other_datagrams_are_not_waited_for(packet: bytes) -> None:
    keys = HandshakeKeys()
    keys.sent(packet, NOW)
    assert keys.complete_until(NOW + 1) == NOW + 1


def test_the_keys_that_are_remembered_are_bounded() -> None:
    keys = HandshakeKeys()
    keys.add_key(KEY.to_base64())
    for number in range(MAX_KEYS - 1):
        keys._keys[number.to_bytes(32, "big")] = None
    keys.add_key(PrivateKey.from_random(bytes([4]) * 32).to_base64())
    assert len(keys._keys) == MAX_KEYS
    keys.sent(handshake(1), NOW - 5)
    assert keys.complete_until(NOW) == NOW - 5
