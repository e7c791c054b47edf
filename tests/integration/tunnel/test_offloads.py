"""Each offload off, on each datapath: the same packets arrive, only in smaller portions."""

from __future__ import annotations

import json
from functools import partial

import pytest

from tests.support.hosts import TwoHosts
from tests.support.pairs import OUTER, make_pair
from tests.support.transfer import check_transfer
from tunnel import datapath
from tunnel.datapath import ENVIRONMENT_VARIABLE as DATAPATH
from tunnel.device.features import ENVIRONMENT_VARIABLE as OFFLOADS_OFF
from tunnel.lab import Host, wait_for
from tunnel.lab.peers import Node, OurEnd, render_conf

pytestmark = pytest.mark.root

SWITCHES = {"tso": "TunTso", "uso": "TunUso", "gso": "UdpGso", "gro": "UdpGro"}
MEBIBYTE = 1 << 20


@pytest.mark.parametrize("off", ["nothing", *SWITCHES, "all"])
@pytest.mark.parametrize("name", datapath.DATAPATHS)
def test_what_is_sent_arrives_with_an_offload_off(two_hosts: TwoHosts, name: str, off: str) -> None:
    if name not in datapath.available():
        pytest.skip(f"the {name} datapath is not installed")
    nodes = [
        Node(host, (f"10.77.0.{number}/24", f"fd77::{number}/64"), OUTER[4][number - 1])
        for number, host in enumerate((two_hosts.a, two_hosts.b), start=1)
    ]
    a, b = (_end(node, other, name, off) for node, other in (nodes, reversed(nodes)))
    a.up()
    b.up()
    for end in (a, b):
        (status,) = json.loads(end.tunnel("show", "wg0", "--json"))
        assert status["datapath"] == name
        used = " ".join(status["offloads"].values())
        for offload in SWITCHES:
            if off in (offload, "all"):
                assert offload not in used
            elif offload != "uso":  # not every kernel has it
                assert offload in used
    two_hosts.a.ping(b.node.address(6), count=1)
    # Both ways, and both IP versions inside.
    check_transfer(two_hosts.a, two_hosts.b, b.node.address(4), 3 * MEBIBYTE + 1)
    check_transfer(two_hosts.b, two_hosts.a, a.node.address(6), MEBIBYTE + 77)


def _end(node: Node, other: Node, name: str, off: str) -> OurEnd:
    """One end, which is told of the offload by its conf if it is the first, else by environment."""
    # Whatever the whole suite runs under: here it is said for each end.
    conf, environment = render_conf(node, [other]), {DATAPATH: name, OFFLOADS_OFF: ""}
    if off == "nothing":
        return OurEnd(node, conf, environment)
    if node.host.name == "a":
        switches = SWITCHES.values() if off == "all" else [SWITCHES[off]]
        conf += "\n[Tunnel]\n" + "".join(f"{switch} = off\n" for switch in switches)
    else:
        environment[OFFLOADS_OFF] = off
    return OurEnd(node, conf, environment)


@pytest.mark.parametrize("name", datapath.DATAPATHS)
def test_batches_with_a_tail_arrive_whole(two_hosts: TwoHosts, name: str) -> None:
    if name not in datapath.available():
        pytest.skip(f"the {name} datapath is not installed")
    nodes = [
        Node(host, (f"10.77.0.{number}/24",), OUTER[4][number - 1])
        for number, host in enumerate((two_hosts.a, two_hosts.b), start=1)
    ]
    environment = {DATAPATH: name, OFFLOADS_OFF: ""}
    conf = render_conf(nodes[0], [nodes[1]]) + "\n[Tunnel]\nUdpShortTail = on\n"
    a = OurEnd(nodes[0], conf, environment)
    b = OurEnd(nodes[1], render_conf(nodes[1], [nodes[0]]), environment)
    a.up()
    b.up()
    assert "gso short-tail gro" in a.tunnel("show", "wg0")
    check_transfer(two_hosts.a, two_hosts.b, b.node.address(4), 3 * MEBIBYTE + 1)
    (status,) = json.loads(b.tunnel("show", "wg0", "--json"))
    assert not {"authentication", "malformed", "unknown_session"} & status["drops"].keys()


def test_frames_of_the_kernel_fit_one_batch_at_any_mtu(two_hosts: TwoHosts) -> None:
    pair = make_pair(two_hosts)
    a, b = pair.hosts
    for mtu, segments in ((1420, 45), (1280, 49), (8920, 7)):
        a.ip(f"link set wg0 mtu {mtu}")
        wait_for(partial(_has_segments, a, segments), 5, f"at most {segments} segments in a frame")
    check_transfer(a, b, pair.b.node.address(4), MEBIBYTE)
    # A frame that is forwarded would be taken apart into single packets.
    a.run(["sysctl", "-w", "net.ipv4.ip_forward=1"])
    wait_for(partial(_has_segments, a, 65535), 20, "no limit where packets are forwarded")


def _has_segments(host: Host, wanted: int) -> bool:
    (link,) = host.ip_json(["-details", "link", "show", "wg0"])
    return bool(link["gso_max_segs"] == wanted)
