"""The checks as pure functions: one small change to a healthy set of facts, one code."""

from __future__ import annotations

import base64
import struct
from dataclasses import replace
from typing import Any

import pytest

from tests.support.doctor_facts import (
    CLOSED,
    CONF,
    HEALTHY,
    NOW,
    OURS,
    PEER,
    PROBE,
    STATUS,
    THEIRS,
    away,
    codes,
    conf,
    silent,
    with_peer,
)
from tunnel import config
from tunnel.control.messages.changes import TAKEN, Change
from tunnel.control.messages.status import PeerLimits, PeerStatus, RefusedHandshake
from tunnel.doctor import Facts, Options, Report, diagnose
from tunnel.doctor.facts import (
    Behind,
    FirewallChain,
    FirewallRule,
    FirewallRules,
    LinkFacts,
    LookUp,
    Probe,
    RouteFacts,
    covering,
)
from tunnel.doctor.machine import parse_firewall
from tunnel.doctor.probing import parse_refusal_untrusted
from tunnel.host import Obstacle
from tunnel.trace.crossings import Decision
from tunnel.trace.journey import Journey, Layer, Step


def dropping(reason: str) -> Facts:
    """Healthy, but packets were dropped meanwhile."""
    assert HEALTHY.after is not None
    return replace(HEALTHY, after=replace(HEALTHY.after, drops={reason: 2}))


def without_holder(next_one: int = 0) -> Facts:
    """Healthy, but the holder has ended, and that process has taken its place."""
    assert HEALTHY.after is not None
    return replace(HEALTHY, after=replace(HEALTHY.after, lost_holders=1, holder=next_one))


def asked(address: str) -> Facts:
    return replace(HEALTHY, options=Options(address=address), probes=())


GUARDED = FirewallRules(
    (FirewallChain("inet", "f", "input", "input", "drop"),),
    (FirewallRule("inet", "f", "input", "ct state established,related accept"),),
)
WORKING_RULE = FirewallRule("ip", "filter", "FORWARD", 'iifname "wg0" accept')
MASQUERADED = FirewallRule("ip", "nat", "POSTROUTING", 'iifname "wg0" oifname "eth0" masquerade')


EARLY = FirewallRule("netdev", "wall", "early", "udp dport 51820 drop")


@pytest.mark.parametrize(
    ("devices", "rule", "code"),
    [
        (("eth1", "eth0"), EARLY, "firewall_drop"),
        (("eth1",), EARLY, "nothing_comes"),
        (("eth0",), replace(EARLY, text="udp dport 5 drop"), "nothing_comes"),
        (("eth0",), replace(EARLY, text="ip saddr @known accept"), "nothing_comes"),
    ],
)
def test_a_chain_at_ingress_of_the_peers_device(
    devices: tuple[str, ...], rule: FirewallRule, code: str
) -> None:
    chain = FirewallChain("netdev", "wall", "early", "ingress", devices=devices)
    facts = silent(firewall=FirewallRules((chain,), (rule,)))
    assert codes(facts) == [code]
    assert codes(replace(HEALTHY, firewall=facts.firewall)) == []


@pytest.mark.parametrize(("devices", "found"), [(("eth0",), True), (("eth1",), False)])
def test_a_chain_at_ingress_of_all_ways_in(devices: tuple[str, ...], found: bool) -> None:
    """The peer has to initiate, and its address is not known."""
    chain = FirewallChain("netdev", "wall", "early", "ingress", devices=devices)
    facts = with_peer(endpoint=None, latest_handshake=0.0, rx_bytes=0, tx_bytes=0)
    shut = replace(facts, probes=(), conf=None, firewall=FirewallRules((chain,), (EARLY,)))
    assert ("firewall_drop" in codes(shut)) is found


