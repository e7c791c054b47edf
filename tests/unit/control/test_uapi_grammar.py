"""The lines of a `set`: what they are read as, and which are refused with what."""

from __future__ import annotations

import errno
from ipaddress import ip_network

import pytest

from tests.support.uapi_device import PRIVATE, PUBLIC_1, PUBLIC_2, ZERO
from tunnel.config import PresharedKey, PrivateKey, PublicKey
from tunnel.control.uapi_changes import (
    DeviceChange,
    PeerChange,
    ReplacePeers,
    SetFwmark,
    SetListenPort,
    SetPrivateKey,
)
from tunnel.control.uapi_grammar import Parser, UapiError
from tunnel.io.endpoint import Endpoint
from tunnel.protocol import pack


def parse(*lines: str) -> list[DeviceChange]:
    parser = Parser()
    for line in lines:
        parser.feed_untrusted(line)
    return parser.changes


def network(text: str) -> int:
    found = ip_network(text)
    return pack(found.version, int(found.network_address), found.prefixlen)


def peer_of(*lines: str) -> PeerChange:
    (change,) = parse(f"public_key={PUBLIC_1}", *lines)
    assert isinstance(change, PeerChange)
    return change


def test_everything_is_read_in_order() -> None:
    assert parse(
        f"private_key={PRIVATE}",
        "listen_port=51820",
        "fwmark=4294967295",
        "replace_peers=true",
        f"public_key={PUBLIC_1}",
        f"preshared_key={'ab' * 32}",
        "endpoint=192.0.2.1:51820",
        "persistent_keepalive_interval=25",
        "replace_allowed_ips=true",
        "allowed_ip=10.0.0.0/8",
        "allowed_ip=fd00::/8",
        "protocol_version=1",
        f"public_key={PUBLIC_2}",
        "remove=true",
        "update_only=true",
    ) == [
        SetPrivateKey(PrivateKey.from_hex(PRIVATE)),
        SetListenPort(51820),
        SetFwmark(0xFFFF_FFFF),
        ReplacePeers(),
        PeerChange(
            PublicKey.from_hex(PUBLIC_1),
            preshared_key=PresharedKey.from_hex("ab" * 32),
            endpoint=Endpoint(bytes([192, 0, 2, 1]), 51820),
            persistent_keepalive=25,
            replace_allowed_ips=True,
            allowed_ips={network("10.0.0.0/8"): True, network("fd00::/8"): True},
        ),
        PeerChange(PublicKey.from_hex(PUBLIC_2), remove=True, update_only=True),
    ]


def test_zeros_clear_the_private_key() -> None:
    assert parse(f"private_key={ZERO}") == [SetPrivateKey(None)]


def test_host_bits_of_an_allowed_ip_do_not_matter() -> None:
    assert peer_of("allowed_ip=10.1.2.3/8").allowed_ips == {network("10.0.0.0/8"): True}
    assert peer_of("allowed_ip=fd00::5/64").allowed_ips == {network("fd00::/64"): True}


def test_last_mention_of_an_allowed_ip_counts() -> None:
    change = peer_of("allowed_ip=10.0.0.0/8", "allowed_ip=-10.0.0.0/8", "allowed_ip=-fd00::/8")
    assert change.allowed_ips == {network("10.0.0.0/8"): False, network("fd00::/8"): False}
    change = peer_of("allowed_ip=10.0.0.0/8", "replace_allowed_ips=true", "allowed_ip=10.0.0.0/9")
    assert change.allowed_ips == {network("10.0.0.0/9"): True}
    assert change.replace_allowed_ips


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("192.0.2.1:1", Endpoint(bytes([192, 0, 2, 1]), 1)),
        ("[2001:db8::1]:65535", Endpoint(b"\x20\x01\x0d\xb8" + bytes(11) + b"\1", 65535)),
        ("[fe80::1%7]:9", Endpoint(b"\xfe\x80" + bytes(13) + b"\1", 9, scope_id=7)),
        ("[fe80::1%lo]:9", Endpoint(b"\xfe\x80" + bytes(13) + b"\1", 9, scope_id=1)),
        ("[::ffff:192.0.2.1]:9", Endpoint(bytes([192, 0, 2, 1]), 9)),
    ],
)
def test_endpoints(text: str, endpoint: Endpoint) -> None:
    assert peer_of(f"endpoint={text}").endpoint == endpoint


