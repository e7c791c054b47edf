"""The UAPI's reader on anything at all, and networks there and back."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from tunnel.control.uapi import SetParser, UapiError

KEYS = st.sampled_from(
    [
        "private_key",
        "listen_port",
        "fwmark",
        "replace_peers",
        "public_key",
        "remove",
        "update_only",
        "preshared_key",
        "endpoint",
        "persistent_keepalive_interval",
        "replace_allowed_ips",
        "allowed_ip",
        "protocol_version",
    ]
)
LINES = st.one_of(
    st.binary(max_size=80),
    st.builds(lambda key, value: f"{key}={value}".encode(), KEYS, st.text(max_size=70)),
)
NETWORKS = st.tuples(st.ip_addresses(), st.integers(0, 32), st.booleans())


@given(st.lists(LINES, max_size=8), st.booleans())
def test_any_line_is_read_or_refused(lines: list[bytes], in_peer: bool) -> None:
    parser = SetParser()
    if in_peer:
        parser.read_untrusted(b"public_key=" + b"ab" * 32)
    for line in lines:
        with contextlib.suppress(UapiError):
            parser.read_untrusted(line)


@given(st.lists(NETWORKS, max_size=5))
def test_networks_come_out_as_they_went_in(networks: list[tuple[object, int, bool]]) -> None:
    parser = SetParser()
    parser.read_untrusted(b"public_key=" + b"ab" * 32)
    for address, length, adds in networks:
        sign = "" if adds else "-"
        parser.read_untrusted(f"allowed_ip={sign}{address}/{length}".encode())
    (peer,) = parser.change.peers
    assert [adds for _, adds in peer.allowed_ips] == [adds for _, _, adds in networks]
    for (network, _), (address, length, _) in zip(peer.allowed_ips, networks, strict=True):
        assert network.prefixlen == length
        assert address in network
