"""Faults of the network between the two ends, and of the host's own part of it."""

from __future__ import annotations

import re
import time

import pytest

from tests.support.daemons import rewrite
from tests.support.fault_figures import Figures
from tests.support.fault_net import OUTER, Net
from tests.support.pairs import drops, status
from tests.support.transfer import check_transfer
from tunnel.lab import faults

pytestmark = pytest.mark.root

RECOVERED = 20.0
"""Seconds within which packets must come through again; for a machine that has much else to do."""


def dropped(net: Net) -> list[dict[str, int]]:
    """What both ends have dropped; not what a host says to all, for which there is no peer."""
    return [
        {reason: count for reason, count in drops(end).items() if reason != "link_multicast"}
        for end in (net.a, net.b)
    ]


def test_loss(net: Net, figures: Figures) -> None:
    before = dropped(net)
    with net.stream() as stream:
        begun = stream.flow()
        faults.set_loss(net.there, "eth0", 20)
        stream.wait_sent(100)
        faults.set_loss(net.there, "eth0", 0)
        healed = stream.mark()
        found = stream.recovery(begun, healed, RECOVERED)
        assert stream.recovery(healed, stream.flow(20), RECOVERED).lost == 0
    figures.recovery("20 % of the packets are lost", found)
    assert 0 < found.lost < found.sent
    assert found.refused == 0
    # What the wire takes is gone; the tunnel drops nothing beside it.
    assert dropped(net) == before


def test_firewall(net: Net, figures: Figures) -> None:
    before = drops(net.a).get("send_firewall", 0)
    with net.stream() as stream:
        begun = stream.flow()
        faults.block(net.here, faults.Hook.OUTPUT, "udp dport 51824")
        net.wait_for_drops("send_firewall", before)
        faults.unblock(net.here, faults.Hook.OUTPUT)
        found = stream.recovery(begun, stream.mark(), RECOVERED)
    figures.recovery("a firewall refuses what is sent (EPERM)", found)
    # Each of them is counted.
    assert found.lost <= drops(net.a)["send_firewall"] - before


def test_rate(net: Net, figures: Figures) -> None:
    faults.set_rate(net.here, "eth0", 20)
    try:
        with net.stream() as stream:
            begun = stream.flow()
            start = time.monotonic()
            check_transfer(net.here, net.there, net.b.node.address(), 1 << 20)
            seconds = time.monotonic() - start
            found = stream.recovery(begun, stream.mark(), RECOVERED)
    finally:
        faults.set_rate(net.here, "eth0", None)
    figures.note("1 MiB of TCP by 20 Mbit/s", seconds, f"{found.lost} of {found.sent}")
    # The queue before the bottleneck may be full; the tunnel makes no error of it.
    assert not [reason for reason in drops(net.a) if "no_buffers" in reason]


def test_link_flap(net: Net, figures: Figures) -> None:
    before = drops(net.a).get("send_network_unreachable", 0)
    with net.stream() as stream:
        begun = stream.flow()
        net.here.ip("link set eth0 down")
        net.wait_for_drops("send_network_unreachable", before)
        # The kernel took the route along, and whoever set it up sets it again.
        net.here.ip("link set eth0 up", "route add default via 198.51.100.254 dev eth0")
        found = stream.recovery(begun, stream.mark(), RECOVERED)
    net.set_up_ipv6()
    figures.recovery("the link goes down and up", found)
    assert found.refused == 0


REASONS = {
    "unreachable": "send_host_unreachable",
    "prohibit": "send_prohibited",
    "blackhole": "send_invalid",
}


def test_routes(net: Net, figures: Figures) -> None:
    for kind, reason in REASONS.items():
        before = drops(net.a).get(reason, 0)
        with net.stream() as stream:
            begun = stream.flow()
            net.here.ip(f"route add {kind} {OUTER[4][1]}")
            net.wait_for_drops(reason, before)
            net.here.ip(f"route del {kind} {OUTER[4][1]}")
            found = stream.recovery(begun, stream.mark(), RECOVERED)
        figures.recovery(f"a route to the peer is {kind}", found)
        assert found.refused == 0


def test_own_address_changes(net: Net, figures: Figures) -> None:
    net.here.set_sysctl("net.ipv4.conf.eth0.promote_secondaries", "1")
    with net.stream() as stream:
        begun = stream.flow()
        for new, old in ((2, 1), (1, 2)):
            net.here.add_addresses("eth0", [f"198.51.100.{new}/24"])
            net.here.ip(
                f"address delete 198.51.100.{old}/24 dev eth0",
                "route replace default via 198.51.100.254 dev eth0",
            )
            found = stream.recovery(begun, stream.mark(), RECOVERED)
            begun = stream.mark()
            assert f"198.51.100.{new}:" in status(net.b)["peers"][0]["endpoint"]
    figures.recovery("our own address is replaced", found)


