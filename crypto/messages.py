"""The four messages on the wire (whitepaper, 5.4): field offsets, a checked parse, an emit.

Every message starts with its type in one byte and three reserved zero bytes; all integers
are little-endian.

    1 initiation  type 4 | sender 4 | ephemeral 32 | static 32+16 | timestamp 12+16 | mac1 | mac2
    2 response    type 4 | sender 4 | receiver 4 | ephemeral 32 | nothing 0+16 | mac1 | mac2
    3 cookie      type 4 | receiver 4 | nonce 24 | cookie 16+16
    4 transport   type 4 | receiver 4 | counter 8 | payload n+16

A parse checks the form only; that any of it is genuine is for `cookies` and `handshake`.
"""

import struct
from dataclasses import dataclass
from typing import ClassVar, Final, Self

from crypto.errors import MessageError, MessageFault

__all__ = [
    "MAC_LENGTH",
    "NO_MAC",
    "TAG_LENGTH",
    "Bytes",
    "CookieReply",
    "HandshakeInitiation",
    "HandshakeResponse",
    "MessageError",
    "MessageFault",
    "TransportHeader",
]

Bytes = bytes | bytearray | memoryview

MAC_LENGTH: Final = 16
TAG_LENGTH: Final = 16
NO_MAC: Final = bytes(MAC_LENGTH)

# The type byte and the reserved three, read as one little-endian integer.
_INITIATION: Final = struct.Struct("<II32s48s28s16s16s")
_RESPONSE: Final = struct.Struct("<III32s16s16s16s")
_COOKIE_REPLY: Final = struct.Struct("<II24s32s")
_TRANSPORT: Final = struct.Struct("<IIQ")


def _check_form(data: Bytes, message_type: int, name: str, length: int, *, exact: bool) -> None:
    """Raise MessageError unless `data` has the length, type and reserved bytes of a message."""
    if len(data) != length if exact else len(data) < length:
        expected = f"{length}" if exact else f"at least {length}"
        raise MessageError(
            MessageFault.LENGTH, f"a {name} is {expected} bytes long, found {len(data)}"
        )
    if data[0] != message_type:
        raise MessageError(
            MessageFault.TYPE, f"a {name} has message type {message_type}, found {data[0]}"
        )
    if data[1] or data[2] or data[3]:
        raise MessageError(MessageFault.RESERVED, f"the reserved bytes of a {name} are not zero")


def _check_index(index: int) -> None:
    if not 0 <= index <= 0xFFFF_FFFF:
        raise ValueError(f"an index is an unsigned 32-bit number, found {index}")


def _check_length(field: str, value: bytes, length: int) -> None:
    # struct would pad or cut in silence.
    if len(value) != length:
        raise ValueError(f"{field} is {length} bytes long, found {len(value)}")


@dataclass(frozen=True, slots=True)
class HandshakeInitiation:
    """Message 1. The constructor raises ValueError on a field of the wrong size."""

    TYPE: ClassVar[int] = 1
    LENGTH: ClassVar[int] = 148

    sender: int
    ephemeral: bytes
    encrypted_static: bytes
    encrypted_timestamp: bytes
    mac1: bytes = NO_MAC
    mac2: bytes = NO_MAC

    def __post_init__(self) -> None:
        _check_index(self.sender)
        _check_length("ephemeral", self.ephemeral, 32)
        _check_length("encrypted_static", self.encrypted_static, 32 + TAG_LENGTH)
        _check_length("encrypted_timestamp", self.encrypted_timestamp, 12 + TAG_LENGTH)
        _check_length("mac1", self.mac1, MAC_LENGTH)
        _check_length("mac2", self.mac2, MAC_LENGTH)

    def emit(self) -> bytes:
        """Return the 148 bytes of the message."""
        return _INITIATION.pack(
            self.TYPE,
            self.sender,
            self.ephemeral,
            self.encrypted_static,
            self.encrypted_timestamp,
            self.mac1,
            self.mac2,
        )

    @classmethod
    def parse_untrusted(cls, data: Bytes) -> Self:
        """Read a whole datagram. Raises MessageError only."""
        _check_form(data, cls.TYPE, "handshake initiation", cls.LENGTH, exact=True)
        return cls(*_INITIATION.unpack(data)[1:])


