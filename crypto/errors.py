"""Everything the crypto room raises on purpose, in one family.

A function whose name ends in `_untrusted` raises exactly one of these, and each carries a
`fault`: a closed, countable reason, so that a caller can drop the packet under a name.
"""

from enum import StrEnum


class CryptoError(Exception):
    """The family: every deliberate error of this room derives from it."""


class KeyFormatError(CryptoError, ValueError):
    """A key's text or bytes are not a key. The message never repeats what was found."""


class LowOrderPoint(CryptoError):  # noqa: N818 - the name of the thing, as the literature has it
    """A Diffie-Hellman result was all zeros: the public key is one of the low-order points."""


class MessageFault(StrEnum):
    """Why bytes are not one of the four messages."""

    LENGTH = "message-length"
    TYPE = "message-type"
    RESERVED = "message-reserved-bytes"


class MessageError(CryptoError):
    """Bytes that are not the WireGuard message they were read as."""

    def __init__(self, fault: MessageFault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault


class HandshakeFault(StrEnum):
    """Why a handshake message was refused, or could not be made."""

    AUTHENTICATION = "handshake-authentication"
    LOW_ORDER = "handshake-low-order-point"
    WRONG_RECEIVER = "handshake-wrong-receiver"
    NOT_PENDING = "handshake-not-pending"


class HandshakeError(CryptoError):
    """A handshake message that does not belong to this handshake, or is forged or damaged."""

    def __init__(self, fault: HandshakeFault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault


class MacFault(StrEnum):
    """Which of the two message authentication codes failed."""

    MAC1 = "mac1"
    MAC2 = "mac2"


class MacError(CryptoError):
    """mac1 or mac2 of a handshake message is not what we would have put there."""

    def __init__(self, fault: MacFault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault


class CookieFault(StrEnum):
    """Why a cookie reply was refused."""

    NOT_EXPECTED = "cookie-not-expected"
    AUTHENTICATION = "cookie-authentication"


class CookieError(CryptoError):
    """A cookie reply that answers nothing we sent, or is forged or damaged."""

    def __init__(self, fault: CookieFault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault
