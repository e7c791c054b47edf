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
        ("port 443", [WEB]),
        ("port 5000", [WEB, NAMES]),
        ("dst port 5000", [NAMES]),
        ("tcp src port 5000", [WEB]),
        ("src 10.0.0.3", [NAMES]),
        ("dst net 10.0.0.2/31", [PING, WEB, NAMES]),
        ("net 10.0.0.3/32 or icmp", [PING, NAMES]),
        ("net fd00::/8", []),
        ("ip", [PING, WEB, NAMES]),
        ("ip6 || tcp", [WEB]),
        ("icmp6", []),
        ("not icmp", [WEB, NAMES]),
        ("! port 443", [PING, NAMES]),
        ("not src port 5000", [PING, NAMES]),
        ("not host 10.0.0.3", [PING, WEB]),
        ("not (icmp or udp port 53)", [WEB]),
        ("!(tcp && port 443) and not icmp", [NAMES]),
        # As in tcpdump, from left to right: (icmp or tcp) and port 443.
        ("icmp or tcp and port 443", [WEB]),
        ("icmp or (tcp and port 443)", [PING, WEB]),
        ("not not tcp", [WEB]),
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
        (
            "tcp port 443",
            ["meta l4proto { 6 } th sport 443", "meta l4proto { 6 } th dport 443"],
        ),
        ("dst port 53", ["meta l4proto { 6, 17 } th dport 53"]),
        ("src net 10.0.0.5/8", ["meta nfproto ipv4 ip saddr 10.0.0.0/8"]),
        (
            "host fd00::1",
            [
                "meta nfproto ipv6 ip6 saddr fd00::1/128",
                "meta nfproto ipv6 ip6 daddr fd00::1/128",
            ],
        ),
        ("icmp or ip6", ["meta l4proto { 1, 58 }", "meta nfproto ipv6"]),
        ("not udp and ip", ["meta l4proto != { 17 } meta nfproto ipv4"]),
        (
            "not udp port 53",
            [
                "meta l4proto != { 17 }",
                "meta l4proto { 17 } th sport != 53 th dport != 53",
            ],
        ),
    ],
)
def test_the_same_for_nftables(text: str, rules: list[str]) -> None:
    assert Filter.parse(text).nft() == rules


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("arp", "expected icmp, tcp, udp, ip, ip6, host, net or port, not 'arp'"),
        ("icmp tcp", "expected 'and' or 'or' before 'tcp'"),
        ("icmp and", "something has to follow 'and'"),
        ("or icmp", "expected icmp, .* not 'or'"),
        ("(icmp", r"a '\)' is missing"),
        ("icmp)", r"expected 'and' or 'or' before '\)'"),
        ("net 10.0.0.300/8", "'10.0.0.300/8' is not a network"),
        ("net", "an address has to follow 'net'"),
        ("not " * 100 + "icmp", "at most 32"),
        ("(icmp or tcp or udp) and " * 5 + "icmp", "more than 64 rules"),
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


WORDS_OF_A_FILTER = "icmp tcp udp ip ip6 host net port src dst and or not ( ) 53 10.0.0.1 fd00::/8"
filters = st.text(max_size=40) | st.lists(st.sampled_from(WORDS_OF_A_FILTER.split())).map(" ".join)


@given(filters)
def test_nothing_but_its_error_is_raised_and_nothing_strange_reaches_nft(text: str) -> None:
    try:
        rules = Filter.parse(text).nft()
    except FilterError:
        return
    assert all(set(rule) <= set("abcdefghijklmnopqrstuvwxyz0123456789 .:{},-/!=") for rule in rules)


@given(st.binary(max_size=100))
def test_headers_of_any_bytes(data: bytes) -> None:
    headers = Headers.parse(data)
    if headers is not None:
        assert headers.kind()
        assert headers.flow()
        assert isinstance(headers.key, bytes)
        assert headers.wireguard is None or headers.wireguard[0] in (1, 2, 3, 4)