def test_a_healthy_tunnel_has_nothing() -> None:
    assert diagnose(HEALTHY) == Report(
        "wg0", (), (), {"datapath": "native", "tun": "csum", "udp": "gso gro"}
    )


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        (replace(HEALTHY, now=1000.0), "clock_wrong"),
        (with_peer(latest_handshake=NOW + 3600), "clock_set_back"),
        (replace(HEALTHY, after=None, before=None), "not_running"),
        (replace(HEALTHY, missing=("CAP_NET_RAW",)), "privileges"),
        (replace(HEALTHY, daemon_missing=("CAP_NET_ADMIN",)), "daemon_privileges"),
        (without_holder(), "holder_ended"),
        (without_holder(77), None),
        (replace(HEALTHY, links={"eth0": HEALTHY.links["eth0"]}), "interface_missing"),
        (
            replace(HEALTHY, links={"wg0": LinkFacts("wg0", True, 1420, ("10.77.0.1/24",))}),
            "address_missing",
        ),
        (silent(), "nothing_comes"),
        (
            silent(refusals={"192.0.2.2 51820": "nothing listens on that port"}),
            "endpoint_refuses",
        ),
        (silent({"bad_mac1": 3}), "peer_has_wrong_key"),
        (silent({"unknown_peer": 3}), "unknown_peer"),
        (silent({"handshake_invalid": 3}), "preshared_key_differs"),
        (silent({"old_timestamp": 3}), "peer_clock_back"),
        (silent({"send_network_unreachable": 3}), "endpoint_unreachable"),
        (silent({"send_firewall": 3}), "firewall_drop"),
        (with_peer(public_key=base64.b64encode(bytes(32)).decode()), "low_order_key"),
        (
            replace(HEALTHY, routes={"192.0.2.2": RouteFacts("lo", local=True)}),
            "endpoint_is_self",
        ),
        (asked("10.9.9.9"), "address_missed"),
        (with_peer(allowed_ips=("10.77.0.2/32", "192.0.2.128/25")), "allowed_ips_swallow"),
        (with_peer(endpoint="[2001:db8::2]:51820"), None),
        (replace(HEALTHY, options=Options(forward=True), firewall=CLOSED), "forwarding_off"),
        (replace(HEALTHY, firewall=FirewallRules(rules=(MASQUERADED,))), "forwarding_off"),
        (replace(with_peer(persistent_keepalive=300), firewall=GUARDED), "keepalive_late"),
        (replace(with_peer(persistent_keepalive=25), firewall=GUARDED), None),
        (
            replace(HEALTHY, links={**HEALTHY.links, "eth0": LinkFacts("eth0", True, 1400)}),
            "mtu_too_large",
        ),
        (replace(HEALTHY, probes=(replace(PROBE, passed=1232),)), "mtu_black_hole"),
    ],
)
def test_each_fault_has_its_code(facts: Facts, code: str | None) -> None:
    found = codes(facts)
    assert (found[0] if found else None) == code
    assert code == "forwarding_off" or len(found) <= 1


def test_a_silent_peer_whose_name_has_another_address() -> None:
    named = conf(endpoint="b.example:51820")
    moved = (LookUp("b.example", ("192.0.2.77",)),)
    facts = silent(conf=named, look_ups=moved)
    assert codes(facts) == ["endpoint_moved"]
    assert "192.0.2.77" in diagnose(facts).findings[0].evidence
    same = (LookUp("b.example", ("192.0.2.77", "192.0.2.2")),)
    assert codes(replace(facts, look_ups=same)) == ["nothing_comes"]
    # It roams, and answers from there.
    assert codes(replace(HEALTHY, conf=named, look_ups=moved)) == []


LAN = {"eth0": LinkFacts("eth0", True, 1500, ("192.0.2.1/24",))}
DOWN = replace(HEALTHY, before=None, after=None, links=LAN, probes=(), routes={}, unmarked={})


@pytest.mark.parametrize(
    ("obstacle", "code"),
    [
        (Obstacle("interface", "a TUN or TAP device", "end that"), "interface_taken"),
        (Obstacle("port", "UDP port 51820 is taken", "stop what listens there"), "port_taken"),
        (Obstacle("ipv6", "add address fd77::1/64: Permission denied", "turn it on"), "ipv6_off"),
        (Obstacle("route", "add route 10.5.0.0/24: File exists", "take it out"), "route_taken"),
        (Obstacle("dns", "set DNS: neither is there", "install one"), "dns_missing"),
        (Obstacle("firewall", "check firewall: nft is not installed", "install"), "nft_missing"),
        (Obstacle("other", "this process may open 8 files"), "up_refused"),
    ],
)
def test_what_up_would_fail_at_comes_before_that_it_is_not_up(
    obstacle: Obstacle, code: str
) -> None:
    assert codes(DOWN) == ["not_running"]
    facts = replace(DOWN, obstacles=(obstacle,))
    assert codes(facts) == [code, "not_running"]
    finding, running = diagnose(facts).findings
    assert obstacle.reason in finding.evidence
    assert "would not come up" in running.what
    hooked = replace(facts, conf=conf("PreUp = true"))
    assert code == "interface_taken" or "PreUp" in diagnose(hooked).findings[0].evidence


