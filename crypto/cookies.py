"""mac1, mac2 and cookies (whitepaper, 5.3, 5.4.4 and 5.4.7): cheap checks before the rest.

mac1 shows that the sender knows our public key. Under load a sender must also show, by mac2,
that it can receive at the address it sends from: it gets a cookie there, a MAC of its address
and port under a secret that lives 120 s, and has to key mac2 with it.
"""

import hashlib
import hmac
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag

from crypto import xchacha20poly1305
from crypto.errors import CookieError, CookieFault, MacError, MacFault
from crypto.keys import PublicKey
from crypto.messages import MAC_LENGTH, NO_MAC, Bytes, CookieReply

__all__ = [
    "COOKIE_LIFETIME",
    "COOKIE_SECRET_LIFETIME",
    "CookieError",
    "CookieFault",
    "MacChecker",
    "MacError",
    "MacFault",
    "MacGenerator",
    "mac1",
    "mac1_key",
    "source_bytes",
]

COOKIE_SECRET_LIFETIME: Final = 120.0  # seconds
# The initiator stops earlier, so that a cookie does not run out on its way.
COOKIE_LIFETIME: Final = COOKIE_SECRET_LIFETIME - 5.0

_LABEL_MAC1: Final = b"mac1----"
_LABEL_COOKIE: Final = b"cookie--"
_MACS_LENGTH: Final = 2 * MAC_LENGTH
_SECRET_LENGTH: Final = 32
# Type, sender and the two MACs: no handshake message is shorter.
_SHORTEST: Final = 8 + _MACS_LENGTH


def mac1_key(public_key: PublicKey) -> bytes:
    """Return the key of mac1 (32 bytes) in messages to the owner of `public_key`."""
    return hashlib.blake2s(_LABEL_MAC1 + bytes(public_key)).digest()


def mac1(public_key: PublicKey, data: Bytes) -> bytes:
    """Return mac1 (16 bytes) of `data`, the message up to but not including mac1."""
    return _mac(mac1_key(public_key), data)


def source_bytes(address: bytes, port: int) -> bytes:
    """Spell where a datagram came from, for a cookie: address (4 or 16 bytes), then port.

    The port belongs to it: without it all hosts behind one NAT would share a cookie. Raises
    ValueError on another length of address and OverflowError on a port past 16 bits.
    """
    if len(address) not in (4, 16):
        raise ValueError(f"an address is 4 or 16 bytes long, found {len(address)}")
    return address + port.to_bytes(2, "big")


class MacChecker:
    """The receiving side: checks MACs, hands out cookies. One for each private key of ours.

    `random` returns that many random bytes; `now` is in seconds of a monotonic clock;
    `source` is what `source_bytes` returns. `data` is a whole handshake message, of either
    type: the two MACs are its last 32 bytes. `mac1_key` and `cookie_of` are for those who check
    in batches.
    """

    __slots__ = ("_cookie_key", "_random", "_secret", "_secret_since", "mac1_key")

    def __init__(self, public_key: PublicKey, *, random: Callable[[int], bytes]) -> None:
        self.mac1_key = mac1_key(public_key)
        self._cookie_key = _cookie_key(public_key)
        self._random = random
        self._secret: bytes | None = None
        self._secret_since = 0.0

    def check_mac1(self, data: Bytes) -> None:
        """Raise MacError unless mac1 is right. Takes hostile bytes; raises nothing else."""
        if len(data) < _SHORTEST:
            raise MacError(MacFault.MAC1, "too short to carry MACs")
        expected = _mac(self.mac1_key, memoryview(data)[:-_MACS_LENGTH])
        if not hmac.compare_digest(expected, memoryview(data)[-_MACS_LENGTH:-MAC_LENGTH]):
            raise MacError(MacFault.MAC1, "mac1 is not of our public key")

    def check_mac2(self, data: Bytes, source: bytes, now: float) -> None:
        """Raise MacError unless mac2 is of a cookie we gave to `source` and still honour.

        Takes hostile bytes; raises nothing else.
        """
        if len(data) < _SHORTEST:
            raise MacError(MacFault.MAC2, "too short to carry MACs")
        cookie = self.cookie_of(source, now)
        if cookie is None:
            raise MacError(MacFault.MAC2, "no cookie of ours is still valid")
        expected = _mac(cookie, memoryview(data)[:-MAC_LENGTH])
        if not hmac.compare_digest(expected, memoryview(data)[-MAC_LENGTH:]):
            raise MacError(MacFault.MAC2, "mac2 is not of this sender's cookie")

    def cookie_of(self, source: bytes, now: float) -> bytes | None:
        """The key of mac2 (16 bytes) in messages from `source`; None if no cookie is valid."""
        secret = self._secret_at(now)
        return None if secret is None else _mac(secret, source)

    def create_cookie_reply(self, data: Bytes, source: bytes, now: float) -> CookieReply:
        """Answer a message whose mac1 is right with the cookie of `source`.

        Makes a new secret when the last is 120 s old, which ends all cookies before it.
        Raises MacError, as `check_mac1` does, if mac1 is wrong: no such sender earns a reply.
        """
        self.check_mac1(data)
        secret = self._secret_at(now)
        if secret is None:
            secret = self._random(_SECRET_LENGTH)
            self._secret, self._secret_since = secret, now
        nonce = self._random(CookieReply.NONCE_LENGTH)
        sealed = xchacha20poly1305.encrypt(
            self._cookie_key,
            nonce,
            _mac(secret, source),
            bytes(data[-_MACS_LENGTH:-MAC_LENGTH]),
        )
        sender = int.from_bytes(data[4:8], "little")
        return CookieReply(receiver=sender, nonce=nonce, encrypted_cookie=sealed)

    def _secret_at(self, now: float) -> bytes | None:
        # A clock that stepped back makes the age unknown: as good as old.
        if 0 <= now - self._secret_since < COOKIE_SECRET_LIFETIME:
            return self._secret
        return None


