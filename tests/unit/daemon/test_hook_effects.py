"""What hooks changed belongs to the conf, until the conf says something else about it."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network

import pytest

from tests.support.confs import INTERFACE, OTHER, PEER, PSK, read
from tunnel import host
from tunnel.config import PeerConfig, TunnelConfig
from tunnel.daemon.hook_effects import HookEffects, _gone, _peer_effects
from tunnel.daemon.host_state import Surroundings
from tunnel.host import Dns, Item, Link, Route, desired_state

BASE = f"[Peer]\nPublicKey = {PEER}\nAllowedIPs = 10.0.0.2/32\nEndpoint = 192.0.2.2:1\n"
ADDED = f"[Peer]\nPublicKey = {OTHER}\nAllowedIPs = 10.9.0.0/16\nEndpoint = 192.0.2.3:1\n"


def conf(*peers: str, interface: str = "") -> TunnelConfig:
    return read(f"{INTERFACE}{interface}{''.join(peers)}")


def effects(before: TunnelConfig, after: TunnelConfig) -> HookEffects:
    return HookEffects(before.interface, dict(_peer_effects(before.peers, after.peers)))


def by_key(config: TunnelConfig) -> dict[str, PeerConfig]:
    return {peer.public_key.to_base64(): peer for peer in config.peers}


def test_nothing_changed_is_no_effect_whatever_became_of_the_endpoint() -> None:
    base = conf(BASE)
    found = effects(base, conf(BASE.replace("192.0.2.2", "192.0.2.9")))
    assert found.peers == {}
    assert found.on_conf(base) is base


@pytest.mark.parametrize(
    ("hook", "edit"),
    [
        (f"PresharedKey = {PSK}\n", f"PresharedKey = {OTHER}\n"),
        ("PersistentKeepalive = 25\n", "PersistentKeepalive = 7\n"),
        ("AllowedIPs = 10.8.0.0/16\n", "AllowedIPs = 10.7.0.0/16\n"),
    ],
)
def test_effect_on_a_peer_holds_until_the_conf_changes_that_value(hook: str, edit: str) -> None:
    base = conf(BASE)
    found = effects(base, conf(BASE + hook))
    assert by_key(found.on_conf(base))[PEER] == by_key(conf(BASE + hook))[PEER]
    # Another value of the same peer is another matter.
    moved = found.on_conf(conf(BASE.replace("192.0.2.2", "192.0.2.5")))
    endpoint = moved.peers[0].endpoint
    assert endpoint is not None
    assert endpoint.host == "192.0.2.5"
    assert moved != conf(BASE.replace("192.0.2.2", "192.0.2.5"))
    assert by_key(found.on_conf(conf(BASE + edit)))[PEER] == by_key(conf(BASE + edit))[PEER]


def test_peer_that_a_hook_added_stays_where_it_is() -> None:
    found = effects(conf(BASE), conf(BASE, ADDED))
    added = by_key(found.on_conf(conf(BASE)))[OTHER]
    assert added.endpoint is None
    assert added.networks == (ip_network("10.9.0.0/16"),)
    # With a section of its own, the conf decides.
    mine = conf(BASE, ADDED.replace("10.9.", "10.6."))
    assert found.on_conf(mine) == mine


def test_peer_that_a_hook_removed_stays_away() -> None:
    found = effects(conf(BASE, ADDED), conf(BASE))
    assert list(by_key(found.on_conf(conf(BASE, ADDED)))) == [PEER]
    edited = conf(BASE, ADDED.replace("10.9.", "10.6."))
    assert list(by_key(found.on_conf(edited))) == [PEER, OTHER]


def test_network_of_two_peers_is_no_effect() -> None:
    both = conf(BASE + "AllowedIPs = 10.9.0.0/16\n", ADDED)
    assert effects(both, conf(BASE, ADDED)).peers == {}


def test_port_mark_mtu_and_routes() -> None:
    base = conf(interface="ListenPort = 5\n")
    network = ip_network("10.9.0.0/16")
    state = desired_state("office", [ip_interface("10.0.0.1/24")], [network], mtu=1420)
    gone: frozenset[Item] = frozenset([Route(network), *state.connected])
    found = HookEffects(base.interface, {}, gone, listen_port=6, fwmark=7, mtu=1380)
    around = Surroundings(state, None, 0)
    assert found.on_conf(base).interface.listen_port == 6
    changed = found.on_host(base, around)
    assert (changed.mark, changed.state.mtu) == (7, 1380)
    assert (changed.state.routes, changed.state.connected) == ((), ())
    assert changed.state.addresses == state.addresses
    edited = conf(interface="ListenPort = 8\nFwMark = 9\nMTU = 1300\n")
    assert found.on_conf(edited).interface.listen_port == 8
    kept = found.on_host(edited, around)
    assert (kept.mark, kept.state.mtu) == (0, 1420)


def test_name_servers_that_a_hook_changed_stay_on_record(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[str] = []
    monkeypatch.setattr(host, "keep_servers", kept.append)
    route = Route(ip_network("10.9.0.0/16"))
    assert _gone("office", [Link(1420), route]) == [route]
    assert kept == []
    assert _gone("office", [Dns((ip_address("10.9.0.53"),)), route]) == [route]
    assert kept == ["office"]