def test_a_network_that_the_host_is_in_is_named_once_before_up() -> None:
    routes = config.parse(
        CONF.format(interface="", key=THEIRS, endpoint="").replace("10.77.0.2/32", "192.0.2.0/24"),
        name="wg0",
    )
    taken = Obstacle("route", "add route 192.0.2.0/24: File exists", "x", "route 192.0.2.0/24")
    facts = replace(DOWN, conf=routes, obstacles=(taken,))
    assert codes(facts) == ["allowed_ips_swallow", "not_running"]
    assert "tunnel up" in diagnose(facts).findings[0].remedy


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("192.0.2.7/24", ["allowed_ips_swallow"]),
        ("192.0.2.7/32", []),
        ("192.0.0.7/16", []),
        ("fd00::7/64", []),
    ],
)
def test_the_network_of_an_address_is_that_of_the_host(address: str, found: list[str]) -> None:
    links = {**HEALTHY.links, "wg0": LinkFacts("wg0", True, 1420, (address,))}
    status = replace(STATUS, addresses=(address,))
    peers = HEALTHY.after.peers if HEALTHY.after is not None else ()
    facts = replace(HEALTHY, before=status, after=replace(status, peers=peers), links=links)
    assert codes(facts) == found
    below = replace(DOWN, conf=conf(f"Address = {address}"))
    assert codes(below) == [*found, "not_running"]


def test_noise_is_no_fault_while_the_peers_are_there() -> None:
    for reason in ("bad_mac1", "unknown_peer", "no_peer", "source_not_allowed", "replay"):
        assert codes(dropping(reason)) == []
    assert diagnose(dropping("rate_limited")).notes[0].code == "under_load"


def test_counters_from_before_do_not_explain_the_silence_of_today() -> None:
    facts = silent({"bad_mac1": 3})
    assert facts.before is not None
    assert facts.after is not None
    known = replace(facts.after.peers[0], latest_handshake=NOW - 999)
    facts = replace(
        facts,
        before=replace(facts.before, peers=(known,), drops={"bad_mac1": 3}),
        after=replace(facts.after, peers=(known,)),
    )
    assert codes(facts) == ["nothing_comes"]


def refused(facts: Facts, reason: str, **changes: Any) -> Facts:
    """A handshake was refused 40 s before the doctor looked, and no packet since."""
    assert facts.before is not None
    values = {"time": NOW - 40, "endpoint": "192.0.2.2:4711", "peer": None, **changes}
    before = replace(facts.before, refused=(RefusedHandshake(reason, **values),))
    return replace(facts, before=before)


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("bad_mac1", "peer_has_wrong_key"),
        ("unknown_peer", "unknown_peer"),
        ("old_timestamp", "peer_clock_back"),
    ],
)
def test_what_was_refused_counts_until_a_handshake_completes(reason: str, code: str) -> None:
    facts = refused(silent(), reason)
    assert codes(facts) == [code]
    (finding,) = diagnose(facts).findings
    assert "40 s ago" in finding.evidence
    assert finding.peer == THEIRS
    # Of another host, or followed by a handshake, it is no explanation.
    assert codes(refused(silent(), reason, endpoint="203.0.113.9:4711")) == ["nothing_comes"]
    assert facts.before is not None
    assert facts.after is not None
    shaken = replace(facts.after.peers[0], latest_handshake=NOW - 42)
    later = replace(
        facts,
        before=replace(facts.before, peers=(shaken,)),
        after=replace(facts.after, peers=(shaken,)),
    )
    assert codes(later) == ["nothing_comes"]
    assert codes(refused(HEALTHY, reason)) == []


def test_what_was_refused_of_one_peer_explains_no_other_at_its_address() -> None:
    facts = refused(silent(conf=None), "unknown_peer", endpoint="192.0.2.2:51820")
    twin = replace(PEER, public_key=OURS, latest_handshake=NOW)

    def codes_with(*twins: PeerStatus) -> list[str]:
        changed = {}
        for name in ("before", "after"):
            status = getattr(facts, name)
            moved = replace(status.peers[0], endpoint="192.0.2.2:9")
            changed[name] = replace(status, peers=(moved, *twins))
        return codes(replace(facts, before=changed["before"], after=changed["after"]))

    assert codes_with() == ["unknown_peer"]
    assert "unknown_peer" not in codes_with(twin)


def test_a_refused_handshake_is_known_by_its_key() -> None:
    facts = refused(silent(), "old_timestamp", endpoint="203.0.113.9:4711", peer=THEIRS)
    assert codes(facts) == ["peer_clock_back"]


