"""The three kinds of 32-byte key: private, public, preshared.

Base64 is as strict as `wg` is (44 characters, canonical), so a key has exactly one spelling.
Secrets compare in constant time, are neither hashable nor picklable and show nothing of
themselves in repr, str or an error message: leaving must be asked for by `bytes(key)`,
`to_base64()` or `to_hex()`. CPython cannot wipe memory; dropping the last reference to a
secret is all that erasing it can mean here.
"""

import base64
import binascii
import hmac
import re
from typing import ClassVar, Final, NoReturn, Self

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from crypto.errors import KeyFormatError, LowOrderPoint

__all__ = [
    "KEY_LENGTH",
    "KeyFormatError",
    "LowOrderPoint",
    "PresharedKey",
    "PrivateKey",
    "PublicKey",
]

KEY_LENGTH: Final = 32
_BASE64_LENGTH: Final = 44
_HEX: Final = re.compile(r"[0-9a-fA-F]{64}")
_ZERO: Final = bytes(KEY_LENGTH)


class _Key:
    """32 bytes that cannot be changed."""

    __slots__ = ("_raw",)
    _raw: bytes
    _what: ClassVar[str]

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_LENGTH:
            raise KeyFormatError(f"a {self._what} is 32 bytes long, found {len(raw)}")
        object.__setattr__(self, "_raw", bytes(raw))

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Take `raw` (32 bytes). Raises KeyFormatError on any other length."""
        return cls(raw)

    @classmethod
    def from_base64(cls, text: str) -> Self:
        """Read the 44 characters `wg` prints. Raises KeyFormatError on any other text.

        Strict: no white space, the one `=` at the end, unused bits zero (wireguard-tools
        `encoding.c` refuses the same).
        """
        if len(text) != _BASE64_LENGTH:
            raise KeyFormatError(
                f"a {cls._what} is 44 characters of base64 ending in '=', "
                f"found {len(text)} characters"
            )
        raw = None
        if text.isascii():
            try:
                raw = base64.b64decode(text, validate=True)
            except binascii.Error:
                raw = None
        # Encoding again refuses what the decoder forgives: stray bits and inner padding.
        if raw is None or not hmac.compare_digest(base64.b64encode(raw), text.encode("ascii")):
            raise KeyFormatError(
                f"a {cls._what} is 44 characters of base64 ending in '=', "
                "found other characters or a damaged last one; copy the key again as `wg` prints it"
            )
        return cls(raw)

    @classmethod
    def from_hex(cls, text: str) -> Self:
        """Read 64 hexadecimal digits of either case, as the WireGuard UAPI writes keys.

        Raises KeyFormatError on any other text.
        """
        if _HEX.fullmatch(text) is None:
            raise KeyFormatError(
                f"a {cls._what} is 64 hexadecimal digits, found {len(text)} characters"
                + (" of which some are no such digit" if len(text) == 2 * KEY_LENGTH else "")
            )
        return cls(bytes.fromhex(text))

    def to_base64(self) -> str:
        """Spell the key as `wg` does: 44 characters."""
        return base64.b64encode(self._raw).decode("ascii")

    def to_hex(self) -> str:
        """Spell the key as the WireGuard UAPI does: 64 lower-case digits."""
        return self._raw.hex()

    def __bytes__(self) -> bytes:
        return self._raw

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return hmac.compare_digest(self._raw, other._raw)

    # A mutable key could change under the table it is a key of.
    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} cannot be changed")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} cannot be changed")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


class _SecretKey(_Key):
    """A key that must not slip out."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]  # a hash table compares in variable time

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<redacted>)"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} is secret and is not pickled")


class PublicKey(_Key):
    """A peer's name and Curve25519 point: hashable, shown as base64.

    Its 32 bytes are kept as given, since the handshake hashes them as given; X25519 itself
    ignores the top bit (RFC 7748, section 5).
    """

    __slots__ = ("_handle",)
    _handle: X25519PublicKey
    _what: ClassVar[str] = "public key"

    @property
    def point(self) -> X25519PublicKey:
        """As `cryptography` has it, made when it is first asked for."""
        try:
            return self._handle
        except AttributeError:
            handle = X25519PublicKey.from_public_bytes(self._raw)
            object.__setattr__(self, "_handle", handle)
            return handle

    @property
    def is_low_order(self) -> bool:
        """Whether every private key agrees on all zeros with it: nothing may be sent to it.

        Asked of X25519 itself and not of a list, so that non-canonical spellings of the
        seven points count too. Costs one Diffie-Hellman (about 50 µs).
        """
        try:
            _PROBE.exchange(self)
        except LowOrderPoint:
            return True
        return False

    def __hash__(self) -> int:
        return hash(self._raw)

    def __repr__(self) -> str:
        return f"PublicKey({self.to_base64()})"

    def __reduce__(self) -> tuple[type[Self], tuple[bytes]]:
        return type(self), (self._raw,)


class PrivateKey(_SecretKey):
    """A Curve25519 scalar, always clamped (RFC 7748, section 5), static or ephemeral.

    32 zero bytes mean "no private key" in `wg` and the UAPI: callers who follow that
    convention look for it before they come here, where it would be clamped to a key.
    """

    __slots__ = ("_handle", "_public")
    _handle: X25519PrivateKey
    _public: PublicKey
    _what: ClassVar[str] = "private key"

    def __init__(self, raw: bytes) -> None:
        super().__init__(raw)
        scalar = bytearray(self._raw)
        scalar[0] &= 0xF8
        scalar[31] = scalar[31] & 0x7F | 0x40
        handle = X25519PrivateKey.from_private_bytes(scalar)
        object.__setattr__(self, "_raw", bytes(scalar))
        object.__setattr__(self, "_handle", handle)
        # Loading the scalar has computed the point already, so keeping it is free.
        object.__setattr__(self, "_public", PublicKey(handle.public_key().public_bytes_raw()))

    @classmethod
    def from_random(cls, random32: bytes) -> Self:
        """Make a key of 32 bytes from a cryptographic random source, as `wg genkey` does.

        Raises KeyFormatError if they are not 32.
        """
        return cls(random32)

    def public_key(self) -> PublicKey:
        """Return the point that belongs to this scalar."""
        return self._public

    def exchange(self, public_key: PublicKey) -> bytes:
        """X25519 of the two (32 bytes). Raises LowOrderPoint if the result is all zeros."""
        try:
            shared = self._handle.exchange(public_key.point)
        except ValueError:
            shared = _ZERO  # the only failure OpenSSL has here
        if hmac.compare_digest(shared, _ZERO):
            raise LowOrderPoint("the public key is a low-order point and agrees on no secret")
        return shared


class PresharedKey(_SecretKey):
    """The optional symmetric secret of two peers (whitepaper, 5.4). All zeros mean none."""

    __slots__ = ()
    _what: ClassVar[str] = "preshared key"
    ZERO: ClassVar["PresharedKey"]

    @property
    def is_zero(self) -> bool:
        """Whether no preshared key is set."""
        return hmac.compare_digest(self._raw, _ZERO)


PresharedKey.ZERO = PresharedKey(_ZERO)
_PROBE: Final = PrivateKey(_ZERO)
