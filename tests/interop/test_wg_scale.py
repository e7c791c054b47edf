"""255 × 256 networks of both families on one peer, in and out, while another peer's pings pass."""

from __future__ import annotations

import time
from ipaddress import ip_network
from pathlib import Path

import pytest

from tests.support.hosts import TwoHosts
from tests.support.tunnel_wg import mesh_of_tunnel_wg, nothing_lost, wg
from tunnel.lab.peers import Node, render_conf

pytestmark = [pytest.mark.root, pytest.mark.foreign("wg")]

SECONDS = 5.0
"""A bound for one setconf and one show; they take a second and a half on a quiet machine."""


def waited(pid: int) -> float:
    """Seconds that a process could have run and did not, because others had the processor."""
    # Documentation/scheduler/sched-stats.rst: time on the processor, time waiting for it, turns.
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


def test_130560_allowed_ips_go_in_and_come_back_whole(two_hosts: TwoHosts, script: str) -> None:
    nodes = [
        Node(host, (f"10.77.0.{n}/24", f"fd77::{n}/64"), f"192.0.2.{n}")
        for n, host in enumerate((two_hosts.a, two_hosts.b), start=1)
    ]
    mesh_of_tunnel_wg(nodes, script)
    a, b = two_hosts.a, two_hosts.b
    a.ping("10.77.0.2")
    networks = [f"11.{x}.{y}.0/24" for x in range(255) for y in range(256)]
    networks += [f"fd00:{x:x}:{y:x}::/48" for x in range(255) for y in range(256)]
    other = Node(a, ())
    conf = a.directory / "large.conf"
    conf.touch(0o600)
    conf.write_text(
        render_conf(nodes[0], [nodes[1]], quick=False)
        + f"[Peer]\nPublicKey = {other.public_key}\nAllowedIPs = {', '.join(networks)}\n"
    )
    # Both ways: a packet of the other side must not come before a session that is gone.
    directions = ((a, "10.77.0.2"), (a, "fd77::2"), (b, "10.77.0.1"))
    (daemon,) = a.pids()
    with nothing_lost(*directions):
        begun, waited_before = time.monotonic(), waited(daemon)
        wg(a, "setconf", "wg0", str(conf))
        shown = wg(a, "show", "wg0", "allowed-ips")
        # What other tests take from us does not count: it is no matter of ours.
        took = time.monotonic() - begun - (waited(daemon) - waited_before)
        wg(a, "set", "wg0", "peer", other.public_key, "remove")
    found = dict(line.split("\t") for line in shown.splitlines())[other.public_key]
    assert found.split() == [str(ip_network(network)) for network in networks]
    assert took < SECONDS
