"""Whatever the bytes: the crypto room raises its own error or nothing, and reads what it wrote."""

import contextlib

from hypothesis import example, given
from hypothesis import strategies as st

from crypto import tai64n
from crypto.cookies import CookieError, MacChecker, MacError, MacGenerator
from crypto.handshake import HandshakeError, Initiator, Responder
from crypto.keys import KeyFormatError, PresharedKey, PrivateKey, PublicKey
from crypto.messages import (
    CookieReply,
    HandshakeInitiation,
    HandshakeResponse,
    MessageError,
    TransportHeader,
)

KINDS = (HandshakeInitiation, HandshakeResponse, CookieReply, TransportHeader)
STATIC = PrivateKey(bytes([1]) * 32)
PEER = PrivateKey(bytes([2]) * 32)

key_bytes = st.binary(min_size=32, max_size=32)
index = st.integers(0, 0xFFFF_FFFF)


def exactly(length: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=length, max_size=length)


initiations = st.builds(
    HandshakeInitiation,
    sender=index,
    ephemeral=exactly(32),
    encrypted_static=exactly(48),
    encrypted_timestamp=exactly(28),
    mac1=exactly(16),
    mac2=exactly(16),
)
responses = st.builds(
    HandshakeResponse,
    sender=index,
    receiver=index,
    ephemeral=exactly(32),
    encrypted_nothing=exactly(16),
    mac1=exactly(16),
    mac2=exactly(16),
)
cookie_replies = st.builds(
    CookieReply, receiver=index, nonce=exactly(24), encrypted_cookie=exactly(32)
)
headers = st.builds(TransportHeader, receiver=index, counter=st.integers(0, 2**64 - 1))

# Bytes that get past the length and the type often enough to reach what lies behind.
datagrams = st.one_of(
    st.binary(max_size=200),
    st.builds(
        lambda kind, length, fill: bytes((kind, 0, 0, 0)) + fill[: length - 4],
        st.integers(0, 5),
        st.sampled_from([4, 16, 31, 32, 63, 64, 65, 91, 92, 93, 147, 148, 149]),
        exactly(200),
    ),
)


@given(datagrams)
def test_parsers_raise_their_error_or_return_what_emits_the_same(data: bytes) -> None:
    for kind in KINDS:
        try:
            message = kind.parse_untrusted(data)
        except MessageError:
            continue
        emitted = message.emit()
        assert emitted == data[: len(emitted)]
        if kind is not TransportHeader:
            assert len(emitted) == len(data)


@given(st.one_of(initiations, responses, cookie_replies))
def test_messages_round_trip(
    message: HandshakeInitiation | HandshakeResponse | CookieReply,
) -> None:
    assert len(message.emit()) == message.LENGTH
    assert type(message).parse_untrusted(message.emit()) == message


@given(headers, st.binary(min_size=16, max_size=64))
def test_transport_headers_round_trip(header: TransportHeader, sealed: bytes) -> None:
    assert TransportHeader.parse_untrusted(header.emit() + sealed) == header


@given(initiations)
def test_no_random_initiation_is_accepted(message: HandshakeInitiation) -> None:
    with contextlib.suppress(HandshakeError):
        Responder.consume_initiation_untrusted(message, static=STATIC)
        raise AssertionError("accepted")


@given(responses, st.booleans())
def test_no_random_response_is_accepted(message: HandshakeResponse, ours: bool) -> None:
    side = Initiator(
        static=STATIC, remote_static=PEER.public_key(), preshared_key=PresharedKey.ZERO
    )
    sender = message.receiver if ours else 0
    side.create_initiation(
        ephemeral=PrivateKey(bytes([3]) * 32), sender=sender, timestamp=tai64n.encode(0)
    )
    with contextlib.suppress(HandshakeError):
        side.consume_response_untrusted(message)
        raise AssertionError("accepted")
    assert side.pending_index == sender


@given(cookie_replies)
def test_no_random_cookie_is_accepted(reply: CookieReply) -> None:
    generator = MacGenerator(PEER.public_key())
    sent = generator.add_macs(bytes(148), 0.0)
    with contextlib.suppress(CookieError):
        generator.consume_cookie_reply_untrusted(reply, 0.0)
        raise AssertionError("accepted")
    assert generator.add_macs(bytes(148), 0.0) == sent


@given(st.binary(max_size=200), st.binary(max_size=18))
def test_no_random_mac_is_accepted(data: bytes, source: bytes) -> None:
    checker = MacChecker(STATIC.public_key(), random=bytes)
    genuine = MacGenerator(STATIC.public_key()).add_macs(bytes(148), 0.0)
    checker.create_cookie_reply(genuine, source, 0.0)
    with contextlib.suppress(MacError):
        checker.check_mac1(data)
        raise AssertionError("accepted")
    with contextlib.suppress(MacError):
        checker.check_mac2(data, source, 0.0)
        raise AssertionError("accepted")


@given(key_bytes)
def test_key_texts_round_trip(raw: bytes) -> None:
    for kind in (PublicKey, PrivateKey, PresharedKey):
        key = kind.from_bytes(raw)
        assert kind.from_base64(key.to_base64()) == key
        assert kind.from_hex(key.to_hex()) == key


@given(st.one_of(st.text(max_size=70), st.text("AQgwB+/= \n-_", min_size=44, max_size=44)))
@example("A" * 43 + "=")
@example("A" * 42 + "==")
def test_key_texts_are_refused_or_are_the_only_spelling(text: str) -> None:
    with contextlib.suppress(KeyFormatError):
        assert PublicKey.from_base64(text).to_base64() == text
    with contextlib.suppress(KeyFormatError):
        assert PublicKey.from_hex(text).to_hex() == text.lower()


@given(st.integers(-(2**62), 2**63))
def test_timestamps_round_trip_up_to_the_whitening(unix_ns: int) -> None:
    assert 0 <= unix_ns - tai64n.decode(tai64n.encode(unix_ns)) < 1 << 24


@given(st.integers(-(2**62), 2**63), st.integers(-(2**62), 2**63))
def test_timestamps_keep_order(first: int, second: int) -> None:
    if first <= second:
        assert tai64n.encode(first) <= tai64n.encode(second)


@given(exactly(12))
def test_any_timestamp_decodes(raw: bytes) -> None:
    assert isinstance(tai64n.decode(raw), int)
