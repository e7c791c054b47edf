"""Confs as users publish them: what we would set up is what wg-quick did set up.

tests/support/published.py says what the files are. Where we differ on purpose, the table below says
how, and why. What only hooks do is compared in tests/interop/test_published.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from ipaddress import ip_address

import pytest
import trio

from tests.support.published import (
    ENDPOINTS,
    FOLDER,
    IN_USE_ALONE,
    INTERFACE,
    LINK_MTU,
    NAMES,
    Around,
    Peer,
    Recorded,
)
from tunnel import host
from tunnel.config import ConfigErrors, EndpointConfig, TunnelConfig, parse
from tunnel.daemon import host_state
from tunnel.daemon.host_state import Surroundings
from tunnel.host.dns import render
from tunnel.host.mtu import choose_mtu
from tunnel.host.state import Sysctl
from tunnel.io.endpoint import Endpoint

REFUSED_BY_WG_QUICK = {
    # name: the reason why we take it, a conf whose state ours has, and fields that differ from it
    "corner-empty-allowed-ips": (
        "programs write it, and older versions of `wg` take it; a warning names the line",
        "corner-no-allowed-ips",
        set[str](),
    ),
    "corner-mtu-below-ipv6": (
        "wg-quick fails at a route of IPv6, which the kernel has taken off the interface; without "
        "such a route it goes on with IPv4, and so do we in any case",
        "corner-mtu-below-ipv6-peer-ipv4",
        {"peers"},
    ),
    "spelling-bom": (
        "editors of another system begin a file by this mark, which no one sees",
        "phone-export-compact",
        set[str](),
    ),
}
REFUSED_BY_US = {
    "corner-same-peer-twice": (
        "`wg` lets the second section undo the first without a word",
        "published.conf:10: PublicKey is the same as on line 6: a peer may have one section only; "
        "merge the two sections",
    ),
}
OTHER_HOOKS = {
    "spelling-comments": (
        "wg-quick cuts hooks at #, also inside of quotes; we give the shell the whole line, and "
        "to the shell # begins a comment",
        ["true # a comment, too"],
    ),
}


def resolved(endpoint: EndpointConfig) -> EndpointConfig:
    return EndpointConfig(ENDPOINTS.get(endpoint.host, endpoint.host), endpoint.port)


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """One with a single link, and no other tunnel."""

    def compute_mtu(endpoints: Sequence[object], *, interface: str, mark: int) -> int:
        return choose_mtu([LINK_MTU] * len(endpoints), lambda: LINK_MTU)

    monkeypatch.setattr(host, "compute_mtu", compute_mtu)
    monkeypatch.setattr(host, "find_default_route_slot", lambda **_: host.DefaultRouteSlot())


def plan(config: TunnelConfig) -> Around:
    named = [resolved(peer.endpoint) for peer in config.peers if peer.endpoint is not None]
    endpoints = [Endpoint(ip_address(each.host).packed, each.port) for each in named]
    return planned(config, trio.run(host_state.compute, config, endpoints))


def hooks_of(config: TunnelConfig) -> list[str]:
    """In the order in which they run, empty ones left out."""
    found = config.interface
    hooks = (*found.pre_up, *found.post_up, *found.pre_down, *found.post_down)
    return [hook.replace("%i", INTERFACE) for hook in hooks]


def planned(config: TunnelConfig, around: Surroundings) -> Around:
    """What `around` comes to, in the words of the record."""
    state, interface = around.state, config.interface
    firewall = state.firewall or host.Firewall()
    key = interface.private_key
    return Around(
        addresses=sorted(map(str, state.addresses)),
        mtu=state.mtu,
        routes=sorted(str(route).removeprefix("route ") for route in state.routes),
        rules=[
            f"ipv{rule.version} from all lookup main suppress_prefixlength 0"
            if rule.suppress_default
            else f"ipv{rule.version} not from all fwmark {rule.mark:#x} lookup {rule.table}"
            for rule in state.rules
            if not rule.goto
        ],
        guarded=sorted(map(str, firewall.addresses)),
        kept_marks=[firewall.mark] if firewall.versions else [],
        src_valid_mark=Sysctl("net.ipv4.conf.all.src_valid_mark", "1") in state.sysctls,
        dns=[] if state.dns is None else render(state.dns).splitlines(),
        calls=[],
        public_key="" if key is None else key.public_key().to_base64(),
        listen_port=interface.listen_port,
        fwmark=around.mark,
        peers=sorted(
            (
                Peer(
                    peer.public_key.to_base64(),
                    None if peer.preshared_key is None else peer.preshared_key.to_base64(),
                    None if peer.endpoint is None else str(resolved(peer.endpoint)),
                    sorted(map(str, peer.networks)),
                    peer.persistent_keepalive,
                )
                for peer in config.peers
            ),
            key=lambda peer: peer.public_key,
        ),
    )


def parse_published(name: str) -> TunnelConfig:
    text = (FOLDER / f"{name}.conf").read_bytes().decode()
    return parse(text, name=INTERFACE, source="published.conf")


@pytest.mark.parametrize("name", [name for name in NAMES if name not in REFUSED_BY_US])
def test_the_state_is_wg_quicks(name: str) -> None:
    recorded = Recorded.read(name)
    config = parse_published(name)
    left_out = {"calls", *IN_USE_ALONE.get(name, ())}
    if name in REFUSED_BY_WG_QUICK:
        assert recorded.around is None
        _, like, but = REFUSED_BY_WG_QUICK[name]
        recorded, left_out = Recorded.read(like), left_out | but
    assert recorded.around is not None, recorded.words
    wanted, ours = asdict(recorded.around), asdict(plan(config))
    assert {k: v for k, v in ours.items() if k not in left_out} == {
        k: v for k, v in wanted.items() if k not in left_out
    }
    _, hooks = OTHER_HOOKS.get(name, ("", [hook for hook in recorded.hooks if hook]))
    assert hooks_of(config) == hooks


@pytest.mark.parametrize("name", REFUSED_BY_US)
def test_what_we_refuse(name: str) -> None:
    assert Recorded.read(name).around is not None
    with pytest.raises(ConfigErrors) as caught:
        parse_published(name)
    assert str(caught.value) == REFUSED_BY_US[name][1]