def pings(net: Net, size: int, *, answered: bool) -> None:
    """A packet of `size` bytes, headers included, through the tunnel."""
    command = ["ping", "-n", "-c", "1", "-M", "do", "-s", str(size - 28), net.b.node.address()]
    bound = ["-w", "10"] if answered else ["-W", "1"]
    printed = net.here.run([*command, *bound], check=False).stdout
    assert f"{int(answered)} received" in printed, (size, printed)


def test_mtu_black_hole(net: Net, net6: Net, figures: Figures) -> None:
    faults.make_mtu_black_hole(net.router, "eth1", 1300)
    # A veth takes nothing in that is larger than its own MTU, so b has to know it.
    faults.set_mtu(net.there, "eth0", 1300)
    try:
        with net.stream(size=1392) as stream:
            start = stream.flow()
            found = stream.recovery(start, stream.flow(20), RECOVERED)
        figures.recovery("a black hole of 1300 bytes, by IPv4", found)
        # Datagrams of IPv4 may be fragmented on their way. By IPv6 they may not: small packets
        # pass, full ones do not, until the MTU of the tunnel fits.
        assert found.lost == 0
        pings(net6, 1000, answered=True)
        pings(net6, 1420, answered=False)
        with net6.stream(size=1152) as stream:
            begun = stream.mark()
            net6.here.ip("link set wg6 mtu 1220")
            net6.there.ip("link set wg6 mtu 1220")
            found = stream.recovery(begun, stream.mark(), RECOVERED)
        figures.recovery("a black hole of 1300 bytes, by IPv6, then MTU = 1220", found)
        pings(net6, 1220, answered=True)
    finally:
        faults.unblock(net.router, faults.Hook.OUTPUT)
        faults.set_mtu(net.router, "eth1", 1500)
        faults.set_mtu(net.there, "eth0", 1500)
        for end in (net6.a, net6.b):
            end.node.host.ip("link set wg6 mtu 1420")


def test_nat(net: Net, figures: Figures) -> None:
    rewrite(net.a, "Endpoint = ", "PersistentKeepalive = 1\nEndpoint = ")
    net.a.tunnel("reload", "wg4")
    faults.masquerade(net.router, "eth1", udp_timeout=2)
    try:
        net.here.ping(net.b.node.address())
        assert status(net.b)["peers"][0]["endpoint"] == "203.0.113.254:51824"
        # In a silence of more than the NAT's two seconds only keepalives leave, and hold the way.
        before = status(net.b)["peers"][0]["rx_bytes"]
        keepalive = 32
        net.there.wait_for(
            lambda: status(net.b)["peers"][0]["rx_bytes"] >= before + 3 * keepalive,
            RECOVERED,
            "three keepalives",
        )
        with net.stream(back=True) as stream:
            begun = stream.flow(1)
            assert stream.recovery(begun, stream.mark(), RECOVERED).lost == 0
            begun = stream.mark()
            faults.forget_mappings(net.router)
            found = stream.recovery(begun, stream.mark(), RECOVERED)
        figures.recovery("a NAT forgets its mappings, keepalive 1 s", found)
    finally:
        faults.end_masquerade(net.router)
        rewrite(net.a, "PersistentKeepalive = 1\n", "")
        net.a.tunnel("reload", "wg4")


def test_ipv6_disabled(net6: Net, figures: Figures) -> None:
    before, _ = dropped(net6)
    with net6.stream() as stream:
        begun = stream.flow()
        net6.here.set_sysctl("net.ipv6.conf.eth0.disable_ipv6", "1")
        stream.wait_sent(20)
        net6.here.set_sysctl("net.ipv6.conf.eth0.disable_ipv6", "0")
        net6.set_up_ipv6()
        found = stream.recovery(begun, stream.mark(), RECOVERED)
    figures.recovery("IPv6 is switched off and on again", found)
    after, _ = dropped(net6)
    new = {reason for reason, count in after.items() if count > before.get(reason, 0)}
    assert new <= {"send_network_unreachable", "send_no_address", "send_host_unreachable"}
    assert new
    assert re.fullmatch(r"\[2001:db8:b::1\]:\d+", status(net6.a)["peers"][0]["endpoint"])