@dataclass(frozen=True, slots=True)
class HandshakeResponse:
    """Message 2. The constructor raises ValueError on a field of the wrong size."""

    TYPE: ClassVar[int] = 2
    LENGTH: ClassVar[int] = 92

    sender: int
    receiver: int
    ephemeral: bytes
    encrypted_nothing: bytes
    mac1: bytes = NO_MAC
    mac2: bytes = NO_MAC

    def __post_init__(self) -> None:
        _check_index(self.sender)
        _check_index(self.receiver)
        _check_length("ephemeral", self.ephemeral, 32)
        _check_length("encrypted_nothing", self.encrypted_nothing, TAG_LENGTH)
        _check_length("mac1", self.mac1, MAC_LENGTH)
        _check_length("mac2", self.mac2, MAC_LENGTH)

    def emit(self) -> bytes:
        """Return the 92 bytes of the message."""
        return _RESPONSE.pack(
            self.TYPE,
            self.sender,
            self.receiver,
            self.ephemeral,
            self.encrypted_nothing,
            self.mac1,
            self.mac2,
        )

    @classmethod
    def parse_untrusted(cls, data: Bytes) -> Self:
        """Read a whole datagram. Raises MessageError only."""
        _check_form(data, cls.TYPE, "handshake response", cls.LENGTH, exact=True)
        return cls(*_RESPONSE.unpack(data)[1:])


@dataclass(frozen=True, slots=True)
class CookieReply:
    """Message 3. The constructor raises ValueError on a field of the wrong size."""

    TYPE: ClassVar[int] = 3
    LENGTH: ClassVar[int] = 64
    NONCE_LENGTH: ClassVar[int] = 24

    receiver: int
    nonce: bytes
    encrypted_cookie: bytes

    def __post_init__(self) -> None:
        _check_index(self.receiver)
        _check_length("nonce", self.nonce, self.NONCE_LENGTH)
        _check_length("encrypted_cookie", self.encrypted_cookie, MAC_LENGTH + TAG_LENGTH)

    def emit(self) -> bytes:
        """Return the 64 bytes of the message."""
        return _COOKIE_REPLY.pack(self.TYPE, self.receiver, self.nonce, self.encrypted_cookie)

    @classmethod
    def parse_untrusted(cls, data: Bytes) -> Self:
        """Read a whole datagram. Raises MessageError only."""
        _check_form(data, cls.TYPE, "cookie reply", cls.LENGTH, exact=True)
        return cls(*_COOKIE_REPLY.unpack(data)[1:])


@dataclass(frozen=True, slots=True)
class TransportHeader:
    """The head of message 4; the sealed payload follows it in the datagram."""

    TYPE: ClassVar[int] = 4
    LENGTH: ClassVar[int] = 16
    # A keepalive seals nothing and still has its tag.
    MINIMUM_DATAGRAM: ClassVar[int] = LENGTH + TAG_LENGTH

    receiver: int
    counter: int

    def __post_init__(self) -> None:
        _check_index(self.receiver)
        if not 0 <= self.counter <= 0xFFFF_FFFF_FFFF_FFFF:
            raise ValueError(f"a counter is an unsigned 64-bit number, found {self.counter}")

    def emit(self) -> bytes:
        """Return the 16 bytes before the sealed payload."""
        return _TRANSPORT.pack(self.TYPE, self.receiver, self.counter)

    @classmethod
    def parse_untrusted(cls, data: Bytes) -> Self:
        """Read the head of a whole datagram of at least 32 bytes. Raises MessageError only."""
        _check_form(data, cls.TYPE, "transport message", cls.MINIMUM_DATAGRAM, exact=False)
        return cls(*_TRANSPORT.unpack_from(data)[1:])
