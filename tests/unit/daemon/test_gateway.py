"""Which rules a gateway's conf becomes."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.support.confs import INTERFACE, OTHER, PEER, read
from tunnel import host
from tunnel.daemon.gateway import with_gateway
from tunnel.host.state import Firewall, Sysctl


@pytest.fixture(autouse=True)
def _no_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def forwarding(interface: str, versions: Iterable[int]) -> list[Sysctl]:
        return [Sysctl(f"forward{version}", "1") for version in sorted(set(versions))]

    monkeypatch.setattr(host, "forwarding", forwarding)


def state_of(*lines: str, allowed: str = "10.77.0.2/32", mark: int = 0) -> host.DesiredState:
    text = (
        INTERFACE
        + (f"FwMark = {mark}\n" if mark else "")
        + "Address = 10.77.0.1/24\n[Tunnel]\n"
        + "".join(f"{line}\n" for line in lines)
        + f"[Peer]\nPublicKey = {PEER}\nAllowedIPs = {allowed}\n"
        + f"[Peer]\nPublicKey = {OTHER}\nAllowedIPs = 10.77.0.3/32\n"
    )
    return with_gateway(read(text), host.DesiredState("office", mark=mark))


def test_the_interface_of_a_port_is_its_bridge() -> None:
    text = f"{INTERFACE}[Tunnel]\nMode = tap\nBridge = br0\nMasquerade = auto\n"
    state = with_gateway(read(text), host.DesiredState("office", bridge="br0"))
    (rule,) = rules_of(state, "srcnat")
    assert rule.startswith('iifname "br0" oifname != { "lo", "br0" }')


def rules_of(state: host.DesiredState, chain: str) -> list[str]:
    assert state.firewall is not None
    return [r for gate in state.firewall.gates for place, r in gate.rules if place == chain]


def test_without_a_gateways_keys_nothing_is_added() -> None:
    assert state_of() == host.DesiredState("office")


@pytest.mark.parametrize(
    "line", ["Forward = yes", "Masquerade = auto", "Publish = 80:10.77.0.2", "Forward = on"]
)
def test_what_forwards_turns_forwarding_on(line: str) -> None:
    state = state_of(line)
    assert state.sysctls == (Sysctl("forward4", "1"),)
    assert state.docker is not None
    assert state_of(line, allowed="fd77::2/128").sysctls[-1] == Sysctl("forward6", "1")


def test_isolation_forwards_nothing_by_itself() -> None:
    state = state_of("Isolate = on")
    assert state.sysctls == ()
    assert state.docker is None


def test_a_peer_inside_of_anothers_network_is_not_limited_with_it() -> None:
    state = state_of("Allow = 10.77.0.2 -> 10.0.0.0/8", allowed="10.77.0.0/16")
    assert all("ip saddr != { 10.77.0.3/32 }" in rule for rule in rules_of(state, "forward"))
    state = state_of("Allow = 10.77.0.3 -> 10.0.0.0/8", allowed="10.77.0.0/16")
    assert not any("!=" in rule for rule in rules_of(state, "forward"))


def test_exceptions_come_before_what_they_are_of() -> None:
    state = state_of("Isolate = on", "Allow = 10.77.0.2 -> 10.77.0.3:22, 10.77.0.2 -> 10.0.0.1")
    assert state.firewall is not None
    assert list(map(str, state.firewall.gates)) == [
        "Allow = 10.77.0.2 -> 10.77.0.3/32:22",
        "Allow = 10.77.0.2 -> 10.0.0.1/32",
        "Allow: 10.77.0.2 may reach nothing else",
        "Isolate = on",
    ]


def test_a_kill_switch_of_a_split_tunnel_guards_its_networks_alone() -> None:
    rules = rules_of(state_of("KillSwitch = on"), "killswitch")
    assert rules[0] == 'oifname { "lo", "office" } return'
    assert rules[1:] == [
        f"ip daddr {address} {end}"
        for address in ("10.77.0.2/32", "10.77.0.3/32", "10.77.0.0/24")
        for end in (
            "meta l4proto 6 counter reject with tcp reset",
            "counter reject with icmpx admin-prohibited",
        )
    ], "the tunnel's own network, too: without the interface the default route leads there"


def test_a_kill_switch_leaves_neighbours_on_a_cable_alone() -> None:
    rules = rules_of(state_of("KillSwitch = on", allowed="fe80::/64, ff00::/8"), "killswitch")
    assert not any("ip6" in rule for rule in rules)


def test_two_halves_are_all_to_a_kill_switch() -> None:
    whole = rules_of(state_of("KillSwitch = on", allowed="0.0.0.0/0", mark=7), "killswitch")
    halves = "0.0.0.0/1, 128.0.0.0/1"
    assert rules_of(state_of("KillSwitch = on", allowed=halves, mark=7), "killswitch") == whole
    half = rules_of(state_of("KillSwitch = on", allowed="0.0.0.0/1", mark=7), "killswitch")
    assert half[2].startswith("ip daddr 0.0.0.0/1 ")


def test_a_kill_switch_of_a_full_tunnel_ends_in_a_refusal_of_all() -> None:
    state = state_of("KillSwitch = on", allowed="0.0.0.0/0", mark=7)
    rules = rules_of(state, "killswitch")
    assert rules[1] == "meta mark 0x7 return"
    assert rules[-1] == "counter reject with icmpx admin-prohibited", "of both IP versions"
    assert not any("53" in rule for rule in rules), "name servers of the local network stay"
    assert state.firewall is not None
    assert state.firewall.closed() == Firewall(gates=state.firewall.gates)
