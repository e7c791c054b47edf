"""Debian's wg-quick with `tunnel-wg` as its userspace implementation."""

from __future__ import annotations

import pytest

from tests.support.hosts import TwoHosts
from tests.support.pairs import remains
from tests.support.tunnel_wg import SOCKET, mesh_of_tunnel_wg, wg
from tests.support.wg_quick import quick, write
from tunnel.lab.peers import Node, render_conf

pytestmark = [pytest.mark.root, pytest.mark.foreign("wg", "wg-quick")]


def nodes_of(two: TwoHosts, *, routes: tuple[str, ...] = ()) -> tuple[Node, Node]:
    a = Node(two.a, ("10.77.0.1/24", "fd77::1/64"), "192.0.2.1")
    b = Node(two.b, ("10.77.0.2/24", "fd77::2/64"), "192.0.2.2", routes=routes)
    return a, b


def test_up_and_down_leave_no_trace(two_hosts: TwoHosts, script: str) -> None:
    a, b = nodes_of(two_hosts)
    before = remains(two_hosts.a)
    conf = write(two_hosts.a, render_conf(a, [b], extra=["PostUp = echo %i is up"]))
    said = quick(two_hosts.a, script, "up", conf)
    assert "wg0 is up" in said
    mesh_of_tunnel_wg([b], script)
    wg(two_hosts.b, "setconf", "wg0", "/dev/stdin", stdin=render_conf(b, [a], quick=False))
    for address in ("10.77.0.2", "fd77::2"):
        two_hosts.a.ping(address)
    assert [str(found.address) for found in two_hosts.a.addresses("wg0")] == list(a.addresses)
    quick(two_hosts.a, script, "down", conf)
    two_hosts.a.wait_for(lambda: remains(two_hosts.a) == before, 5, "the daemon to end")


def test_all_traffic_of_a_host_goes_through_it(two_hosts: TwoHosts, script: str) -> None:
    a, b = nodes_of(two_hosts, routes=("0.0.0.0/0", "::/0"))
    before = remains(two_hosts.a)
    two_hosts.b.ip("address add 198.51.100.1/32 dev lo", "address add 2001:db8:5::1/128 dev lo")
    mesh_of_tunnel_wg([b], script)
    wg(two_hosts.b, "setconf", "wg0", "/dev/stdin", stdin=render_conf(b, [a], quick=False))
    conf = write(two_hosts.a, render_conf(a, [b]))
    quick(two_hosts.a, script, "up", conf)
    for address in ("198.51.100.1", "2001:db8:5::1"):
        two_hosts.a.ping(address)
    # To the far end's outer address too: only our own marked datagrams go beside the tunnel.
    assert wg(two_hosts.a, "show", "wg0", "fwmark") == "0xca6c\n"
    quick(two_hosts.a, script, "down", conf)
    two_hosts.a.wait_for(lambda: remains(two_hosts.a) == before, 5, "the daemon to end")


def test_save_and_strip(two_hosts: TwoHosts, script: str) -> None:
    a, b = nodes_of(two_hosts)
    conf = write(two_hosts.a, render_conf(a, [b], extra=["SaveConfig = true", "MTU = 1400"]))
    assert "Address" not in quick(two_hosts.a, script, "strip", conf)
    quick(two_hosts.a, script, "up", conf)
    wg(two_hosts.a, "set", "wg0", "peer", b.public_key, "allowed-ips", "10.99.0.0/16")
    quick(two_hosts.a, script, "save", conf)
    saved = conf.read_text()
    for line in (
        "Address = 10.77.0.1/24",
        "Address = fd77::1/64",
        "MTU = 1400",
        f"PrivateKey = {a.private_key}",
        "AllowedIPs = 10.99.0.0/16",
        "Endpoint = 192.0.2.2:51820",
    ):
        assert f"{line}\n" in saved
    assert saved.count("Address = ") == 2, "no address of the kernel's own invention"
    wg(two_hosts.a, "set", "wg0", "peer", b.public_key, "persistent-keepalive", "21")
    quick(two_hosts.a, script, "down", conf)
    assert "PersistentKeepalive = 21\n" in conf.read_text()
    quick(two_hosts.a, script, "up", conf)
    assert wg(two_hosts.a, "show", "wg0", "persistent-keepalive").endswith("\t21\n")
    quick(two_hosts.a, script, "down", conf)


def test_failed_up_takes_the_daemon_with_it(two_hosts: TwoHosts, script: str) -> None:
    a, b = nodes_of(two_hosts)
    before = remains(two_hosts.a)
    conf = write(two_hosts.a, render_conf(a, [b], extra=["PostUp = false"]))
    environment = {"WG_QUICK_USERSPACE_IMPLEMENTATION": script}
    failed = two_hosts.a.run(["wg-quick", "up", str(conf)], environment=environment, check=False)
    assert failed.returncode != 0
    two_hosts.a.wait_for(lambda: remains(two_hosts.a) == before, 5, "the daemon to end")
    assert SOCKET.rpartition("/")[2] not in "".join(before)
