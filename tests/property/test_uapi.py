"""The UAPI against arbitrary lines, and what is rendered against what was parsed."""

from __future__ import annotations

import contextlib
from ipaddress import IPv4Network, IPv6Network, ip_network

from hypothesis import given
from hypothesis import strategies as st

from tests.support.configuring import apply
from tests.support.uapi_device import make_engine
from tunnel.config import PresharedKey, PrivateKey, PublicKey
from tunnel.control.uapi_changes import (
    DeviceChange,
    PeerChange,
    ReplacePeers,
    SetFwmark,
    SetListenPort,
    SetPrivateKey,
)
from tunnel.control.uapi_grammar import Parser, UapiError, render_changes, render_state
from tunnel.io.endpoint import Endpoint
from tunnel.protocol import pack, unpack

KEYS = [
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
characters = st.characters(max_codepoint=255, exclude_characters="\n")
networks = st.one_of(
    st.builds(
        lambda address, length: IPv4Network((address, length), strict=False),
        st.integers(0, 2**32 - 1),
        st.integers(0, 32),
    ),
    st.builds(
        lambda address, length: IPv6Network((address, length), strict=False),
        st.integers(0, 2**128 - 1),
        st.integers(0, 128),
    ),
)
values = st.one_of(
    st.text(characters),
    st.sampled_from(["true", "1", "0", "00" * 32, "4f" * 32, "10.0.0.0/8", "-fd00::/8"]),
    st.from_regex(r"[0-9a-f:.\[\]%/-]{0,60}", fullmatch=True),
    networks.map(str),
)
lines = st.one_of(
    st.text(characters), st.builds(lambda k, v: f"{k}={v}", st.sampled_from(KEYS), values)
)


@given(st.lists(lines, max_size=20), st.booleans())
def test_parser_raises_only_its_own_error(found: list[str], after_a_peer: bool) -> None:
    parser = Parser()
    if after_a_peer:
        parser.feed_untrusted(f"public_key={'11' * 32}")
    for line in found:
        with contextlib.suppress(UapiError):
            parser.feed_untrusted(line)


@given(networks)
def test_packed_networks_come_back(network: IPv4Network | IPv6Network) -> None:
    packed = pack(network.version, int(network.network_address), network.prefixlen)
    assert unpack(packed) == (network.version, int(network.network_address), network.prefixlen)
    assert packed == pack(network.version, int(network.broadcast_address), network.prefixlen)


@given(st.lists(networks, max_size=200, unique=True))
def test_what_is_rendered_is_what_was_parsed(found: list[IPv4Network | IPv6Network]) -> None:
    parser = Parser()
    parser.feed_untrusted(f"public_key={'11' * 32}")
    for network in found:
        parser.feed_untrusted(f"allowed_ip={network}")
    engine, _ = make_engine()
    apply(engine, *parser.changes)
    (change,) = parser.changes
    assert isinstance(change, PeerChange)
    text = "".join(render_state(engine.interface, 1, 2))
    rendered = [line[11:] for line in text.split("\n") if line.startswith("allowed_ip=")]
    in_order = [n for version in (4, 6) for n in found if n.version == version]
    assert list(map(ip_network, rendered)) == in_order


keys32 = st.binary(min_size=32, max_size=32).filter(any)
endpoints = st.builds(
    Endpoint, st.binary(min_size=4, max_size=4), st.integers(1, 65535)
) | st.builds(Endpoint, st.binary(min_size=16, max_size=16), st.integers(1, 65535))
peer_changes = st.builds(
    PeerChange,
    keys32.map(lambda key: PublicKey.from_hex(key.hex())),
    remove=st.booleans(),
    update_only=st.booleans(),
    preshared_key=st.none() | keys32.map(lambda key: PresharedKey.from_hex(key.hex())),
    endpoint=st.none() | endpoints,
    persistent_keepalive=st.none() | st.integers(0, 65535),
    replace_allowed_ips=st.booleans(),
    allowed_ips=st.dictionaries(
        networks.map(lambda one: pack(one.version, int(one.network_address), one.prefixlen)),
        st.booleans(),
    ),
)
device_changes = st.lists(
    st.builds(SetListenPort, st.integers(0, 65535))
    | st.builds(SetFwmark, st.integers(0, 2**32 - 1))
    | st.builds(ReplacePeers)
    | st.just(SetPrivateKey(None))
    | keys32.map(lambda key: SetPrivateKey(PrivateKey.from_random(key)))
)


@given(device_changes, st.lists(peer_changes, max_size=5), st.booleans())
def test_rendered_changes_are_parsed_as_they_were(
    device: list[DeviceChange], peers: list[PeerChange], of_answer: bool
) -> None:
    parser = Parser(of_answer=of_answer)
    for line in "".join(render_changes([*device, *peers])).splitlines():
        parser.feed_untrusted(line)
    for change in (*peers, *parser.changes):
        if isinstance(change, PeerChange):
            change.allowed_ips = dict(change.allowed_ips)
    assert parser.changes == [*device, *peers]