class MacGenerator:
    """The sending side: puts MACs on our messages to one peer, and keeps the peer's cookie.

    `now` is in seconds of a monotonic clock.
    """

    __slots__ = ("_cookie", "_cookie_key", "_cookie_since", "_last_mac1", "_mac1_key")

    def __init__(self, remote_public_key: PublicKey) -> None:
        self._mac1_key = mac1_key(remote_public_key)
        self._cookie_key = _cookie_key(remote_public_key)
        self._cookie: bytes | None = None
        self._cookie_since = 0.0
        self._last_mac1: bytes | None = None

    def add_macs(self, data: Bytes, now: float) -> bytes:
        """Return the message with its last 32 bytes replaced by mac1 and mac2.

        mac2 is zero when there is no cookie younger than 115 s. Raises ValueError on a message
        too short to have MACs.
        """
        if len(data) < _SHORTEST:
            raise ValueError(f"no handshake message is {len(data)} bytes long")
        body = bytes(data[:-_MACS_LENGTH])
        first = _mac(self._mac1_key, body)
        body += first
        self._last_mac1 = first
        if self._cookie is None:
            return body + NO_MAC
        if not 0 <= now - self._cookie_since < COOKIE_LIFETIME:
            self._cookie = None
            return body + NO_MAC
        return body + _mac(self._cookie, body)

    def consume_cookie_reply_untrusted(self, reply: CookieReply, now: float) -> None:
        """Keep the cookie for the messages to come. Raises CookieError only.

        The reply must answer the last message that `add_macs` saw, and does so once. A refused
        one changes nothing. Whether `reply.receiver` is the index of that message is for the
        caller to check.
        """
        if self._last_mac1 is None:
            raise CookieError(CookieFault.NOT_EXPECTED, "no message of ours awaits a cookie")
        try:
            cookie = xchacha20poly1305.decrypt(
                self._cookie_key, reply.nonce, reply.encrypted_cookie, self._last_mac1
            )
        except InvalidTag:
            raise CookieError(
                CookieFault.AUTHENTICATION, "the cookie is not of this peer for our last message"
            ) from None
        self._cookie, self._cookie_since = cookie, now
        # A copy of this reply must not make the cookie look younger than it is.
        self._last_mac1 = None


def _cookie_key(public_key: PublicKey) -> bytes:
    return hashlib.blake2s(_LABEL_COOKIE + bytes(public_key)).digest()


def _mac(key: bytes, data: Bytes) -> bytes:
    return hashlib.blake2s(data, digest_size=MAC_LENGTH, key=key).digest()
