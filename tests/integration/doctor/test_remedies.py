"""`tunnel doctor` and what it advises: the remedy is carried out as printed, and then all is well.

What is planted here is undone by the remedies, or at the latest after the test.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import pytest

from tests.support.doctoring import (
    SHORT,
    A,
    B,
    Net,
    carry_out,
    codes,
    conf_is,
    conf_of,
    done_and_undone,
    examine,
    forget_sessions,
    reloaded,
    remedy_of,
    rules,
    sysctls,
)

pytestmark = pytest.mark.root

FIREWALL = """
    chain input {
        type filter hook input priority filter; policy drop;
        meta l4proto 58 accept
    }
    chain output {
        type filter hook output priority filter; policy accept;
        oifname "eth0" jump wild
    }
    chain wild {
        udp dport 51820 counter drop
    }
"""
PINGS = """
    chain late {
        type filter hook input priority 10; policy accept;
        meta l4proto 1 counter drop
    }
"""
HOLES = {
    "OUTPUT of the outer packet: table inet wall, chain wild",
    "INPUT of the outer packet: table inet wall, chain input, policy drop",
    "INPUT of the inner packet: table inet wall, chain input, policy drop",
    "INPUT of the inner packet: table inet pings, chain late",
}


def test_a_firewall_that_is_shut_is_opened_hole_by_hole(net: Net) -> None:
    seen: list[str] = []
    net.host.ping(B)  # with a session there is something to drop at once
    with rules(net.host, "inet wall", FIREWALL), rules(net.host, "inet pings", PINGS):
        for _ in HOLES:
            report = examine(net.a, wait=SHORT)
            assert codes(report) == {"firewall_drop"}, (report, seen)
            for finding in report["findings"]:
                seen.append(finding["evidence"])
                carry_out(net.a, finding["remedy"])
            if len(seen) >= len(HOLES):
                break
        assert codes(examine(net.a)) == set()
        for hole in HOLES:
            assert any(hole in evidence for evidence in seen), (hole, seen)
        # The rest is as shut as it was.
        listed = net.host.run(["nft", "list", "ruleset"]).stdout
        assert "policy drop" in listed
        assert net.far.run(["ping", "-c1", "-W1", "192.0.2.1"], check=False).returncode != 0
        assert net.far.run(["ping", "-c1", "-W1", "10.77.0.1"], check=False).returncode != 0


SHUT = """chain input {
    type filter hook input priority filter; policy accept;
    udp dport 51820 counter drop
}"""


@pytest.mark.foreign("wg")
def test_peers_that_come_forward_and_are_dropped(net: Net) -> None:
    """As a host sees it that has no Endpoint of its peers: it can only wait for them."""
    roams = replace(net.b.node, endpoint=None)
    with reloaded(net.a, conf_of(net.a.node, roams)):
        net.far.ping(A)
        # It was there just now: it is spoken to, and its answers are seen to be dropped.
        with rules(net.host, "inet wall", SHUT):
            report = examine(net.a, wait=SHORT)
            assert codes(report) == {"firewall_drop"}
            (finding,) = report["findings"]
            assert finding["evidence"].startswith("WireGuard ")
            assert "table inet wall, chain input, rule " in finding["evidence"]
        # Nobody knows where it is, and nothing comes: the rules tell.
        key = net.b.node.public_key
        net.host.run(["wg", "set", "wg0", "peer", key, "remove"])
        net.a.tunnel("reload", "wg0")
        with rules(net.host, "inet wall", SHUT):
            report = examine(net.a, wait=SHORT)
            assert codes(report) == {"firewall_drop"}
            (finding,) = report["findings"]
            assert "chain input: udp dport 51820 counter" in finding["evidence"]
            assert finding["peer"] == key
            carry_out(net.a, finding["remedy"])
            forget_sessions(net.b)
            net.far.ping(A)
            assert codes(examine(net.a)) == set()


FORWARD = """chain FORWARD {{
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    {more}
}}"""
DOCKER = "chain DOCKER-USER { }\nchain DOCKER { }\n" + FORWARD.format(more="jump DOCKER-USER")
V4, V6 = "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"


def test_a_router_that_forwards_nothing(net: Net) -> None:
    with (
        sysctls(net.host, V4, V6, value="0", old="0"),
        rules(net.host, "ip filter", DOCKER),
        rules(net.host, "ip6 filter", FORWARD.format(more="")),
    ):
        report = examine(net.a, "--forward")
        assert codes(report) == {"forwarding_off", "docker_forward", "forward_closed"}
        assert len(report["findings"]) == 4
        for finding in report["findings"]:
            carry_out(net.a, finding["remedy"])
        assert codes(examine(net.a, "--forward")) == set()
        chain = net.host.run(["nft", "list", "chain", "ip", "filter", "DOCKER-USER"]).stdout
        assert 'iifname "wg0" accept' in chain
        assert 'oifname "wg0" accept' in chain


def test_strict_rp_filter_with_a_route_that_misses_the_tunnel(net: Net) -> None:
    route = f"route replace {B}/32 dev "
    with (
        sysctls(net.host, "net.ipv4.conf.wg0.rp_filter", value="1", old="0"),
        done_and_undone(net.host, route + "eth0", route + "wg0"),
    ):
        report = examine(net.a, wait=SHORT)
        assert codes(report) == {"rp_filter", "route_misses_tunnel"}
        (finding,) = [each for each in report["findings"] if each["code"] == "rp_filter"]
        assert "it dropped" in finding["evidence"]
        # Loosened alone, answers come in; who speaks first still goes astray.
        carry_out(net.a, remedy_of(report, "rp_filter"))
        report = examine(net.a, wait=SHORT)
        assert codes(report) == {"route_misses_tunnel"}
        carry_out(net.a, remedy_of(report, "route_misses_tunnel"))
        assert codes(examine(net.a)) == set()


def test_connected_routes_that_somebody_deleted(net: Net) -> None:
    def routes() -> list[str]:
        return [net.host.run(["ip", v, "route", "show", "dev", "wg0"]).stdout for v in ("-4", "-6")]

    before = routes()
    net.host.ip("route del 10.77.0.0/24 dev wg0", "route del fd77::/64 dev wg0")
    report = examine(net.a, wait=SHORT)
    assert codes(report) == {"connected_route_missing"}
    assert len(report["findings"]) == 2
    for finding in report["findings"]:
        carry_out(net.a, finding["remedy"])
    assert codes(examine(net.a)) == set()
    assert routes() == before


def test_a_black_hole_for_large_packets(net: Net) -> None:
    # A veth end drops what its own MTU does not allow, and nobody hears of it.
    with done_and_undone(net.far, "link set eth0 mtu 1400", "link set eth0 mtu 1500"):
        report = examine(net.a)
        assert codes(report) == {"mtu_black_hole"}
        remedy = remedy_of(report, "mtu_black_hole")
        assert "MTU = 1344 in the conf" in remedy
        carry_out(net.a, remedy)
        try:
            assert codes(examine(net.a)) == set()
        finally:
            net.host.ip("link set wg0 mtu 1420")


GUARD = """chain input {
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    meta l4proto 58 accept
}"""


@pytest.mark.foreign("wg")
def test_keepalives_that_come_too_late_for_the_firewall(net: Net) -> None:
    slow, quick = replace(net.a.node, keepalive=300), replace(net.a.node, keepalive=25)
    with reloaded(net.a, conf_of(slow, net.b.node)), rules(net.host, "inet guard", GUARD):
        report = examine(net.a)
        assert codes(report) == {"keepalive_late"}
        remedy = remedy_of(report, "keepalive_late")
        carry_out(net.a, remedy)
        report = examine(net.a)
        assert codes(report) == set()
        assert '"persistent_keepalive": 25' in net.a.tunnel("show", "wg0", "--json")
        # The rest of the remedy is for the conf, so that it stays.
        assert codes(report, "notes") == {"conf_not_applied"}
        assert "PersistentKeepalive = 25 in the conf" in remedy
        with conf_is(net.a, conf_of(quick, net.b.node)):
            report = examine(net.a)
            assert codes(report) == codes(report, "notes") == set()
            assert net.a.tunnel("diff", "wg0") == "reload would change nothing\n"


def test_faults_that_do_not_silence_the_peer(net: Net) -> None:
    slow, greedy = (
        replace(net.a.node, keepalive=300),
        replace(net.b.node, routes=("192.0.2.128/25",)),
    )
    with ExitStack() as stack:
        stack.enter_context(reloaded(net.a, conf_of(slow, greedy)))
        stack.enter_context(rules(net.host, "inet guard", GUARD))
        stack.callback(net.host.ip, "link set wg0 mtu 1420")
        net.host.ip("link set wg0 mtu 1480", "address del fd77::1/64 dev wg0")
        report = examine(net.a)
        mended = {"mtu_too_large", "address_missing"}
        left = {"keepalive_late", "allowed_ips_swallow"}
        assert codes(report) == mended | left
        for code in mended:
            carry_out(net.a, remedy_of(report, code))
        assert codes(examine(net.a)) == left
        net.host.ping("fd77::2")


def test_an_interface_that_is_down_and_one_that_was_renamed(net: Net) -> None:
    net.host.ip("link set wg0 down")
    report = examine(net.a, wait=SHORT)
    assert codes(report) == {"interface_down"}
    carry_out(net.a, remedy_of(report, "interface_down"))
    assert codes(examine(net.a)) == set()
    net.host.ip("link set wg0 down", "link set wg0 name odd0", "link set odd0 up")
    report = examine(net.a, wait=SHORT)
    assert codes(report) == {"interface_missing"}
    carry_out(net.a, remedy_of(report, "interface_missing"))
    assert codes(examine(net.a)) == set()
