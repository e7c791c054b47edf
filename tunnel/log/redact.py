"""Key material is hidden, and texts are made safe to print.

A line of the log may hold the name of a peer, what a hook printed or a line of a file. Such text
must control neither the terminal nor the journal, and no key may get out by mistake.
"""

from __future__ import annotations

import binascii
import os
import re
from collections.abc import Container, Iterable
from hashlib import blake2b
from typing import Final

HIDDEN: Final = "(hidden)"

GENERATION: Final = 150_000
"""Secrets of one kind that are certainly known, the latest ones; at most twice as many are."""

# The name of a private or preshared key, a separator, and 32 bytes in base64 or hex. A public key
# looks the same and is no secret: only the name before it makes the difference.
_NAMED_KEY = re.compile(
    r"((?:private|preshared|pre-shared|psk|secret)[^\n]{0,12}?[\s:='\"]+)"
    r"(?:[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=|[0-9A-Fa-f]{64})",
    re.IGNORECASE,
)

_ANY_KEY = re.compile(r"[A-Za-z0-9+/]{43}=|[0-9A-Fa-f]{64}")

# Without its `=`, as when a shell puts that elsewhere, a key must be a word of its own: there are
# paths of that length.
_KEY_WORD = re.compile(
    _ANY_KEY.pattern + r"|(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048](?![A-Za-z0-9+/])"
)


class KnownSecrets:
    """A set of keys of bounded size, about 18 MB. Holds hashes under a random key, not the keys."""

    def __init__(self) -> None:
        self._hash_key = os.urandom(32)
        self._new: set[int] = set()
        self._old: set[int] = set()

    def __contains__(self, secret: bytes) -> bool:
        digest = self._digest(secret)
        return digest in self._new or digest in self._old

    def add(self, secret: bytes) -> None:
        """Know `secret`. The set forgets those not added since GENERATION others were."""
        self._new.add(self._digest(secret))
        if len(self._new) >= GENERATION:
            self._old, self._new = self._new, set()

    def _digest(self, secret: bytes) -> int:
        # 56 bits: an int of two digits. Among so many a false match has odds of 1 to 10^11.
        return int.from_bytes(blake2b(secret, digest_size=7, key=self._hash_key).digest(), "big")


# Apart, so that programs that change preshared keys every minute never push out a private key.
_private = KnownSecrets()
_preshared = KnownSecrets()


def hide(secrets: Iterable[bytes], *, private: bool = False) -> None:
    """Keep these keys (32 bytes each) out of the log of this process, in base64 and in hex.

    With `private` they are private keys, else preshared keys; see GENERATION for how many.
    """
    known = _private if private else _preshared
    for secret in secrets:
        known.add(bytes(secret))


def redact(text: str) -> str:
    """`text` with key material hidden: secrets given to `hide`, and what is named like one."""
    text = _ANY_KEY.sub(_hidden_if_secret, text)
    return _NAMED_KEY.sub(rf"\g<1>{HIDDEN}", text)


def redact_keys(text: str, public: Container[bytes]) -> str:
    """`text` with everything hidden that looks like a key, except `public` ones (32 bytes each).

    For what others wrote, such as a shell command: nothing there says of which kind a key is.
    """
    return _KEY_WORD.sub(lambda match: match[0] if _key_in(match) in public else HIDDEN, text)


def _hidden_if_secret(match: re.Match[str]) -> str:
    key = _key_in(match)
    return HIDDEN if key in _private or key in _preshared else match[0]


def _key_in(match: re.Match[str]) -> bytes:
    found = match[0]
    if len(found) == 64:
        return bytes.fromhex(found)
    return binascii.a2b_base64(found if found[-1] == "=" else f"{found}=")


def printable(text: str) -> str:
    r"""`text` without anything that a terminal acts upon, or that ends a line.

    Control characters, line separators, and marks that change the direction of writing become
    `\x1b` or `\u202e`.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    number = ord(character)
    if number <= 0xFF:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"
