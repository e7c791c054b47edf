"""Ours against wireguard-go, each as initiator and as responder."""

from __future__ import annotations

import json
from base64 import b64decode

import pytest

from tests.support.daemons import rewrite
from tests.support.hosts import TwoHosts
from tests.support.pairs import OUTER, drops
from tests.support.transfer import check_transfer
from tunnel.lab import Host, Lab
from tunnel.lab.peers import Node, OurEnd, generate_preshared_key, mesh
from tunnel.lab.weather import Faults
from tunnel.lab.wire import UserWire

pytestmark = [pytest.mark.root, pytest.mark.foreign("wireguard-go", "wg")]

MEBIBYTE = 1 << 20


def make_ends(
    two: TwoHosts, *, outer: int, psk: str | None = None, ours_knows: bool = True
) -> tuple[OurEnd, Node]:
    """Ours on a, wireguard-go on b. Only one of them knows where the other is: it initiates."""
    ours = Node(two.a, ("10.77.0.1/24", "fd77::1/64"), None if ours_knows else OUTER[outer][0])
    theirs = Node(two.b, ("10.77.0.2/24", "fd77::2/64"), OUTER[outer][1] if ours_knows else None)
    ends = mesh([ours, theirs], preshared_key=psk, foreign={"b": "wireguard-go"})
    for end in ends.values():
        end.up()
    end = ends["a"]
    assert isinstance(end, OurEnd)
    return end, theirs


def latest_handshake(host: Host) -> int:
    """Unix time of wireguard-go's latest handshake, as `wg` tells it."""
    return int(host.run(["wg", "show", "wg0", "latest-handshakes"]).stdout.split()[1])


def received(host: Host) -> int:
    """Bytes that came to wireguard-go, as `wg` tells them."""
    return int(host.run(["wg", "show", "wg0", "transfer"]).stdout.split()[1])


@pytest.mark.parametrize("ours_initiates", [True, False], ids=["initiator", "responder"])
@pytest.mark.parametrize("outer", [4, 6])
def test_ping_and_files_both_ways(two_hosts: TwoHosts, outer: int, ours_initiates: bool) -> None:
    ours, theirs = make_ends(two_hosts, outer=outer, ours_knows=ours_initiates)
    a, b = two_hosts.a, two_hosts.b
    first, then = ((a, theirs), (b, ours.node)) if ours_initiates else ((b, ours.node), (a, theirs))
    for host, target in (first, then):
        for version in (4, 6):
            host.ping(target.address(version), count=2)
    check_transfer(a, b, theirs.address(4), 16 * MEBIBYTE + 5)
    check_transfer(b, a, ours.node.address(6), 16 * MEBIBYTE + 5)
    log = a.run(["cat", "/run/tunnel/wg0.log"]).stdout
    assert ("completed on our initiative" in log) is ours_initiates


def test_preshared_key(two_hosts: TwoHosts) -> None:
    _, theirs = make_ends(two_hosts, outer=4, psk=generate_preshared_key())
    two_hosts.a.ping(theirs.address())


def test_ethernet_frames_are_dropped_quietly(two_hosts: TwoHosts) -> None:
    """It takes EtherIP for no packet, whatever is in it; its own packets are no frames to us."""
    ours, theirs = make_ends(two_hosts, outer=4)
    a, b = two_hosts.a, two_hosts.b
    ours.down()
    rewrite(ours, "[Peer]\n", "[Tunnel]\nMode = tap\n[Peer]\n")
    ours.up()
    before = received(b)
    a.run(["ping", "-c", "2", "-W", "1", theirs.address()], check=False)
    assert latest_handshake(b) > 0
    assert received(b) > before
    assert b.ip_json(["-s", "link", "show", "wg0"])[0]["stats64"]["rx"]["packets"] == 0
    b.run(["ping", "-c", "1", "-W", "1", ours.node.address()], check=False)
    assert drops(ours)["not_ethernet"] >= 1


