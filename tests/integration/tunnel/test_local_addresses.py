"""The outer address of either side is replaced: the very next packet goes through."""

from __future__ import annotations

import pytest

from tests.support.hosts import TwoHosts
from tests.support.pairs import drops, make_pair, status
from tunnel.lab import Host

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

PREFIX = {4: ("192.0.2.{}", 24), 6: ("2001:db8::{}", 64)}


def replace(host: Host, outer: int, old: int, new: int) -> str:
    """Give `host` another address on the cable, and take the one it had; the new one.

    Never without one, nor without a route to the other side: then nothing could be sent, by nobody.
    The kernel takes its own IPv4 route along with an address, and adds it again for the next one.
    """
    form, length = PREFIX[outer]
    if outer == 4:
        network = f"{form.format(0)}/{length}"
        host.ip(f"route replace {network} dev eth0 scope link metric 2000")
    host.set_sysctl("net.ipv4.conf.eth0.promote_secondaries", "1")
    host.add_addresses("eth0", [f"{form.format(new)}/{length}"])
    host.ip(f"address delete {form.format(old)}/{length} dev eth0")
    return form.format(new)


def one_packet(host: Host, address: str) -> None:
    """A single ping, which is answered; the time is for a machine that has much else to do."""
    host.run(["ping", "-n", "-c", "1", "-W", "20", address], timeout=30)


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("side", ["a", "b"], ids=["of-the-sender", "of-its-peer"])
def test_next_packet_goes_through(two_hosts: TwoHosts, outer: int, side: str) -> None:
    pair = make_pair(two_hosts, outer=outer)
    here, there = (pair.a, pair.b) if side == "a" else (pair.b, pair.a)
    number = 1 if side == "a" else 2
    host, other = here.node.host, there.node.host
    for version in (4, 6):
        # Both sides have heard of each other and know where from to answer.
        one_packet(host, there.node.address(version))
        one_packet(other, here.node.address(version))
    before = status(here)["peers"][0]["latest_handshake"]
    for step in range(1, 4):
        number, old = number + 10, number
        address = replace(host, outer, old, number)
        # In turn the sides of the tunnel have the first word.
        version = 4 if step % 2 else 6
        one_packet(host, there.node.address(version))
        assert address in status(there)["peers"][0]["endpoint"]
        one_packet(other, here.node.address(version))
    assert status(here)["peers"][0]["latest_handshake"] == before
    for end in (here, there):
        assert drops(end) == {}


@pytest.mark.parametrize("outer", [4, 6])
def test_under_traffic_only_what_is_in_flight_is_lost(two_hosts: TwoHosts, outer: int) -> None:
    pair = make_pair(two_hosts, outer=outer)
    a, _ = pair.hosts
    target = pair.b.node.address()
    one_packet(a, target)
    stream = a.popen(["ping", "-n", "-q", "-i", "0.01", "-c", "400", "-W", "20", target])
    number = 1
    for _ in range(5):
        number, old = number + 10, number
        replace(a, outer, old, number)
    assert stream.running, "the change outlasted the traffic"
    assert stream.wait(90) == 0
    # A reply to the address just left may be lost. What we send is not, which is what counts.
    assert drops(pair.a) == {}
    assert drops(pair.b) == {}
    statistics = pair.hosts[1].ip_json(["-statistics", "link", "show", "wg0"])[0]["stats64"]
    assert statistics["rx"]["packets"] >= 401