def test_what_was_refused_of_a_peer_that_never_came_is_a_note() -> None:
    waiting = replace(silent(conf=conf(endpoint="")), probes=())
    assert waiting.before is not None
    never = replace(waiting.before.peers[0], endpoint=None, tx_bytes=0)
    status = replace(waiting.before, peers=(never,))
    facts = refused(replace(waiting, before=status, after=status), "bad_mac1")
    assert codes(facts) == []
    assert "peer_has_wrong_key" in [note.code for note in diagnose(facts).notes]


def test_initiations_alone_do_not_show_that_the_peer_hears_us() -> None:
    unanswered = (replace(PROBE, answered=False),)
    one_way = replace(with_peer(rx_bytes=1000 + 2 * 148), probes=unanswered)
    assert codes(one_way) == ["nothing_comes"]
    assert codes(replace(with_peer(rx_bytes=1000 + 32), probes=unanswered)) == []


def test_handshakes_that_were_never_answered_count_without_a_probe() -> None:
    never = with_peer(rx_bytes=0, tx_bytes=148, latest_handshake=0.0)
    assert codes(replace(never, probes=())) == ["nothing_comes"]
    idle = with_peer(rx_bytes=1000, latest_handshake=NOW - 999)
    assert codes(replace(idle, probes=())) == []
    kept = with_peer(rx_bytes=1000, latest_handshake=NOW - 999, persistent_keepalive=25)
    assert codes(replace(kept, probes=())) == ["nothing_comes"]
    phone = replace(kept, probes=(), conf=conf(endpoint=""))
    assert codes(phone) == []


def lost(*subjects: str, **changes: Any) -> Facts:
    """Healthy, but these were taken away."""
    return replace(
        HEALTHY, differences=tuple(Change("+", each, TAKEN) for each in subjects), **changes
    )


def test_what_was_taken_away_is_one_finding_and_its_cause() -> None:
    for subject in ("rule ipv4 99: lookup 5", "firewall ipv4", "route 10.9.0.0/16", "dns 9.9.9.9"):
        (finding,) = diagnose(lost(subject)).findings
        assert finding.code == "taken_away"
        assert subject in finding.evidence
    few = {**HEALTHY.links, "wg0": replace(HEALTHY.links["wg0"], networks=("fd77::1/64",))}
    taken = lost("address 10.77.0.1/24", "route 10.9.0.0/16", links=few)
    assert codes(taken) == ["address_missing"]
    down = {**HEALTHY.links, "wg0": replace(HEALTHY.links["wg0"], up=False)}
    assert codes(lost("link up mtu 1420", "route 10.9.0.0/16", links=down)) == ["interface_down"]
    assert codes(away(lost("route 10.77.0.2/32"))) == ["taken_away"]
    # A conf that was edited is no one's fault.
    edited = replace(HEALTHY, differences=(Change("+", "route 10.9.0.0/16"),))
    assert codes(edited) == []


def test_packets_of_a_full_tunnel_that_leave_it() -> None:
    wide = with_peer(allowed_ips=("0.0.0.0/0",))
    half = {"57.11.83.29": RouteFacts("eth0", network="0.0.0.0/1")}
    rest = {"147.92.31.5": RouteFacts("wg0", network="default")}
    (finding,) = diagnose(replace(wide, samples=half | rest)).findings
    assert finding.code == "traffic_leaks"
    assert finding.remedy.startswith("ip -4 route del 0.0.0.0/1 dev eth0")
    ruled = {"57.11.83.29": RouteFacts("eth0", network="default", rule="pref 9 lookup main")}
    (finding,) = diagnose(replace(wide, samples=ruled)).findings
    assert finding.remedy.startswith("ip -4 rule del pref 9 lookup main")
    unknown = {"57.11.83.29": RouteFacts("eth0", network="default")}
    (finding,) = diagnose(replace(wide, samples=unknown)).findings
    assert finding.remedy.startswith("ip -4 rule; ")
    assert codes(replace(wide, samples=half, conf=conf("Table = off"))) == []
    assert codes(replace(wide, samples=rest)) == []


def test_a_relay_on_this_host_is_a_place_like_any_other() -> None:
    relayed = with_peer(endpoint="127.0.0.1:8911")
    assert codes(replace(relayed, routes={"127.0.0.1": RouteFacts("lo", local=True)})) == []


def test_a_table_of_connections_that_is_full() -> None:
    count, limit = (f"net.netfilter.nf_conntrack_{word}" for word in ("count", "max"))
    sysctls = {count: "65536", limit: "65536"}
    (finding,) = diagnose(replace(HEALTHY, sysctls=sysctls)).findings
    assert finding.code == "conntrack_full"
    assert finding.remedy.startswith("sysctl -w net.netfilter.nf_conntrack_max=131072")
    assert codes(replace(HEALTHY, sysctls=sysctls | {count: "9"})) == []