def test_the_kernels_vxlan_carries_ethernet_to_it(two_hosts: TwoHosts) -> None:
    """As docs/containers.md has it, for networks with stock peers."""
    make_ends(two_hosts, outer=4)
    hosts = two_hosts.a, two_hosts.b
    for host, own, other in zip(hosts, (1, 2), (2, 1), strict=True):
        ends = f"local 10.77.0.{own} remote 10.77.0.{other}"
        host.ip(
            f"link add vx0 mtu 1370 type vxlan id 7 {ends} dstport 4789 dev wg0",
            f"address add 10.88.0.{own}/24 dev vx0",
            "link set vx0 up",
        )
    # The longest packet that fits, found by ARP.
    hosts[0].run(["ping", "-n", "-c", "1", "-w", "10", "-M", "do", "-s", "1342", "10.88.0.2"])


@pytest.mark.foreign("iperf3")
@pytest.mark.parametrize("outer", [4, 6])
def test_200_megabytes_of_iperf3_both_ways(two_hosts: TwoHosts, outer: int) -> None:
    _, theirs = make_ends(two_hosts, outer=outer)
    a, b = two_hosts.a, two_hosts.b
    for direction in ([], ["-R"]):
        server = b.popen(["iperf3", "-s", "-1", "--forceflush"])
        server.wait_for_output("Server listening")
        run = a.run(["iperf3", "-c", theirs.address(), "-n", "200M", "-J", *direction], timeout=110)
        assert json.loads(run.stdout)["end"]["sum_sent"]["bytes"] >= 200 * MEBIBYTE
        assert server.wait(10) == 0


def test_restart_of_wireguard_go_is_survived(two_hosts: TwoHosts) -> None:
    ours, theirs = make_ends(two_hosts, outer=4, ours_knows=True)
    a, b = two_hosts.a, two_hosts.b
    a.ping(theirs.address())
    before = set(b.pids())
    b.ip("link delete wg0")
    b.wait_for(lambda: not before & set(b.pids()), 10, "wireguard-go to end")
    again = mesh([ours.node, theirs], foreign={"b": "wireguard-go"})["b"]
    again.up()
    # Nothing tells us that the session is gone: 15 s of silence do.
    a.ping(theirs.address(), timeout=30)


@pytest.mark.parametrize("greater", [False, True], ids=["smaller", "greater"])
def test_initiations_that_cross_give_a_session_at_once(lab: Lab, greater: bool) -> None:
    """Both ends start while the other's initiation is on its way, 300 ms each way.

    wireguard-go forgets its own initiation when it answers ours; ours must stay open, whose public
    key is the greater one or not.
    """
    a, b = lab.host("a"), lab.host("b")
    ours = Node(a, ("10.77.0.1/24",), OUTER[4][0])
    theirs = Node(b, ("10.77.0.2/24",), OUTER[4][1])
    while (b64decode(ours.public_key) > b64decode(theirs.public_key)) is not greater:
        ours = Node(a, ours.addresses, ours.endpoint)
    for end in mesh([ours, theirs], foreign={"b": "wireguard-go"}).values():
        end.up()
    with UserWire([a, b], Faults()) as wire:
        for node, interface in zip((ours, theirs), wire.interfaces, strict=True):
            node.host.add_addresses(interface, [f"{node.endpoint}/24"])
        # Each knows the other's Ethernet address; there is no session yet.
        a.ping(OUTER[4][1])
        wire.carrier.faults = Faults(delay=0.3)
        pings = [
            node.host.popen(["ping", "-n", "-c", "1", "-W", "4", peer.address()])
            for node, peer in ((ours, theirs), (theirs, ours))
        ]
        # Before any of the two would repeat its initiation, which is after 5 s.
        for ping in pings:
            assert ping.wait(6) == 0, ping.log()


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("ours_initiates", [True, False], ids=["initiator", "responder"])
def test_rekey_after_two_minutes_loses_nothing(two_hosts: TwoHosts, ours_initiates: bool) -> None:
    ours, theirs = make_ends(two_hosts, outer=4, ours_knows=ours_initiates)
    source, target = (
        (two_hosts.a, theirs.address()) if ours_initiates else (two_hosts.b, ours.node.address())
    )
    source.ping(target)
    first = latest_handshake(two_hosts.b)
    ping = source.popen(["ping", "-n", "-i", "0.5", "-w", "128", "-q", target])
    two_hosts.b.wait_for(lambda: latest_handshake(two_hosts.b) > first, 135, "a second handshake")
    assert latest_handshake(two_hosts.b) - first >= 119
    assert ping.wait(140) == 0
    assert " 0% packet loss" in ping.log(), ping.log()
