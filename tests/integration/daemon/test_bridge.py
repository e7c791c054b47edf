"""Mode = tap and Bridge: Ethernet across the tunnel, and what is around it on the machine."""

from __future__ import annotations

import signal
from base64 import b64decode

import pytest

from tests.support.daemons import follow, followed, kill, remains, rewrite, status
from tests.support.hosts import TwoHosts
from tests.support.pairs import OUTER, drops
from tests.support.taps import check_tagged, make_ends
from tunnel.lab import Host
from tunnel.lab.peers import Node, OurEnd, render_conf
from tunnel.packet.ethernet import station_address

pytestmark = pytest.mark.root

POOL = "10.77.0.96/28"
"""Addresses that the DHCP server gives to stations behind host b."""


def bridge_of(host: Host, interface: str) -> str:
    (link,) = host.ip_json(["link", "show", interface])
    return str(link.get("master", ""))


def test_frames_cross(two_hosts: TwoHosts) -> None:
    a, b = make_ends(two_hosts)
    a.up()
    b.up()
    a.node.host.ping("10.77.0.2")
    b.node.host.ping("fd77::1")
    # A full packet in one VLAN tag is not a byte too long for the path.
    check_tagged(a.node.host, b.node.host, 1400)
    check_tagged(b.node.host, a.node.host, 46)
    found = status(a)
    assert (found["mode"], found["mtu"]) == ("tap", 1400)
    assert found["peers"][0]["macs"] == 2  # that of b, and the one in VLAN 7
    assert "mac addresses: 2 learned" in a.tunnel("show", "wg0")
    assert a.tunnel("diff", "wg0") == "reload would change nothing\n"
    mac = station_address(b64decode(a.node.public_key))
    assert a.node.host.ip_json(["link", "show", "wg0"])[0]["address"] == mac.hex(":")
    # An address that is not b's gets no answer, not even to ARP.
    before = drops(a).get("source_not_allowed", 0)
    b.node.host.ip("address add 10.77.0.66/32 dev wg0")
    b.node.host.run(["ping", "-c", "1", "-w", "1", "-I", "10.77.0.66", "10.77.0.1"], check=False)
    assert drops(a)["source_not_allowed"] > before
    rewrite(a, "Mode = tap", "Mode = tun")
    assert "used only when the tunnel comes up: Mode" in a.tunnel("reload", "wg0")
    a.down()
    kill(b)
    b.down()
    for end in (a, b):
        assert remains(end.node.host) == []


@pytest.mark.foreign("busybox")
def test_a_dhcp_server_serves_a_station_behind_the_other_host(two_hosts: TwoHosts) -> None:
    a, b = make_ends(two_hosts, "Bridge = br0", routes=POOL)
    rewrite(b, "Address = 10.77.0.2/24, fd77::2/64\n", "")
    lab, server = two_hosts.lab, a.node.host
    station = lab.host("station")
    lab.link(b.node.host, station, [], [])
    a.up()
    b.up()
    assert bridge_of(server, "wg0") == bridge_of(b.node.host, "wg0") == "br0"
    assert status(a)["bridge"] == "br0"
    (port,) = (
        name for name in b.node.host.interfaces() if name not in ("lo", "eth0", "wg0", "br0")
    )
    b.node.host.ip(f"link set {port} master br0 up")
    conf = server.directory / "udhcpd.conf"
    conf.write_text(
        f"start 10.77.0.97\nend 10.77.0.97\ninterface br0\nlease_file {conf}.leases\n"
        f"pidfile {conf}.pid\noption subnet 255.255.255.0\noption router 10.77.0.1\n"
    )
    (server.directory / "udhcpd.conf.leases").touch()
    serving = server.popen(["busybox", "udhcpd", "-f", str(conf)])
    serving.wait_for_output("started")
    script = station.directory / "take"
    script.write_text(
        '#!/bin/sh\n[ "$1" = bound ] && ip address add "$ip/$mask" dev "$interface"\nexit 0\n'
    )
    script.chmod(0o755)
    station.run(
        ["busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-s", str(script)], timeout=30
    )
    taken = [str(each.address) for each in station.addresses("eth0")]
    assert "10.77.0.97/24" in taken
    station.ping("10.77.0.1")
    assert status(a)["peers"][0]["macs"] >= 1
    serving.stop()
    a.down()
    assert remains(server) == []
    # Something is in the bridge of b still: it stays until that is gone.
    b.down()
    assert "br0" in b.node.host.interfaces()
    b.up()
    b.node.host.ip(f"link set {port} nomaster")
    b.down()
    assert "br0" not in b.node.host.interfaces()