def test_a_host_behind_this_one_that_does_not_know_the_way_back() -> None:
    behind = Behind("10.99.0.2", "eth1", "10.77.0.1", answered=True, answered_tunnel=False)
    asked_for = Options(address="10.99.0.2", forward=True)
    on = {"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"}
    facts = replace(HEALTHY, options=asked_for, sysctls=on, behind=behind)
    (finding,) = diagnose(facts).findings
    assert finding.code == "no_way_back"
    assert "ip saddr 10.77.0.0/24" in finding.remedy
    assert codes(replace(facts, firewall=FirewallRules(rules=(MASQUERADED,)))) == []
    assert codes(replace(facts, behind=replace(behind, answered_tunnel=True))) == []
    assert codes(replace(facts, behind=replace(behind, answered=False))) == ["address_silent"]


def test_a_network_of_two_peers_goes_to_the_later_one() -> None:
    text = f"[Peer]\nPublicKey = {OURS[:-2]}E=\nAllowedIPs = 10.77.0.2/32"
    facts = replace(HEALTHY, conf=conf(endpoint=f"192.0.2.2:51820\n{text}"))
    (finding,) = diagnose(facts).findings
    assert (finding.code, finding.peer) == ("allowed_ips_twice", THEIRS)


def test_a_peer_that_initiates_and_is_not_heard_back() -> None:
    # It sends initiations and gets no answer: it does not sleep.
    phone = with_peer(rx_bytes=1000 + 148, latest_handshake=NOW - 999)
    phone = replace(phone, conf=conf(endpoint=""), probes=())
    nowhere = {"192.0.2.2": RouteFacts(error="Network is unreachable")}
    assert codes(replace(phone, routes=nowhere)) == ["endpoint_unreachable"]
    sleeping = with_peer(rx_bytes=1000, latest_handshake=NOW - 999)
    sleeping = replace(sleeping, conf=conf(endpoint=""), probes=())
    assert codes(replace(sleeping, routes=nowhere)) == []


def test_a_phone_that_was_here_and_whose_answers_do_not_decrypt() -> None:
    facts = silent({"handshake_invalid": 2}, conf=conf(endpoint=""))
    (finding,) = diagnose(facts).findings
    assert (finding.code, finding.peer) == ("preshared_key_differs", THEIRS)
    assert codes(silent(conf=conf(endpoint=""))) == []


def test_an_mtu_that_another_program_changed_is_put_back_by_a_reload() -> None:
    large = {**HEALTHY.links, "wg0": replace(HEALTHY.links["wg0"], mtu=1480)}
    (finding,) = diagnose(lost("link up mtu 1420", links=large)).findings
    assert (finding.code, finding.remedy) == ("mtu_too_large", "tunnel reload wg0")
    (finding,) = diagnose(lost("link up mtu 1470", links=large)).findings
    assert finding.remedy.startswith("ip link set wg0 mtu 1440")


def test_what_up_warns_of_is_a_note() -> None:
    doubtful = conf("ListenPort = 1", "ListenPort = 2")
    assert doubtful.warnings
    report = diagnose(replace(HEALTHY, conf=doubtful))
    assert report.healthy
    assert "conf_doubtful" in [note.code for note in report.notes]


def test_a_daemon_that_hangs_or_is_not_ready_is_not_to_be_started() -> None:
    gone = replace(HEALTHY, before=None, after=None, daemon_error="no answer")
    (finding,) = diagnose(replace(gone, hangs=17)).findings
    assert finding.code == "daemon_hangs"
    assert finding.remedy.startswith("kill -CONT 17; ")
    assert "tunnel down" not in finding.remedy, "nothing leaves in between"
    (finding,) = diagnose(replace(gone, busy=True)).findings
    assert finding.code == "not_ready"


def test_an_address_asked_for_that_is_silent_while_its_peer_is_there() -> None:
    behind = Probe("10.88.0.5", THEIRS, False, sent=True)
    wider = with_peer(allowed_ips=("10.77.0.2/32", "10.88.0.0/24"))
    facts = replace(wider, options=Options(address="10.88.0.5"), probes=(behind, PROBE))
    assert codes(facts) == ["address_silent"]


