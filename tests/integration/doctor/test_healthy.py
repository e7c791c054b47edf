"""`tunnel doctor` where all is well, however odd it looks: it says so, and leaves no traces."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import pytest

from tests.support.doctoring import (
    DOCTOR,
    IGNORED,
    SHORT,
    Net,
    carry_out,
    codes,
    conf_of,
    done_and_undone,
    examine,
    reloaded,
    remedy_of,
    rules,
    runs,
    tables,
)
from tunnel.lab.peers import Node, OurEnd

pytestmark = pytest.mark.root


def test_nothing_is_found_on_a_healthy_tunnel_and_nothing_is_left_behind(net: Net) -> None:
    before = tables(net.host)
    for end in (net.a, net.b):
        report = examine(end)
        assert codes(report) == codes(report, "notes") == set()
        assert report["skipped"] == []
    assert tables(net.host) == before


def test_what_was_dropped_before_is_told_and_is_no_fault(net: Net) -> None:
    nobody = "10.77.0.200"
    net.host.run(["ping", "-c", "1", "-W", "1", nobody], check=False)
    report = examine(net.a)
    assert codes(report) == set()
    (note,) = [each for each in report["notes"] if each["code"] == "dropped_earlier"]
    assert "no_peer " in note["evidence"]


def test_people_are_told_the_same(net: Net) -> None:
    ran = net.host.run([*DOCTOR, "--address", "fd77::2", "wg0"])
    assert ran.stdout.startswith("wg0: nothing wrong\n")
    assert "in use  datapath: " in ran.stdout


def test_nothing_is_found_on_a_full_tunnel(net: Net) -> None:
    there = replace(net.b.node, routes=("0.0.0.0/0", "::/0"))
    with reloaded(net.a, conf_of(net.a.node, there)):
        assert codes(examine(net.a)) == set()


NO_PINGS = """chain in {
    type filter hook input priority filter;
    iifname "wg1" icmp type echo-request counter drop
}"""
SHORT_TAILS = ("[Tunnel]", "UdpShortTail = on")
OFFLOADS_OFF = ("Table = off", "[Tunnel]", "TunOffload = off", "UdpOffload = off")


def test_policy_routing_link_local_addresses_pings_of_the_peer_and_a_container(net: Net) -> None:
    """One tunnel with all of these. Then its interface moves to where a container would be."""
    here = Node(net.host, ("10.78.0.1/32", "fe80::1/64"), "192.0.2.1", 51821, "wg1")
    there = Node(net.far, ("10.78.0.2/32", "fe80::2/64"), "192.0.2.2", 51821, "wg1")
    a, b = (
        OurEnd(here, conf_of(here, there, extra=OFFLOADS_OFF)),
        OurEnd(there, conf_of(there, here, extra=SHORT_TAILS)),
    )
    container = net.lab.host("container")
    with ExitStack() as stack:
        stack.enter_context(runs(a))
        stack.enter_context(runs(b))
        net.host.ip("route add 10.78.0.0/24 dev wg1 table 77")
        rule = "rule {} from 10.78.0.1 lookup 77"
        stack.enter_context(done_and_undone(net.host, rule.format("add"), rule.format("del")))
        net.host.set_sysctl("net.ipv4.conf.wg1.rp_filter", "1")
        with rules(net.host, "inet no_pings", NO_PINGS):
            stack.callback(net.far.popen(["ping", "-i", "0.2", "10.78.0.1"]).kill)
            report = examine(a)
            dropped = net.host.run(["nft", "list", "table", "inet", "no_pings"]).stdout
        assert codes(examine(a, "--address", "fe80::2")) == set()
        assert "counter packets 0 " not in dropped
        assert codes(report) == set()
        assert codes(report, "notes") == {"offloads_off"} - IGNORED
        (note,) = (note for note in examine(b)["notes"] if note["code"] == "short_tails")
        assert "as section [Tunnel] asks for" in note["what"]

        net.host.ip(f"link set wg1 netns {container.pid}")
        report = examine(a)
        assert codes(report) == {"interface_down"}
        carry_out(a, remedy_of(report, "interface_down"))
        report = examine(a, wait=SHORT)
        assert codes(report) == {"address_missing"}
        for finding in report["findings"]:
            carry_out(a, finding["remedy"])
        report = examine(a)
        assert codes(report) == set()
        assert codes(report, "notes") == {"offloads_off", "interface_elsewhere"} - IGNORED

        # The doctor itself is in the container.
        enter = ["nsenter", f"--net=/proc/{container.pid}/ns/net"]
        report = examine(a, command=[*enter, *DOCTOR])
        assert codes(report) == set()
        assert codes(report, "notes") == {"offloads_off", "interface_elsewhere"} - IGNORED
        assert report["skipped"] == []
