"""The four messages: every offset on the wire, and what is not one of them."""

import pytest

from crypto.messages import (
    CookieReply,
    HandshakeInitiation,
    HandshakeResponse,
    MessageError,
    MessageFault,
    TransportHeader,
)

Kind = (
    type[HandshakeInitiation] | type[HandshakeResponse] | type[CookieReply] | type[TransportHeader]
)


def fill(start: int, length: int) -> bytes:
    return bytes((start + i) % 256 for i in range(length))


INITIATION = HandshakeInitiation(
    sender=0x01020304,
    ephemeral=fill(10, 32),
    encrypted_static=fill(50, 48),
    encrypted_timestamp=fill(100, 28),
    mac1=fill(150, 16),
    mac2=fill(200, 16),
)
RESPONSE = HandshakeResponse(
    sender=0x01020304,
    receiver=0x0A0B0C0D,
    ephemeral=fill(10, 32),
    encrypted_nothing=fill(50, 16),
    mac1=fill(150, 16),
    mac2=fill(200, 16),
)
COOKIE = CookieReply(receiver=0x0A0B0C0D, nonce=fill(10, 24), encrypted_cookie=fill(50, 32))
TRANSPORT = TransportHeader(receiver=0x0A0B0C0D, counter=0x0102030405060708)


def test_initiation_on_the_wire() -> None:
    wire = INITIATION.emit()
    assert len(wire) == HandshakeInitiation.LENGTH == 148
    assert wire[0:4] == b"\1\0\0\0"
    assert wire[4:8] == b"\4\3\2\1"
    assert wire[8:40] == INITIATION.ephemeral
    assert wire[40:88] == INITIATION.encrypted_static
    assert wire[88:116] == INITIATION.encrypted_timestamp
    assert wire[116:132] == INITIATION.mac1
    assert wire[132:148] == INITIATION.mac2
    assert HandshakeInitiation.parse_untrusted(wire) == INITIATION


def test_response_on_the_wire() -> None:
    wire = RESPONSE.emit()
    assert len(wire) == HandshakeResponse.LENGTH == 92
    assert wire[0:4] == b"\2\0\0\0"
    assert wire[4:8] == b"\4\3\2\1"
    assert wire[8:12] == b"\x0d\x0c\x0b\x0a"
    assert wire[12:44] == RESPONSE.ephemeral
    assert wire[44:60] == RESPONSE.encrypted_nothing
    assert wire[60:76] == RESPONSE.mac1
    assert wire[76:92] == RESPONSE.mac2
    assert HandshakeResponse.parse_untrusted(wire) == RESPONSE


def test_cookie_reply_on_the_wire() -> None:
    wire = COOKIE.emit()
    assert len(wire) == CookieReply.LENGTH == 64
    assert wire[0:4] == b"\3\0\0\0"
    assert wire[4:8] == b"\x0d\x0c\x0b\x0a"
    assert wire[8:32] == COOKIE.nonce
    assert wire[32:64] == COOKIE.encrypted_cookie
    assert CookieReply.parse_untrusted(wire) == COOKIE


def test_transport_header_on_the_wire() -> None:
    wire = TRANSPORT.emit()
    assert len(wire) == TransportHeader.LENGTH == 16
    assert wire[0:4] == b"\4\0\0\0"
    assert wire[4:8] == b"\x0d\x0c\x0b\x0a"
    assert wire[8:16] == b"\x08\7\6\5\4\3\2\1"
    assert TransportHeader.parse_untrusted(wire + bytes(16)) == TRANSPORT
    assert TransportHeader.parse_untrusted(wire + bytes(2000)) == TRANSPORT


WIRES: list[tuple[Kind, bytes]] = [
    (HandshakeInitiation, INITIATION.emit()),
    (HandshakeResponse, RESPONSE.emit()),
    (CookieReply, COOKIE.emit()),
    (TransportHeader, TRANSPORT.emit() + bytes(16)),
]
each = pytest.mark.parametrize(("kind", "wire"), WIRES, ids=[k.__name__ for k, _ in WIRES])


@each
def test_every_kind_of_buffer_is_read(kind: Kind, wire: bytes) -> None:
    expected = kind.parse_untrusted(wire)
    assert kind.parse_untrusted(bytearray(wire)) == expected
    # A view into a larger, reused buffer: what was read must not change with the buffer.
    buffer = bytearray(b"xx" + wire + b"yy")
    parsed = kind.parse_untrusted(memoryview(buffer)[2:-2])
    buffer[:] = bytes(len(buffer))
    assert parsed == expected


@each
def test_wrong_lengths_are_refused(kind: Kind, wire: bytes) -> None:
    lengths = {*range(len(wire))}
    if kind is not TransportHeader:
        lengths |= {len(wire) + 1, len(wire) + 16, 65535}
    for length in lengths:
        with pytest.raises(MessageError, match=f"found {length}") as caught:
            kind.parse_untrusted((wire + bytes(65535))[:length])
        assert caught.value.fault is MessageFault.LENGTH


@each
def test_other_types_are_refused(kind: Kind, wire: bytes) -> None:
    for other in set(range(256)) - {kind.TYPE}:
        with pytest.raises(MessageError) as caught:
            kind.parse_untrusted(bytes((other,)) + wire[1:])
        assert caught.value.fault is MessageFault.TYPE


@each
@pytest.mark.parametrize("place", [1, 2, 3])
def test_reserved_bytes_must_be_zero(kind: Kind, wire: bytes, place: int) -> None:
    for value in (1, 0x80, 0xFF):
        damaged = bytearray(wire)
        damaged[place] = value
        with pytest.raises(MessageError) as caught:
            kind.parse_untrusted(damaged)
        assert caught.value.fault is MessageFault.RESERVED


def test_fields_of_the_wrong_size_are_never_padded_or_cut() -> None:
    with pytest.raises(ValueError, match="ephemeral is 32 bytes long, found 31"):
        HandshakeInitiation(0, bytes(31), bytes(48), bytes(28))
    with pytest.raises(ValueError, match="encrypted_nothing"):
        HandshakeResponse(0, 0, bytes(32), bytes(17))
    with pytest.raises(ValueError, match="nonce"):
        CookieReply(0, bytes(12), bytes(32))
    with pytest.raises(ValueError, match="32-bit"):
        TransportHeader(1 << 32, 0)
    with pytest.raises(ValueError, match="64-bit"):
        TransportHeader(0, 1 << 64)
    assert TransportHeader(0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF).emit()[4:] == b"\xff" * 12
