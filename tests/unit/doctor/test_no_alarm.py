"""What is well must not be called sick: hubs, policy routing, odd addresses, moved interfaces."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from tests.support.doctor_facts import (
    CLOSED,
    HEALTHY,
    NOW,
    PEER,
    PROBE,
    STATUS,
    away,
    codes,
    conf,
    silent,
    with_peer,
)
from tunnel.doctor import Facts, Options, diagnose
from tunnel.doctor.facts import (
    FirewallChain,
    FirewallRule,
    FirewallRules,
    LinkFacts,
    Probe,
    RouteFacts,
    has_written_place,
)
from tunnel.protocol import ProtocolDrop


def notes(facts: Facts) -> list[str]:
    return [note.code for note in diagnose(facts).notes]


def hub(drops: dict[str, int] | None = None, *, probes: tuple[Probe, ...] = ()) -> Facts:
    """A peer that roams, was here a day ago, and has no Endpoint in the conf."""
    peer = replace(PEER, latest_handshake=NOW - 86400)
    before = replace(STATUS, peers=(peer,))
    after = replace(before, drops=drops or {})
    return replace(
        HEALTHY, conf=conf(endpoint=""), before=before, after=after, probes=probes, links={}
    )


def test_a_phone_that_sleeps() -> None:
    assert codes(hub()) == []
    assert notes(hub()) == ["peer_not_heard"]
    # It was here a moment ago, so it was spoken to, and it sleeps since.
    asleep = silent(conf=conf(endpoint=""))
    assert codes(asleep) == []
    assert notes(asleep) == ["peer_not_heard"]


def test_what_was_written_down_is_not_told_without_a_conf() -> None:
    unknown = replace(hub(), conf=None)
    (note,) = (note for note in diagnose(unknown).notes if note.code == "peer_not_heard")
    assert (
        note.what == "the peer is in no conf that was found, and has sent nothing lately: it may "
        "sleep, or be away"
    )


def test_a_phone_that_somebody_asks_for() -> None:
    probe = replace(PROBE, guessed=False, answered=False)
    facts = replace(hub(probes=(probe,)), options=Options(address="10.77.0.2"))
    assert codes(facts) == ["nothing_comes"]
    assert notes(facts) == []


def test_many_phones_that_sleep_share_one_note() -> None:
    keys = (base64.b64encode(bytes([n]) * 32).decode() for n in range(2, 42))
    phones = tuple(replace(PEER, public_key=key, endpoint=None) for key in keys)
    old = tuple(replace(phone, latest_handshake=0.0) for phone in phones)
    facts = replace(HEALTHY, after=replace(STATUS, peers=(*STATUS.peers, *old)))
    assert codes(facts) == []
    assert notes(facts).count("peer_not_heard") == 1


@pytest.mark.parametrize("reason", ["bad_mac1", "unknown_peer"])
def test_scanners_are_a_note_at_most(reason: str) -> None:
    code = {"bad_mac1": "peer_has_wrong_key"}.get(reason, reason)
    facts = hub({reason: 3})
    assert codes(facts) == []
    assert code in notes(facts)
    before = replace(STATUS, peers=facts.peers, drops={reason: 3})
    assert code not in notes(replace(facts, before=before))
    assert notes(replace(HEALTHY, after=replace(STATUS, drops={reason: 3}))) == []


def test_what_was_dropped_before_is_a_note_with_count_and_reason() -> None:
    assert HEALTHY.after is not None
    old = {"malformed": 3, "no_peer": 12}
    facts = replace(
        HEALTHY,
        before=replace(STATUS, drops=old),
        after=replace(HEALTHY.after, drops={**old, "no_peer": 13, "replay": 1}),
    )
    assert codes(facts) == []
    (note,) = diagnose(facts).notes
    assert note.code == "dropped_earlier"
    assert note.evidence == (
        "tunnel show: drops no_peer 12 (no peer's AllowedIPs cover the destination; 1 more just "
        "now), malformed 3"
    )
    # Only what grew meanwhile is judged.
    assert notes(replace(HEALTHY, after=facts.after)) == []
    own = {str(ProtocolDrop.LINK_MULTICAST): 2}
    assert notes(replace(HEALTHY, before=replace(STATUS, drops=own))) == []


def test_a_clock_of_a_phone_that_was_set_back() -> None:
    assert codes(hub({"old_timestamp": 1})) == ["peer_clock_back"]


def test_a_place_is_written_down_in_the_conf_or_was_given_by_hand() -> None:
    assert has_written_place(conf(), PEER)
    assert not has_written_place(conf(endpoint=""), PEER)
    assert not has_written_place(None, PEER)
    assert has_written_place(None, replace(PEER, latest_handshake=0.0))
    assert has_written_place(None, replace(PEER, persistent_keepalive=25))
    assert not has_written_place(conf(), replace(PEER, endpoint=None))


@pytest.mark.parametrize("reason", ["send_network_unreachable", "send_firewall"])
def test_what_does_not_get_away_to_a_phone_that_sleeps(reason: str) -> None:
    assert codes(hub({reason: 3})) == []


def test_policy_routing() -> None:
    own = {"10.77.0.2": RouteFacts("wg0")}
    strict = {**HEALTHY.sysctls, "net.ipv4.conf.wg0.rp_filter": "1"}
    assert codes(away(HEALTHY, own_routes=own, sysctls=strict)) == []
    for line in ("Table = off", "Table = 77"):
        assert codes(away(HEALTHY, conf=conf(line), sysctls=strict)) == []
    asked = (replace(PROBE, guessed=False),)
    facts = away(HEALTHY, conf=conf("Table = 77"), probes=asked)
    (finding,) = diagnose(facts).findings
    assert finding.remedy == "ip route replace 10.77.0.2 dev wg0 table 77"
    vrf = {**HEALTHY.links, "wg0": replace(HEALTHY.links["wg0"], master="red")}
    assert codes(away(HEALTHY, links=vrf)) == []
    assert codes(away(HEALTHY, conf=None)) == []
    assert codes(away(HEALTHY)) == ["route_misses_tunnel"]


def test_link_local_addresses() -> None:
    networks = (*HEALTHY.links["wg0"].networks, "fe80::1/64")
    links = {
        "wg0": LinkFacts("wg0", True, 1420, networks),
        "eth0": LinkFacts("eth0", True, 1500, ("192.0.2.1/24", "fe80::a/64")),
        "lo": LinkFacts("lo", True, 65536, ("127.0.0.1/8", "::1/128")),
    }
    own = replace(STATUS, addresses=(*STATUS.addresses, "fe80::1/64"))
    facts = replace(HEALTHY, links=links, before=own, after=own)
    assert codes(facts) == []
    babel = replace(PEER, allowed_ips=("10.77.0.2/32", "fe80::/64"))
    assert codes(replace(facts, after=replace(own, peers=(babel,)))) == []
    probe = replace(PROBE, address="fe80::2")
    assert codes(replace(facts, probes=(probe,), routes={"fe80::2": RouteFacts("eth0")})) == []


def test_networks_of_this_host_are_swallowed_only_by_routes() -> None:
    facts = with_peer(allowed_ips=("10.77.0.2/32", "192.0.2.128/25"))
    assert codes(facts) == ["allowed_ips_swallow"]
    assert codes(replace(facts, conf=conf("Table = off"))) == []
    assert facts.after is not None
    assert codes(replace(facts, after=replace(facts.after, here=False, device="wg0"))) == []


def test_an_interface_in_another_namespace() -> None:
    moved = replace(STATUS, here=False, device="wg7")
    here = {"eth0": HEALTHY.links["eth0"]}
    everywhere = {**HEALTHY.sysctls, "net.ipv4.conf.all.rp_filter": "1"}
    unsent = (replace(PROBE, sent=False, answered=False, tried=0, passed=0),)
    facts = away(HEALTHY, before=moved, after=moved, links=here, sysctls=everywhere, probes=unsent)
    assert codes(facts) == []
    assert notes(facts) == ["interface_elsewhere"]
    outside = replace(HEALTHY, elsewhere=True, links={}, routes={}, probes=unsent)
    assert codes(outside) == []
    assert notes(outside) == ["interface_elsewhere"]


def test_an_interface_that_was_renamed_gets_its_name_back() -> None:
    facts = replace(HEALTHY, after=replace(STATUS, device="wg1"), links={})
    assert codes(facts) == []  # nothing could be looked at
    facts = replace(facts, links={"wg1": HEALTHY.links["wg0"]})
    (finding,) = diagnose(facts).findings
    assert finding.code == "interface_missing"
    assert finding.remedy == "ip link set wg1 down; ip link set wg1 name wg0; ip link set wg0 up"


def hooked(*lines: str, **sysctls: str) -> Facts:
    off = {"net.ipv4.ip_forward": "0", "net.ipv6.conf.all.forwarding": "0", **sysctls}
    return replace(HEALTHY, conf=conf(*lines), sysctls=off)


def test_hooks_that_close_and_hooks_of_one_ip_version() -> None:
    assert codes(hooked("PostUp = iptables -A FORWARD -i %i -j DROP")) == []
    only4 = hooked("PostUp = iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE")
    assert codes(only4) == ["forwarding_off"]
    on = {**only4.sysctls, "net.ipv4.ip_forward": "1"}
    assert codes(replace(only4, sysctls=on)) == []
    assert codes(hooked("PostUp = ip6tables -A FORWARD -i %i -j ACCEPT")) == ["forwarding_off"]
    dropped = FirewallRule("inet", "f", "forward", 'iifname "wg0" oifname "eth0" drop')
    assert codes(replace(hooked(), firewall=FirewallRules(rules=(dropped,)))) == []
    either = replace(dropped, text='iifname "wg0" oifname "eth0" accept')
    facts = replace(hooked(), firewall=FirewallRules(rules=(either,)))
    assert codes(facts) == ["forwarding_off", "forwarding_off"]
    assert codes(replace(facts, sysctls=on)) == []


@pytest.mark.parametrize(
    "text",
    [
        'iifname "wg*" accept',
        'iifname { "eth0", "wg0" } oifname != "eth9" counter packets 1 bytes 2 accept',
        "ip saddr 10.77.0.0/16 accept",
        "ip daddr { 10.1.0.0/16, 10.77.0.2 } accept",
        "ip saddr @friends accept",
        "meta mark 0x00000001 accept",
        "accept",
        'iifname vmap { "wg0" : accept, "eth0" : drop }',
        'iifname != "eth0" accept',
        'iifname != { "eth0", "eth1" } oifname != "docker0" accept',
    ],
)
def test_rules_that_let_the_tunnel_pass(text: str) -> None:
    facts = replace(
        HEALTHY,
        options=Options(forward=True),
        sysctls={"net.ipv4.ip_forward": "1"},
        firewall=replace(CLOSED, rules=(FirewallRule("ip", "filter", "FORWARD", text),)),
    )
    assert codes(facts) == []
    jumped = (
        FirewallRule("ip", "filter", "FORWARD", 'iifname "wg0" jump ours'),
        FirewallRule("ip", "filter", "ours", text),
    )
    assert codes(replace(facts, firewall=replace(CLOSED, rules=jumped))) == []
    elsewhere = (FirewallRule("ip", "filter", "INPUT", text),)
    assert codes(replace(facts, firewall=replace(CLOSED, rules=elsewhere))) == ["forward_closed"]


@pytest.mark.parametrize(
    "text",
    [
        'iifname "wg1" accept',
        'iifname != "wg0" accept',
        'iifname != { "eth0", "wg*" } accept',
        'log prefix "wg0" drop',
        "ct state established,related accept",
        "icmp type echo-request accept",
        'iifname != "docker0" oifname "docker0" ip daddr 172.17.0.2 tcp dport 80 accept',
        'iifname "docker0" oifname != "docker0" accept',
        "ct status dnat accept",
    ],
)
def test_rules_that_do_not(text: str) -> None:
    facts = replace(
        HEALTHY,
        options=Options(forward=True),
        sysctls={"net.ipv4.ip_forward": "1"},
        firewall=replace(CLOSED, rules=(FirewallRule("ip", "filter", "FORWARD", text),)),
    )
    assert codes(facts) == ["forward_closed"]


@pytest.mark.parametrize(
    ("text", "late"),
    [
        ("udp dport { 22, 51000-52000 } accept", False),
        ("udp dport 51820 accept", False),
        ('iifname "eth0" accept', False),
        ("ip saddr 192.0.2.0/24 accept", False),
        ("udp dport vmap { 51820 : accept, 53 : drop }", False),
        ("udp dport 53 accept", True),
        ('iifname "lo" accept', True),
        ("tcp dport 51820 accept", False),  # too clever: it may
        ("icmp type echo-request accept", True),
    ],
)
def test_rules_that_let_datagrams_in(text: str, late: bool) -> None:
    established = FirewallRule("inet", "f", "input", "ct state established,related accept")
    guard = replace(
        CLOSED,
        chains=(replace(CLOSED.chains[0], family="inet", table="f", name="input", hook="input"),),
        rules=(established, FirewallRule("inet", "f", "input", text)),
    )
    slow = replace(with_peer(persistent_keepalive=300), firewall=guard)
    assert codes(slow) == (["keepalive_late"] if late else [])


ESTABLISHED = "ct state established,related accept"


@pytest.mark.parametrize(
    ("texts", "policy", "shut"),
    [
        ((), "accept", False),
        (("udp dport 51820 drop",), "accept", True),
        (('udp dport { 53, 51000-52000 } counter name a log prefix "x" drop',), "accept", True),
        ((ESTABLISHED, "udp dport 51820 ct state new reject"), "accept", True),
        ((ESTABLISHED, "counter packets 0 bytes 0 reject with icmpx 3"), "accept", True),
        ((ESTABLISHED, "jump others"), "drop", True),
        ((ESTABLISHED,), "drop", True),
        (("udp dport 51821 drop",), "accept", False),
        (("udp dport != 51820 drop",), "accept", False),
        (('iifname "eth1" udp dport 51820 drop',), "accept", False),
        (("ip saddr 203.0.113.0/24 udp dport 51820 drop",), "accept", False),
        (("udp dport 51820 limit rate over 100/second drop",), "accept", False),
        (("ct state invalid drop",), "accept", False),
        (("ip saddr @known udp dport 51820 accept", "udp dport 51820 drop"), "accept", False),
        (("ip saddr 192.0.2.2 return", "udp dport 51820 drop"), "accept", False),
        (("jump known", "udp dport 51820 drop"), "accept", False),
        (("jump others", "udp dport 51820 drop"), "accept", True),
        # What lies behind these is not known, so they may let it in.
        (("udp dport vmap @ports",), "drop", False),
        (("ip saddr vmap @clients",), "drop", False),
        (("meta l4proto vmap @services",), "drop", False),
        (("jump mapped",), "drop", False),
        (("udp dport 51820 queue num 0",), "drop", False),
        (('meta l4proto udp counter packets 0 bytes 0 xt target "NFQUEUE"',), "drop", False),
        (("meta l4proto { icmp, udp } accept",), "drop", False),
        (("ip protocol { udp, tcp } accept",), "drop", False),
        (("meta l4proto != tcp accept",), "drop", False),
        (("ip protocol @known accept",), "drop", False),
        (("meta l4proto { 1, 17 } accept",), "drop", False),
        (("meta l4proto != 6 accept",), "drop", False),
        (("ct state != established accept",), "drop", False),
        (("ip saddr @icmp_senders accept",), "drop", False),
        (("meta l4proto { icmp, ipv6-icmp } accept",), "drop", True),
        (("meta l4proto icmp accept",), "drop", True),
        (("meta l4proto { 1, 58 } accept",), "drop", True),
        (("ip protocol 17 drop",), "accept", True),
        # All verdicts of this map are there to read, and to return is to come to the policy.
        (("ct state vmap { established : accept, invalid : drop }",), "drop", True),
        (("ip saddr 192.0.2.2 return",), "drop", True),
        # Who goes does not come back, but to the policy.
        (("goto others", "udp dport 51820 drop"), "accept", False),
        (("meta l4proto vmap { udp : goto others }", "udp dport 51820 drop"), "accept", False),
        (("goto others",), "drop", True),
    ],
)
def test_a_port_that_is_shut_to_phones(texts: tuple[str, ...], policy: str, shut: bool) -> None:
    chain = FirewallChain("inet", "f", "input", "input", policy)
    found = (
        *(FirewallRule("inet", "f", "input", text) for text in texts),
        FirewallRule("inet", "f", "known", "ip saddr 192.0.2.2 accept"),
        FirewallRule("inet", "f", "others", "tcp dport 22 accept"),
        FirewallRule("inet", "f", "mapped", "ip saddr vmap @clients"),
    )
    facts = replace(hub(), firewall=FirewallRules((chain,), found))
    assert codes(facts) == (["firewall_drop"] if shut else [])
    # Of a peer that is there, or that is spoken to first, the trace knows more.
    assert codes(replace(HEALTHY, firewall=facts.firewall)) == []
    # Nor need one come forward whose Endpoint may be written in a conf that was not found.
    assert codes(replace(facts, conf=None)) == []
    if shut:
        (finding,) = diagnose(facts).findings
        last = texts[-1] if policy == "accept" else "policy drop"
        assert "table inet f, chain input" in finding.evidence
        assert last in finding.evidence
        assert finding.remedy.startswith("nft insert rule inet f input 'udp dport 51820 accept'")
        old = replace(chain, family="ip6")
        other = tuple(replace(rule, family="ip6") for rule in found)
        assert codes(replace(facts, firewall=FirewallRules((old,), other))) == []


def test_a_phone_that_was_never_here_may_come_by_either_ip_version() -> None:
    facts = hub()
    unknown = replace(facts.peers[0], endpoint=None, latest_handshake=0.0)
    never = replace(
        facts,
        before=replace(STATUS, peers=(unknown,)),
        after=replace(STATUS, peers=(unknown,)),
    )

    def shut(*families: str, rule: str = "") -> Facts:
        policy = "accept" if rule else "drop"
        chains = tuple(FirewallChain(family, "f", "input", "input", policy) for family in families)
        rules = tuple(FirewallRule(family, "f", "input", rule) for family in families if rule)
        return replace(never, firewall=FirewallRules(chains, rules))

    assert codes(shut("ip")) == []
    assert codes(shut("ip6")) == []
    assert codes(shut("inet")) == ["firewall_drop"]
    both = diagnose(shut("ip", "ip6")).findings
    assert [finding.remedy.split()[3] for finding in both] == ["ip", "ip6"]
    # In a chain of both versions a rule may be for one.
    assert codes(shut("inet", rule="ip protocol udp drop")) == []
    assert codes(shut("inet", rule="ip6 nexthdr udp drop")) == []
    assert codes(shut("inet", rule="meta l4proto udp drop")) == ["firewall_drop"]
    assert codes(shut("inet", rule="meta l4proto 17 drop")) == ["firewall_drop"]


def test_docker_of_each_family_has_the_remedy_of_its_family() -> None:
    for family, table in (("ip", "net.ipv4.ip_forward"), ("ip6", "net.ipv6.conf.all.forwarding")):
        chain = replace(CLOSED.chains[0], family=family)
        jump = FirewallRule(
            family, "filter", "FORWARD", "counter packets 1 bytes 2 jump DOCKER-USER"
        )
        docker = FirewallRules((chain,), (jump,), frozenset({(family, "filter", "DOCKER-USER")}))
        facts = replace(
            HEALTHY, options=Options(forward=True), sysctls={table: "1"}, firewall=docker
        )
        (finding,) = diagnose(facts).findings
        assert finding.code == "docker_forward"
        begin = f"""nft insert rule {family} filter DOCKER-USER 'iifname "wg0" accept'; nft"""
        assert finding.remedy.startswith(begin)


def test_an_mtu_that_would_take_ipv6_away_is_not_advised_without_a_word() -> None:
    small = replace(HEALTHY, probes=(replace(PROBE, passed=1232),))
    (finding,) = diagnose(small).findings
    assert "IPv6, which needs 1280" in finding.remedy
    enough = replace(HEALTHY, probes=(replace(PROBE, passed=1328),))
    (finding,) = diagnose(enough).findings
    assert finding.remedy == "ip link set wg0 mtu 1328   # and MTU = 1328 in the conf"


def test_a_gateways_conf_is_a_wish_to_forward() -> None:
    gateway = replace(HEALTHY, conf=conf("#! tunnel: Masquerade = auto"), firewall=CLOSED)
    (finding,) = diagnose(gateway).findings
    assert finding.code == "forward_closed"
    assert "the conf's [Tunnel] asks for it" in finding.what
    # Forwarding that is off was then taken away, which is a finding of its own.
    assert codes(replace(gateway, sysctls={"net.ipv4.ip_forward": "0"})) == ["forward_closed"]


def test_a_doctor_inside_leaves_the_conf_and_the_outer_way_to_the_other() -> None:
    sick = replace(HEALTHY, now=1.0, links={**HEALTHY.links, "wg0": LinkFacts("wg0", False, 1420)})
    assert codes(sick) == ["clock_wrong", "interface_down"]
    inside = replace(sick, options=Options(inside=True))
    assert codes(inside) == ["interface_down"]
    assert notes(inside) == []
