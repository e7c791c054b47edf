from __future__ import annotations

import errno
from ipaddress import ip_network

import pytest

from tunnel.control import uapi
from tunnel.control.uapi import DeviceChange, SetParser, UapiError

KEY = "ab" * 32
PEER = f"public_key={KEY}"


def parse(*lines: str) -> DeviceChange:
    parser = SetParser()
    for line in lines:
        parser.read_untrusted(line.encode())
    return parser.change


def test_every_key_of_a_device_and_of_peers() -> None:
    change = parse(
        f"private_key={KEY}",
        "listen_port=51820",
        "fwmark=4294967295",
        "replace_peers=true",
        PEER,
        "update_only=true",
        f"preshared_key={'00' * 32}",
        "endpoint=[fe80::1%7]:65535",
        "persistent_keepalive_interval=25",
        "replace_allowed_ips=true",
        "allowed_ip=10.1.2.3/8",
        "allowed_ip=-fd00::1/64",
        "allowed_ip=10.9.9.9",
        "protocol_version=1",
        f"public_key={'cd' * 32}",
        "remove=true",
        "endpoint=192.0.2.1:1",
    )
    assert change.private_key is not None
    assert not change.clear_private_key
    assert (change.listen_port, change.fwmark, change.replace_peers) == (51820, 0xFFFFFFFF, True)
    one, two = change.peers
    assert (one.update_only, one.remove, one.replace_allowed_ips) == (True, False, True)
    assert one.preshared_key is not None
    assert one.preshared_key.is_zero
    assert str(one.endpoint) == "[fe80::1%7]:65535"
    assert one.persistent_keepalive == 25
    assert one.allowed_ips == [
        (ip_network("10.0.0.0/8"), True),
        (ip_network("fd00::/64"), False),
        (ip_network("10.9.9.9/32"), True),
    ]
    assert (two.remove, str(two.endpoint)) == (True, "192.0.2.1:1")


def test_zeros_clear_the_private_key_and_an_empty_mark_is_none() -> None:
    change = parse(f"private_key={'0' * 64}", "fwmark=")
    assert (change.private_key, change.clear_private_key, change.fwmark) == (None, True, 0)


def test_replacing_allowed_ips_forgets_those_before() -> None:
    change = parse(PEER, "allowed_ip=10.0.0.0/8", "replace_allowed_ips=true", "allowed_ip=::/0")
    assert change.peers[0].allowed_ips == [(ip_network("::/0"), True)]


@pytest.mark.parametrize(
    "line",
    [
        f"private_key={KEY}0",
        f"private_key={'é' * 64}",
        f"private_key={'ab ' * 21}a",
        "listen_port=65536",
        "listen_port=-1",
        "listen_port=1_0",
        "listen_port=",
        "fwmark=4294967296",
        "replace_peers=false",
        "endpoint=192.0.2.1:1",
        "unknown=1",
        "=",
    ],
)
def test_bad_device_value(line: str) -> None:
    with pytest.raises(UapiError) as caught:
        parse(line)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    "line",
    [
        "remove=yes",
        "update_only=",
        "preshared_key=ab",
        "endpoint=localhost:1",
        "endpoint=192.0.2.1:0",
        "endpoint=192.0.2.1",
        "endpoint=fd00::1:1",
        "endpoint=[fd00::1:1",
        "endpoint=[fe80::1%no-such-link]:1",
        "endpoint=[fe80::1%4294967296]:1",
        "persistent_keepalive_interval=off",
        "allowed_ip=10.0.0.0/33",
        "allowed_ip=10.0.0.0/255.0.0.0",
        "allowed_ip=10.0.0.0/",
        "allowed_ip=--10.0.0.0/8",
        "allowed_ip=fe80::1%1/64",
        "allowed_ip=",
        "protocol_version=2",
        "listen_port=1",
        "public_key=",
    ],
)
def test_bad_peer_value(line: str) -> None:
    with pytest.raises(UapiError) as caught:
        parse(PEER, line)
    assert caught.value.errno == errno.EINVAL


def test_line_without_equals_sign() -> None:
    with pytest.raises(UapiError) as caught:
        parse("listen_port")
    assert caught.value.errno == errno.EPROTO


def test_too_many_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uapi, "MAX_LINES", 2)
    with pytest.raises(UapiError) as caught:
        parse("fwmark=1", "fwmark=2", "fwmark=3")
    assert caught.value.errno == errno.E2BIG


def test_the_sign_of_errno_is_what_wg_expects() -> None:
    assert uapi.status_of(22, of_set=True) == b"errno=-22\n\n"
    assert uapi.status_of(22, of_set=False) == b"errno=22\n\n"
    assert uapi.status_of(0, of_set=True) == b"errno=0\n\n"
