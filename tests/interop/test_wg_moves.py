"""An interface of `tunnel-wg` that is moved, and changed under traffic."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.hosts import TwoHosts
from tests.support.tunnel_wg import mesh_of_tunnel_wg, nothing_lost, start, wg
from tunnel.lab import Host, LabError
from tunnel.lab.peers import Node, WireGuardGoEnd, render_conf

pytestmark = [pytest.mark.root, pytest.mark.foreign("wg")]

LARGEST_MTU = 34_736
OUTER = {4: ("192.0.2.1", "192.0.2.2"), 6: ("2001:db8::1", "2001:db8::2")}


def ends_of(two: TwoHosts, script: str, outer: int = 4) -> list[WireGuardGoEnd]:
    nodes = [
        Node(host, (f"10.77.0.{n}/24", f"fd77::{n}/64"), OUTER[outer][n - 1])
        for n, host in enumerate((two.a, two.b), start=1)
    ]
    return mesh_of_tunnel_wg(nodes, script)


def set_mtu(mtu: int, *hosts: Host) -> None:
    for host in hosts:
        host.ip(f"link set wg0 mtu {mtu}")


def ping_whole(host: Host, address: str, size: int) -> None:
    """One packet of `size` bytes in all, not to be split inside the tunnel."""
    headers = 48 if ":" in address else 28
    arguments = ["-c", "3", "-i", "0.1", "-W", "3", "-M", "do", "-s", str(size - headers)]
    said = host.run(["ping", "-n", *arguments, address]).stdout
    assert " 0% packet loss" in said


@pytest.mark.parametrize("outer", [4, 6])
def test_created_here_moved_and_used_there(two_hosts: TwoHosts, script: str, outer: int) -> None:
    a, b = two_hosts.a, two_hosts.b
    inner = two_hosts.lab.host("inner")
    here, _ = ends_of(two_hosts, script, outer)
    a.ping("10.77.0.2")
    a.ip(f"link set wg0 netns {inner.pid}")
    # It lost its addresses and went down, as every interface does.
    inner.add_addresses("wg0", here.node.addresses)
    inner.ip("link set wg0 up")
    assert "wg0" not in a.interfaces()
    for address in ("10.77.0.2", "fd77::2"):
        inner.ping(address, count=3)
    b.ping("10.77.0.1")
    # The outside stays where it was, and so does the socket of `wg`.
    assert ":51820" in a.run(["ss", "-Hulpn"]).stdout
    assert inner.run(["ss", "-Hulpn"]).stdout == ""
    assert wg(a, "show", "wg0", "listen-port") == "51820\n"

    # Replies may be on their way to the old port when that closes.
    with nothing_lost((inner, "10.77.0.2"), (inner, "fd77::2"), at_most=IN_FLIGHT):
        set_mtu(LARGEST_MTU, inner, b)
        for address in ("10.77.0.2", "fd77::2"):
            ping_whole(inner, address, LARGEST_MTU)
        set_mtu(1420, inner, b)
        for address in ("10.77.0.2", "fd77::2"):
            ping_whole(inner, address, 1420)
        # The port changes where the sockets are; the peer hears of it from our next packet.
        wg(a, "set", "wg0", "listen-port", "6000")
    assert wg(b, "show", "wg0", "endpoints").endswith(":6000\n")

    inner.ip("link set wg0 down")
    refused = inner.run(["ping", "-c", "1", "-W", "1", "10.77.0.2"], check=False)
    assert refused.returncode != 0
    inner.ip("link set wg0 up")
    inner.add_addresses("wg0", [here.node.addresses[1]])
    # Nothing of what was sent before delays the new handshake.
    inner.ping("10.77.0.2", timeout=3)

    inner.ip("link delete wg0")
    a.wait_for(lambda: not a.pids(), 5, "the daemon to see that its interface is gone")
    assert a.run(["ls", "/run/wireguard"]).stdout == ""


def test_namespace_that_ends_takes_the_interface_and_the_daemon_along(
    two_hosts: TwoHosts, script: str
) -> None:
    a = two_hosts.a
    inner = two_hosts.lab.host("inner")
    start(a, script)
    a.ip(f"link set wg0 netns {inner.pid}")
    inner.wait_for(lambda: "wg0" in inner.interfaces(), 5, "the interface")
    assert a.pids()
    inner.close()
    a.wait_for(lambda: not a.pids(), 10, "the daemon to see that its namespace is gone")


def test_moved_back_it_is_followed_as_before(two_hosts: TwoHosts, script: str) -> None:
    a, b = two_hosts.a, two_hosts.b
    inner = two_hosts.lab.host("inner")
    here, _ = ends_of(two_hosts, script)
    a.ip(f"link set wg0 netns {inner.pid}")
    inner.ip(f"link set wg0 netns {a.pid}")
    a.add_addresses("wg0", here.node.addresses)
    a.ip("link set wg0 up")
    a.ping("10.77.0.2", timeout=15)
    set_mtu(LARGEST_MTU, a, b)
    ping_whole(a, "10.77.0.2", LARGEST_MTU)
    a.ip("link delete wg0")
    a.wait_for(lambda: not a.pids(), 5, "the daemon to end")


@pytest.mark.parametrize("outer", [4, 6])
def test_mtu_changes_under_traffic(two_hosts: TwoHosts, script: str, outer: int) -> None:
    a, b = two_hosts.a, two_hosts.b
    ends_of(two_hosts, script, outer)
    a.ping("10.77.0.2")
    directions = ((a, "10.77.0.2"), (a, "fd77::2"), (b, "fd77::1"))
    with nothing_lost(*directions):
        for mtu in (LARGEST_MTU, 1280, 1420):
            set_mtu(mtu, a, b)
            ping_whole(a, "10.77.0.2", mtu)
            ping_whole(b, "fd77::1", mtu)


IN_FLIGHT = 20
"""Packets on their way to a port that closes, of a hundred a second: on a quiet machine none or
one a change, on a busy one what comes until the other side is told."""


def change_port(a: Host, b: Host, peer: str, outer: int) -> None:
    for port in (6000, 0, 51820):
        wg(a, "set", "wg0", "listen-port", str(port))


def change_endpoint(a: Host, b: Host, peer: str, outer: int) -> None:
    address = {4: "192.0.2.102", 6: "2001:db8::102"}[outer]
    b.add_addresses("eth0", [f"{address}/{24 if outer == 4 else 64}"])
    text = address if outer == 4 else f"[{address}]"
    wg(a, "set", "wg0", "peer", peer, "endpoint", f"{text}:51820")
    wg(b, "set", "wg0", "listen-port", "7000")
    wg(a, "set", "wg0", "peer", peer, "endpoint", f"{text}:7000")


@pytest.mark.parametrize("change", [change_port, change_endpoint])
@pytest.mark.parametrize("outer", [4, 6])
def test_port_and_endpoint_change_under_traffic(
    two_hosts: TwoHosts,
    script: str,
    outer: int,
    change: Callable[[Host, Host, str, int], None],
) -> None:
    a, b = two_hosts.a, two_hosts.b
    _, there = ends_of(two_hosts, script, outer)
    a.ping("10.77.0.2")
    handshake = wg(a, "show", "wg0", "latest-handshakes")
    with nothing_lost((a, "10.77.0.2"), (a, "fd77::2"), at_most=IN_FLIGHT):
        change(a, b, there.node.public_key, outer)
    assert wg(a, "show", "wg0", "latest-handshakes") == handshake


def test_port_change_that_is_refused_loses_nothing(two_hosts: TwoHosts, script: str) -> None:
    a = two_hosts.a
    ends_of(two_hosts, script)
    a.ping("10.77.0.2")
    with a.socket(2, 2) as holder:
        holder.bind(("0.0.0.0", 7777))
        with nothing_lost((a, "10.77.0.2")):
            for _ in range(5):
                with pytest.raises(LabError, match="Address already in use"):
                    wg(a, "set", "wg0", "listen-port", "7777")


def test_keepalive_greets_once_the_interface_is_up(two_hosts: TwoHosts, script: str) -> None:
    """Configured while down: nothing is sent, and nothing delays the first handshake."""
    a, b = two_hosts.a, two_hosts.b
    nodes = [
        Node(host, (f"10.77.0.{n}/24",), f"192.0.2.{n}", keepalive=25)
        for n, host in enumerate((a, b), start=1)
    ]
    mesh_of_tunnel_wg(nodes[1:], script)
    wg(b, "setconf", "wg0", "/dev/stdin", stdin=render_conf(nodes[1], nodes[:1], quick=False))
    b.ip("link set wg0 down")
    start(a, script)
    wg(a, "setconf", "wg0", "/dev/stdin", stdin=render_conf(nodes[0], nodes[1:], quick=False))
    assert wg(a, "show", "wg0", "transfer").endswith("\t0\t0\n")
    a.add_addresses("wg0", nodes[0].addresses)
    b.ip("link set wg0 up")
    a.ip("link set wg0 up")
    a.wait_for(
        lambda: not wg(a, "show", "wg0", "latest-handshakes").endswith("\t0\n"), 3, "a handshake"
    )
    a.ping("10.77.0.2")