def test_rp_filter_is_found_by_routes_and_by_what_it_dropped() -> None:
    strict = {**HEALTHY.sysctls, "net.ipv4.conf.wg0.rp_filter": "1"}
    assert codes(away(silent(sysctls=strict))) == ["route_misses_tunnel", "rp_filter"]
    assert codes(away(HEALTHY, sysctls=strict)) == ["route_misses_tunnel"]
    loose = {**strict, "net.ipv4.conf.all.rp_filter": "2"}
    assert codes(away(silent(sysctls=loose))) == ["route_misses_tunnel"]
    outside = {**HEALTHY.sysctls, "net.ipv4.conf.eth0.rp_filter": "1"}
    assert codes(silent(sysctls=outside, spoofed=4)) == ["rp_filter"]
    assert codes(replace(HEALTHY, sysctls=outside, spoofed=4)) == []


def test_a_connected_route_that_is_gone_is_told_once_and_only_where_it_is_due() -> None:
    gone = replace(HEALTHY, networks=("fd77::/64",))
    assert codes(gone) == ["connected_route_missing"]
    (finding,) = diagnose(gone).findings
    assert finding.remedy == (
        "ip route append 10.77.0.0/24 dev wg0 proto kernel scope link src 10.77.0.1"
    )
    # It is why packets to an address of its network go astray.
    assert codes(away(gone)) == ["connected_route_missing"]
    assert codes(away(replace(gone, networks=("10.77.0.0/24", "fd77::/64")))) == [
        "route_misses_tunnel"
    ]
    (finding,) = diagnose(replace(gone, networks=("10.77.0.0/24",))).findings
    assert finding.remedy == "ip route append fd77::/64 dev wg0 proto kernel metric 256"
    link = HEALTHY.links["wg0"]
    for odd in (
        replace(link, master="vrf0"),
        replace(link, unrouted=("10.77.0.1/24",)),
    ):
        assert codes(replace(gone, links={**HEALTHY.links, "wg0": odd})) == []
    assert codes(replace(gone, conf=conf("Table = off"))) == []
    by_hook = conf("PostUp = ip route del 10.77.0.0/24 dev %i")
    assert codes(replace(gone, conf=by_hook)) == []
    assert HEALTHY.after is not None
    single = replace(HEALTHY.after, addresses=("10.77.0.1/32", "fd77::1/128"))
    alone = replace(link, networks=single.addresses)
    none = replace(gone, after=single, links={**HEALTHY.links, "wg0": alone}, networks=())
    assert codes(none) == []


def test_only_the_interface_that_drops_is_to_be_loosened() -> None:
    link = LinkFacts("eth0.5", True, 1500)
    both = {f"net.ipv4.conf.{name}.rp_filter": "1" for name in ("eth0", "eth0.5")}
    facts = silent(sysctls=both, spoofed=4, links={**HEALTHY.links, "eth0.5": link})
    (finding,) = diagnose(facts).findings
    assert finding.remedy.startswith("tunnel trace wg0")
    step = Step("outer", "PREROUTING", "came in by eth0.5", 1.0)
    lost = Journey("in", "WireGuard datagram", OUTER, "lost", "routing", (step,), counts=False)
    (finding,) = diagnose(replace(facts, journeys=(lost,))).findings
    assert finding.remedy == "sysctl -w net.ipv4.conf.eth0/5.rp_filter=2"


def test_a_full_tunnel_needs_valid_marks_only_where_rp_filter_is_strict() -> None:
    strict = {**HEALTHY.sysctls, "net.ipv4.conf.eth0.rp_filter": "1"}
    marked = {"192.0.2.2": RouteFacts("wg0")}
    assert codes(silent(unmarked=marked)) == ["nothing_comes"]
    assert codes(silent(unmarked=marked, sysctls=strict)) == ["rp_filter"]
    assert codes(replace(HEALTHY, unmarked=marked, sysctls=strict)) == []
    valid = {**strict, "net.ipv4.conf.all.src_valid_mark": "1"}
    assert codes(silent(unmarked=marked, sysctls=valid)) == ["nothing_comes"]


def test_docker_is_told_from_other_firewalls_and_a_rule_for_the_tunnel_is_enough() -> None:
    on = {"net.ipv4.ip_forward": "1"}
    facts = replace(HEALTHY, options=Options(forward=True), sysctls=on, firewall=CLOSED)
    assert codes(facts) == ["forward_closed"]
    docker = replace(CLOSED, docker=frozenset({("ip", "filter", "DOCKER-USER")}))
    assert codes(replace(facts, firewall=docker)) == ["docker_forward"]
    assert codes(replace(facts, firewall=replace(docker, rules=(WORKING_RULE,)))) == []
    assert codes(replace(facts, options=Options())) == []


def died(
    packet: str, flow: str, step: tuple[Layer, str], handle: int | None = 7, counts: bool = True
) -> Journey:
    drop = Decision("inet user", "guard", handle, "" if handle is None else "udp drop", "drop")
    steps = (Step(*step, "DROPPED", 1.0, dropped=True, decisions=(drop,)),)
    return Journey("out", packet, flow, "dropped", str(drop), steps, counts=counts)


