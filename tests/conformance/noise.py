"""The handshake as the whitepaper has it (5.4), in its names, by a peer that may also lie.

It shares nothing with the implementation in `crypto/` but the libraries: a fault there must not be
one here. The Noise libraries of PyPI (dissononce, noiseprotocol) had their last release in 2019 and
2020, and none lets a caller choose a wrong ephemeral key; the paper's own lines are shorter than
what it would take to wrap them. X25519, ChaCha20-Poly1305 and BLAKE2s are the libraries'.
"""

from __future__ import annotations

import hashlib
import hmac as hmac_module
import secrets
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from crypto import xchacha20poly1305

CONSTRUCTION = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
LABEL_MAC1 = b"mac1----"
LABEL_COOKIE = b"cookie--"
NO_PSK = bytes(32)
NO_MAC = bytes(16)
ZERO_POINT = bytes(32)
"""A point of low order: every Diffie-Hellman with it is zero."""


def dh(private: bytes, public: bytes) -> bytes:
    """X25519; raises ValueError when the result is zero."""
    key = X25519PrivateKey.from_private_bytes(private)
    return key.exchange(X25519PublicKey.from_public_bytes(public))


def pub(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def aead(key: bytes, counter: int, plain: bytes, auth: bytes) -> bytes:
    return ChaCha20Poly1305(key).encrypt(bytes(4) + counter.to_bytes(8, "little"), plain, auth)


def aead_open(key: bytes, counter: int, sealed: bytes, auth: bytes) -> bytes | None:
    """None if it was not sealed so."""
    nonce = bytes(4) + counter.to_bytes(8, "little")
    try:
        return ChaCha20Poly1305(key).decrypt(nonce, sealed, auth)
    except InvalidTag:
        return None


def hash_(data: bytes) -> bytes:
    return hashlib.blake2s(data, digest_size=32).digest()


def mac(key: bytes, data: bytes) -> bytes:
    return hashlib.blake2s(data, digest_size=16, key=key).digest()


def hmac(key: bytes, data: bytes) -> bytes:
    return hmac_module.new(key, data, hashlib.blake2s).digest()


def kdf(n: int, key: bytes, data: bytes) -> list[bytes]:
    t0 = hmac(key, data)
    t = [hmac(t0, b"\x01")]
    for i in range(2, n + 1):
        t.append(hmac(t0, t[-1] + bytes([i])))
    return t


@dataclass(frozen=True)
class Identity:
    """A static key pair."""

    private: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    @property
    def public(self) -> bytes:
        return pub(self.private)


@dataclass(frozen=True)
class Keys:
    """The two keys of a session, as this side uses them, and the two indices."""

    send: bytes = field(repr=False)
    receive: bytes = field(repr=False)
    local: int
    remote: int


@dataclass(frozen=True)
class Pending:
    """The state after the first message: c and h of the paper, and what else the second needs."""

    c: bytes = field(repr=False)
    h: bytes
    index: int
    ephemeral: bytes = field(repr=False)


@dataclass(frozen=True)
class Opened:
    """What a responder has read of an initiation."""

    pending: Pending
    static: bytes
    timestamp: bytes


def with_macs(message: bytes, remote: bytes, cookie: bytes | None = None) -> bytes:
    """`message` (without its MACs) and mac1 for the owner of `remote`, and mac2 of `cookie`."""
    message += mac(hash_(LABEL_MAC1 + remote), message)
    return message + (NO_MAC if cookie is None else mac(cookie, message))


def create_initiation(
    static: Identity, remote: bytes, index: int, timestamp: bytes, *, low_order: bool = False
) -> tuple[bytes, Pending]:
    """The first message, without its MACs. With `low_order` its ephemeral key is the zero point,
    and all else is as a responder would compute it that takes zero for a secret."""
    ephemeral = secrets.token_bytes(32)
    shown = ZERO_POINT if low_order else pub(ephemeral)
    c = hash_(CONSTRUCTION)
    h = hash_(hash_(c + IDENTIFIER) + remote)
    message = b"\x01\0\0\0" + index.to_bytes(4, "little")
    (c,) = kdf(1, c, shown)
    message += shown
    h = hash_(h + shown)
    c, k = kdf(2, c, bytes(32) if low_order else dh(ephemeral, remote))
    sealed = aead(k, 0, static.public, h)
    message += sealed
    h = hash_(h + sealed)
    c, k = kdf(2, c, dh(static.private, remote))
    sealed = aead(k, 0, timestamp, h)
    message += sealed
    h = hash_(h + sealed)
    return message, Pending(c, h, index, ephemeral)


def open_initiation(static: Identity, message: bytes) -> Opened | None:
    """Read a first message to us; None if it does not open."""
    c = hash_(CONSTRUCTION)
    h = hash_(hash_(c + IDENTIFIER) + static.public)
    index = int.from_bytes(message[4:8], "little")
    ephemeral = message[8:40]
    (c,) = kdf(1, c, ephemeral)
    h = hash_(h + ephemeral)
    c, k = kdf(2, c, dh(static.private, ephemeral))
    remote = aead_open(k, 0, message[40:88], h)
    if remote is None:
        return None
    h = hash_(h + message[40:88])
    c, k = kdf(2, c, dh(static.private, remote))
    timestamp = aead_open(k, 0, message[88:116], h)
    if timestamp is None:
        return None
    h = hash_(h + message[88:116])
    return Opened(Pending(c, h, index, ephemeral), remote, timestamp)


def create_response(opened: Opened, index: int, psk: bytes = NO_PSK) -> tuple[bytes, Keys]:
    """The second message, without its MACs, and the session."""
    ephemeral = secrets.token_bytes(32)
    pending = opened.pending
    remote = pending.index
    message = b"\x02\0\0\0" + index.to_bytes(4, "little") + remote.to_bytes(4, "little")
    message += pub(ephemeral)
    (c,) = kdf(1, pending.c, pub(ephemeral))
    h = hash_(pending.h + pub(ephemeral))
    (c,) = kdf(1, c, dh(ephemeral, pending.ephemeral))
    (c,) = kdf(1, c, dh(ephemeral, opened.static))
    c, tau, k = kdf(3, c, psk)
    h = hash_(h + tau)
    message += aead(k, 0, b"", h)
    receive, send = kdf(2, c, b"")
    return message, Keys(send, receive, index, remote)


def open_response(
    static: Identity, pending: Pending, message: bytes, psk: bytes = NO_PSK
) -> Keys | None:
    """Read a second message; None if it is not the answer to `pending` under this key."""
    ephemeral = message[12:44]
    (c,) = kdf(1, pending.c, ephemeral)
    h = hash_(pending.h + ephemeral)
    (c,) = kdf(1, c, dh(pending.ephemeral, ephemeral))
    (c,) = kdf(1, c, dh(static.private, ephemeral))
    c, tau, k = kdf(3, c, psk)
    h = hash_(h + tau)
    if aead_open(k, 0, message[44:60], h) is None:
        return None
    send, receive = kdf(2, c, b"")
    return Keys(send, receive, pending.index, int.from_bytes(message[4:8], "little"))


def create_cookie_reply(static: bytes, message: bytes, cookie: bytes) -> bytes:
    """A cookie reply by the owner of the public key `static` to the handshake message `message`.

    XChaCha20-Poly1305 is what no library here has; that of `crypto` is one block of the library's
    ChaCha20 and is held by the vectors of its draft.
    """
    nonce = secrets.token_bytes(24)
    key = hash_(LABEL_COOKIE + static)
    sealed = xchacha20poly1305.encrypt(key, nonce, cookie, message[-32:-16])
    return b"\x03\0\0\0" + message[4:8] + nonce + sealed


def open_cookie_reply(static: bytes, reply: bytes, mac1: bytes) -> bytes | None:
    """The cookie in a reply by the owner of `static` to the message with this mac1."""
    key = hash_(LABEL_COOKIE + static)
    try:
        return xchacha20poly1305.decrypt(key, reply[8:32], reply[32:], mac1)
    except InvalidTag:
        return None