@pytest.mark.parametrize(
    "line",
    [
        "private_key=",
        f"private_key={PRIVATE[:-1]}",
        f"private_key={PRIVATE}0",
        f"private_key={'g' * 64}",
        f"public_key={'0' * 62}",
        "listen_port=",
        "listen_port=65536",
        "listen_port=-1",
        "listen_port=+1",
        "listen_port= 1",
        "listen_port=1.0",
        "listen_port=0x10",
        "listen_port=\xb2",
        "fwmark=4294967296",
        "fwmark=99999999999999999999",
        "replace_peers=false",
        "replace_peers=1",
        "replace_peers=",
        "unknown=1",
        "=",
        "=1",
        "endpoint=192.0.2.1:1",
        "allowed_ip=10.0.0.0/8",
        "remove=true",
        f"Private_key={PRIVATE}",
        f" private_key={PRIVATE}",
        f"private_key={'0' * 2000}",
    ],
)
def test_device_lines_refused_as_invalid(line: str) -> None:
    with pytest.raises(UapiError) as refused:
        parse(line)
    assert refused.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    "line",
    [
        "remove=false",
        "remove=True",
        "update_only=yes",
        "replace_allowed_ips=",
        f"preshared_key={PRIVATE[:-2]}",
        "endpoint=",
        "endpoint=192.0.2.1",
        "endpoint=192.0.2.1:",
        "endpoint=192.0.2.1:0",
        "endpoint=192.0.2.1:65536",
        "endpoint=192.0.2.256:1",
        "endpoint=2001:db8::1:5",
        "endpoint=[192.0.2.1]:5",
        "endpoint=[2001:db8::1]5",
        "endpoint=[fe80::1%no-such-if]:5",
        "endpoint=[fe80::1%99999999999]:5",
        "endpoint=example.com:5",
        "endpoint=:5",
        "persistent_keepalive_interval=65536",
        "persistent_keepalive_interval=off",
        "allowed_ip=",
        "allowed_ip=10.0.0.1",
        "allowed_ip=10.0.0.0/33",
        "allowed_ip=10.0.0/8",
        "allowed_ip=fd00::/129",
        "allowed_ip=fd00::/",
        "allowed_ip=/8",
        "allowed_ip=--10.0.0.0/8",
        "allowed_ip=+10.0.0.0/8",
        "allowed_ip=10.0.0.0/-1",
        "allowed_ip=10.0.0.0/8/8",
        "allowed_ip=10.0.0.0\0/8",
        "allowed_ip=\xe9/8",
        "protocol_version=2",
        "protocol_version=",
        "listen_port=1",
        "replace_peers=true",
        f"private_key={PRIVATE}",
    ],
)
def test_peer_lines_refused_as_invalid(line: str) -> None:
    with pytest.raises(UapiError) as refused:
        peer_of(line)
    assert refused.value.errno == errno.EINVAL


@pytest.mark.parametrize("before", [(), (f"public_key={PUBLIC_1}",)])
def test_a_line_without_equals_sign_is_a_matter_of_protocol(before: tuple[str, ...]) -> None:
    with pytest.raises(UapiError) as refused:
        parse(*before, "listen_port")
    assert refused.value.errno == errno.EPROTO


def test_no_refusal_repeats_a_key() -> None:
    for line in (f"private_key={PRIVATE[:-1]}", f"private_key={PRIVATE}f"):
        with pytest.raises(UapiError) as refused:
            parse(line)
        assert PRIVATE[:8] not in str(refused.value)


@pytest.mark.parametrize(
    "line",
    [
        "{key}=",
        "{key}==",
        "endpoint={key}:1",
        "endpoint=[{key}]:1",
        "endpoint=[fe80::1%{key}]:1",
        "preshared_key={key}",
        "allowed_ip={key}/3",
        "persistent_keepalive_interval={key}",
        "protocol_version={key}",
        "remove={key}",
    ],
)
def test_no_refusal_quotes_a_value(line: str) -> None:
    """They are logged, and what stands in the wrong place may be a key."""
    key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    for lines in ([f"public_key={PUBLIC_1}", line], [line]):
        with pytest.raises(UapiError) as refused:
            parse(*(text.format(key=key) for text in lines))
        assert key not in str(refused.value)


def test_a_key_that_may_be_a_slip_is_named() -> None:
    with pytest.raises(UapiError, match="not a key of a peer: 'keepalive'"):
        parse(f"public_key={PUBLIC_1}", "keepalive=25")
    with pytest.raises(UapiError, match="not a key of a device: 'mark'"):
        parse("mark=25")