INITIATION = "WireGuard handshake initiation"
OUTER = "192.0.2.1:51820 → 192.0.2.2:51820"
ANSWER, INNER = "ICMP echo reply, id 7, sequence 1", "10.77.0.2 → 10.77.0.1"


@pytest.mark.parametrize("handle", [7, None])
@pytest.mark.parametrize(
    ("journey", "match"),
    [
        ((INITIATION, OUTER, ("outer", "OUTPUT")), "'udp sport 51820 accept'"),
        ((INITIATION, OUTER, ("outer", "INPUT")), "'udp dport 51820 accept'"),
        (
            (ANSWER, INNER, ("inner", "INPUT")),
            """'iifname "wg0" ct state established,related accept'""",
        ),
        ((ANSWER, INNER, ("inner", "PREROUTING")), """'iifname "wg0" accept'"""),
        ((ANSWER, INNER, ("inner", "OUTPUT")), """'oifname "wg0" accept'"""),
    ],
)
def test_a_verdict_seen_in_the_trace_is_undone_for_that_flow_alone(
    journey: tuple[str, str, tuple[Layer, str]], match: str, handle: int | None
) -> None:
    seen = died(*journey, handle=handle, counts=journey[0] != INITIATION)
    (finding,) = diagnose(silent(journeys=(seen, seen), probe_id=7)).findings
    assert finding.code == "firewall_drop"
    assert finding.remedy.startswith(f"nft insert rule inet user guard {match}")


def test_what_is_not_the_doctors_own_may_be_dropped_on_purpose() -> None:
    pinged_by_the_peer = died("ICMP echo request, id 8, sequence 1", INNER, ("inner", "INPUT"))
    assert codes(replace(HEALTHY, journeys=(pinged_by_the_peer,), probe_id=7)) == []
    unanswered = silent(journeys=(pinged_by_the_peer,), probe_id=7)
    assert codes(unanswered) == ["nothing_comes"]
    # One of many was dropped, by a limit perhaps: all sizes were answered after all.
    assert codes(replace(HEALTHY, journeys=(died(ANSWER, INNER, ("inner", "INPUT")),))) == []
    strangers = died(INITIATION, "10.1.1.1:5 → 10.1.1.2:51820", ("outer", "INPUT"), counts=False)
    assert codes(silent(journeys=(strangers,))) == ["nothing_comes"]


def test_keys_that_are_mixed_up_in_the_conf() -> None:
    private = "qBd0UoN0zNBbzYgo4AuOlITJ0LEMe8Mw6fU5rFQXnE4="
    facts = replace(HEALTHY, conf=conf(key=private))
    assert codes(facts) == ["private_key_as_peer"]
    notes = [note.code for note in diagnose(facts).notes]
    assert notes == ["conf_not_applied", "conf_doubtful"]


def test_the_longest_network_wins_and_the_later_peer_of_two_equal_ones() -> None:
    wide = replace(PEER, public_key="d2lkZQ==", allowed_ips=("10.0.0.0/8",))
    found = covering((PEER, wide), "10.77.0.2")
    assert found is not None
    assert found[0] is PEER
    assert covering((PEER, wide), "192.168.0.1") is None


def test_rules_are_read_from_nfts_listing() -> None:
    listing = """table ip filter { # handle 1
\tchain DOCKER-USER { # handle 1
\t}
\tchain FORWARD { # handle 2
\t\ttype filter hook forward priority 0; policy drop;
\t\tjump DOCKER-USER # handle 3
\t}
}
table inet tunnel-trace-wg0-1 { # handle 2
\tchain first { # handle 1
\t\tmeta nftrace set 1 # handle 2
\t}
}
"""
    assert parse_firewall(listing) == FirewallRules(
        (FirewallChain("ip", "filter", "FORWARD", "forward", "drop"),),
        (FirewallRule("ip", "filter", "FORWARD", "jump DOCKER-USER"),),
        frozenset({("ip", "filter", "DOCKER-USER")}),
    )


def refusal(*, code: int = 3, protocol: int = 17) -> bytes:
    inner = bytes([0x45]) + bytes(8) + bytes([protocol]) + bytes(6) + bytes([192, 0, 2, 2])
    udp = struct.pack("!HHHH", 1, 51820, 8, 0)
    return bytes([0x45]) + bytes(19) + bytes([3, code]) + bytes(6) + inner + udp