def test_a_bridge_of_two_tunnels_is_the_middle_of_a_star(two_hosts: TwoHosts) -> None:
    hub, lab = two_hosts.a, two_hosts.lab
    far = lab.host("far")
    lab.link(hub, far, ["198.51.100.1/24"], ["198.51.100.2/24"])
    spokes = (Node(two_hosts.b, ("10.77.0.2/24",)), Node(far, ("10.77.0.3/24",)))
    places = ((OUTER[4][0], "10.77.0.1/24"), ("198.51.100.1", "10.77.0.9/24"))
    ends = []
    for number, (spoke, (outer, address)) in enumerate(zip(spokes, places, strict=True)):
        others = tuple(other.addresses[0].replace("/24", "/32") for other in spokes)
        routes = tuple(route for route in others if route[:-3] not in spoke.addresses[0])
        port, name = 51820 + number, f"wg{number}"
        middle = Node(hub, (address,), outer, port, name, routes=routes)
        bridge = ["Mode = tap", "Bridge = br0"]
        ends.append(OurEnd(middle, render_conf(middle, [spoke], settings=bridge)))
        ends.append(OurEnd(spoke, render_conf(spoke, [middle], settings=bridge[:1])))
    for end in ends:
        end.up()
    two_hosts.b.ping("10.77.0.3")
    refused = ends[0].tunnel("trace", "wg0", check=False)
    assert "with Mode = tap the tunnel carries Ethernet frames: use tunnel capture" in refused
    for end in ends:
        end.down()
    assert hub.interfaces() == ["lo", "eth0", "eth1"]


def test_the_bridge_of_another_is_joined_and_left_as_it_was(two_hosts: TwoHosts) -> None:
    a, _ = make_ends(two_hosts, "Bridge = lan")
    host = a.node.host
    host.ip(
        "link add lan type bridge",
        "address add 10.77.0.1/24 dev lan",
        "address add 10.79.0.1/24 dev lan",
        "link set lan up",
    )
    before = host.addresses("lan")
    a.up()
    assert bridge_of(host, "wg0") == "lan"
    assert "fd77::1/64" in [str(each.address) for each in host.addresses("lan")]
    assert a.tunnel("diff", "wg0") == "reload would change nothing\n"
    rewrite(a, "fd77::1/64", "fd77::1/64, 10.80.0.1/24")
    assert "+ address 10.80.0.1/24" in a.tunnel("reload", "wg0")
    rewrite(a, "fd77::1/64, 10.80.0.1/24", "fd77::1/64")
    assert "- address 10.80.0.1/24" in a.tunnel("reload", "wg0")
    a.down()
    assert host.addresses("lan") == before
    host.ip("link delete lan")
    assert remains(host) == []


@pytest.mark.foreign("iptables", "ip6tables")
def test_dockers_firewall_lets_pass_what_goes_from_port_to_port(two_hosts: TwoHosts) -> None:
    a, _ = make_ends(two_hosts, "Bridge = br0")
    host = a.node.host
    host.run(["iptables", "-N", "DOCKER-USER"])
    a.up()
    chain = ["iptables", "-S", "DOCKER-USER"]
    ports = "-i br0 -o br0 -m comment --comment tunnel-wg0 -j ACCEPT"
    between = ["-N DOCKER-USER", f"-A DOCKER-USER {ports}"]
    assert host.run(chain).stdout.replace('"', "").splitlines() == between
    rewrite(a, "Bridge = br0\n", "Bridge = br0\nForward = on\n")
    a.tunnel("reload", "wg0")
    sides = host.run(chain).stdout.replace('"', "").splitlines()[1:]
    assert [" ".join(side.split()[2:4]) for side in sides] == ["-o br0", "-i br0"]
    rewrite(a, "Forward = on\n", "")
    a.tunnel("reload", "wg0")
    assert host.run(chain).stdout.replace('"', "").splitlines() == between
    a.down()
    assert host.run(chain).stdout.splitlines() == ["-N DOCKER-USER"]


def test_what_a_killed_daemon_left_is_removed(two_hosts: TwoHosts) -> None:
    a, _ = make_ends(two_hosts, "Bridge = br0", "Forward = on", "Masquerade = auto")
    host = a.node.host
    a.up()
    ruleset = host.run(["nft", "list", "ruleset"]).stdout
    assert 'iifname "br0"' in ruleset
    kill(a)
    host.wait_for(lambda: "wg0" not in host.interfaces(), 10, "the interface to go")
    assert "br0" in host.interfaces()
    a.down()
    assert remains(host) == []


def test_a_port_that_was_taken_out_is_missed_and_put_back(two_hosts: TwoHosts) -> None:
    a, _ = make_ends(two_hosts, "Bridge = br0")
    host = a.node.host
    a.up()
    events = follow(a)
    host.ip("link set wg0 nomaster")
    events.wait_for_output("port of bridge br0")
    assert followed(events)[-1]["items"] == ["port of bridge br0"]
    assert "port of bridge br0" in a.tunnel("diff", "wg0")
    a.tunnel("reload", "wg0")
    assert bridge_of(host, "wg0") == "br0"
    events.signal(signal.SIGINT)


def test_an_interface_that_is_no_bridge_is_refused(two_hosts: TwoHosts) -> None:
    a, _ = make_ends(two_hosts, "Bridge = eth0")
    refused = a.tunnel("up", str(a.conf), check=False)
    assert (
        "bridge eth0: another kind of interface has this name (name another one in Bridge"
        in refused
    )
    assert remains(a.node.host) == []
