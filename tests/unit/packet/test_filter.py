"""The FILTER of a trace: what it lets through, and the same for nftables."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.packet.filter import Filter, FilterError
from tunnel.packet.headers import ICMP, TCP, UDP, Headers


def packet(protocol: int, source: str, destination: str, transport: bytes = bytes(20)) -> Headers:
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 40, 1, 0, 64, protocol, 0) + addresses
    found = Headers.parse(header + transport)
    assert found is not None
    return found


PING = packet(ICMP, "10.0.0.1", "10.0.0.2", b"\x08\0\0\0" + bytes(16))
WEB = packet(TCP, "10.0.0.1", "10.0.0.2", struct.pack("!HH", 5000, 443) + bytes(16))
NAMES = packet(UDP, "10.0.0.3", "10.0.0.2", struct.pack("!HH", 53, 5000) + bytes(16))


@pytest.mark.parametrize(
    ("text", "matching"),
    [
        ("", [PING, WEB, NAMES]),
        ("icmp", [PING]),
        ("tcp", [WEB]),
        ("tcp port 443", [WEB]),
        ("tcp port 5000", [WEB]),
        ("udp port 53", [NAMES]),
        ("udp port 443", []),
        ("host 10.0.0.2", [PING, WEB, NAMES]),
        ("host 10.0.0.3", [NAMES]),
        ("host 10.0.0.1 and tcp port 443", [WEB]),
        ("HOST 10.0.0.1 AND icmp", [PING]),
        ("host fd00::1", []),
    ],
)
def test_what_is_let_through(text: str, matching: list[Headers]) -> None:
    wanted = Filter.parse(text)
    assert [headers for headers in (PING, WEB, NAMES) if wanted.matches(headers)] == matching


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("", [""]),
        ("icmp", ["meta l4proto { 1, 58 }"]),
        ("udp", ["meta l4proto { 17 }"]),
        ("tcp port 443", ["tcp sport 443", "tcp dport 443"]),
        ("host 10.0.0.1", ["ip saddr 10.0.0.1", "ip daddr 10.0.0.1"]),
        (
            "udp port 53 and host fd00::1",
            [
                "udp sport 53 ip6 saddr fd00::1",
                "udp sport 53 ip6 daddr fd00::1",
                "udp dport 53 ip6 saddr fd00::1",
                "udp dport 53 ip6 daddr fd00::1",
            ],
        ),
    ],
)
def test_the_same_for_nftables(text: str, rules: list[str]) -> None:
    assert Filter.parse(text).nft() == rules


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("ip", "expected icmp, tcp, udp or host, not 'ip'"),
        ("icmp tcp", "expected 'and' before 'tcp'"),
        ("icmp and", "something has to follow 'and'"),
        ("host", "an address has to follow 'host'"),
        ("host example.net", "'example.net' is not an IP address"),
        ("tcp port", "a port is 1 to 65535, not ''"),
        ("tcp port 65536", "a port is 1 to 65535, not '65536'"),
        ("udp port ²", "a port is 1 to 65535"),
        # Python refuses to read a number of so many digits.
        (f"udp port {'9' * 5000}", "a port is 1 to 65535"),
        ("host 10.0.0.1; drop", "not an IP address"),
    ],
)
def test_mistakes_are_named(text: str, problem: str) -> None:
    with pytest.raises(FilterError, match=problem.replace("'", "['\"]")):
        Filter.parse(text)


@given(st.text(max_size=40))
def test_nothing_but_its_error_is_raised_and_nothing_strange_reaches_nft(text: str) -> None:
    try:
        rules = Filter.parse(text).nft()
    except FilterError:
        return
    assert all(set(rule) <= set("abcdefghijklmnopqrstuvwxyz0123456789 .:{},-") for rule in rules)


@given(st.binary(max_size=100))
def test_headers_of_any_bytes(data: bytes) -> None:
    headers = Headers.parse(data)
    if headers is not None:
        assert headers.kind()
        assert headers.flow()
        assert isinstance(headers.key, bytes)
        assert headers.wireguard is None or headers.wireguard[0] in (1, 2, 3, 4)