def test_icmp_errors_name_the_endpoint_that_refused() -> None:
    found = parse_refusal_untrusted(refusal(), 4)
    assert found == ("192.0.2.2 51820", "nothing listens on that port")
    assert parse_refusal_untrusted(refusal(protocol=6), 4) is None
    unknown = parse_refusal_untrusted(refusal(code=99), 4)
    assert unknown is not None
    assert "code 99" in unknown[1]
    for length in range(len(refusal()) - 4):
        for version in (4, 6):
            assert parse_refusal_untrusted(refusal()[:length], version) is None


def test_remedies_name_the_conf_wherever_it_lies() -> None:
    """The name alone is found only in /etc."""
    path = "/home/jo/my confs/wg0.conf"
    lying = replace(HEALTHY, conf_path=path)
    for facts, remedy in (
        (replace(lying, missing=("CAP_NET_RAW",)), f"sudo tunnel doctor '{path}'"),
        (
            replace(lying, daemon_missing=("CAP_NET_ADMIN",)),
            f"sudo tunnel restart '{path}'",
        ),
        (replace(lying, after=None, before=None), f"tunnel up '{path}'"),
        (replace(lying, after=None, before=None, busy=True), f"sleep 10; tunnel doctor '{path}'"),
    ):
        assert remedy in [finding.remedy for finding in diagnose(facts).findings]


def test_a_remedy_without_a_known_conf_has_no_placeholder() -> None:
    unknown = replace(HEALTHY, conf=None, conf_path="", after=None, before=None)
    for facts in (unknown, replace(unknown, hangs=77), replace(unknown, killed=True)):
        (found,) = diagnose(facts).findings
        assert "tunnel up with its conf" in found.remedy
        assert "}" not in found.remedy, "no line of shell: the words would be run"


def with_mode(facts: Facts, mode: str, bridge: str = "") -> Facts:
    assert facts.after is not None
    return replace(facts, after=replace(facts.after, mode=mode, bridge=bridge))


def test_no_route_is_missed_by_frames() -> None:
    missed = away(HEALTHY)
    assert codes(missed) == ["route_misses_tunnel"]
    assert codes(with_mode(missed, "tap")) == []


def test_the_addresses_of_a_port_are_looked_for_at_its_bridge() -> None:
    own = HEALTHY.links["wg0"]
    moved = replace(own, networks=())
    links = {**HEALTHY.links, "wg0": moved, "br0": replace(own, name="br0")}
    facts = with_mode(replace(HEALTHY, links=links), "tap", "br0")
    assert codes(facts) == []
    links["br0"] = replace(own, name="br0", networks=())
    (first, *_) = diagnose(facts).findings
    assert (first.code, first.evidence) == (
        "address_missing",
        "ip address show br0 does not list it",
    )


def test_a_peer_that_has_expired_is_no_difference() -> None:
    for expires, differs in ((NOW - 1, False), (NOW + 1, True)):
        peers = tuple(replace(peer, expires=expires) for peer in conf().peers)
        facts = replace(
            HEALTHY,
            conf=replace(conf(), peers=peers),
            after=replace(STATUS, peers=()),
            probes=(),
        )
        notes = [note.code for note in diagnose(facts).notes]
        assert ("conf_not_applied" in notes) is differs


def test_a_quota_that_is_used_up() -> None:
    def limited(over_quota: int) -> PeerLimits:
        return PeerLimits(quota=10, quota_used=10, over_quota=over_quota)

    facts = with_peer(limits=limited(7))
    before = replace(STATUS, peers=(replace(PEER, limits=limited(4)),))
    (finding,) = diagnose(replace(facts, before=before)).findings
    assert finding.code == "quota_reached"
    assert "grew by 3 " in finding.evidence
    earlier = replace(STATUS, peers=(replace(PEER, limits=limited(7)),))
    assert codes(replace(facts, before=earlier)) == []


@pytest.mark.parametrize(("mode", "reason"), [("tun", "ethernet"), ("tap", "not_ethernet")])
def test_a_peer_with_the_other_mode(mode: str, reason: str) -> None:
    assert codes(with_mode(dropping(reason), mode)) == ["mode_differs"]
    other = {"ethernet": "not_ethernet", "not_ethernet": "ethernet"}[reason]
    assert codes(with_mode(dropping(other), mode)) == []
    assert HEALTHY.after is not None
    earlier = replace(HEALTHY, after=replace(HEALTHY.after, drops={reason: 1}))
    earlier = with_mode(replace(earlier, before=earlier.after), mode)
    assert codes(earlier) == []
    unanswered = replace(earlier, probes=(replace(PROBE, answered=False, passed=0),))
    assert codes(unanswered) == ["mode_differs"]
