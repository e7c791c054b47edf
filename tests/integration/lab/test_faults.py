from __future__ import annotations

import json
import re
import socket
import time

import pytest

from tests.support.hosts import TwoHosts
from tests.support.pairs import OUTER
from tunnel.lab import Lab, LabError, faults, wait_for
from tunnel.lab.weather import Faults
from tunnel.lab.wire import Carrier, UserWire

pytestmark = pytest.mark.root


def pair(two: TwoHosts) -> tuple[socket.socket, socket.socket]:
    """A UDP socket on a at port 5000 and one on b at port 6000, which wait a second at most."""
    made = []
    for host, address in ((two.a, ("192.0.2.1", 5000)), (two.b, ("192.0.2.2", 6000))):
        made.append(host.socket(socket.AF_INET, socket.SOCK_DGRAM))
        made[-1].bind(address)
        made[-1].settimeout(1)
    return made[0], made[1]


def count_arriving(receiver: socket.socket) -> int:
    receiver.settimeout(0.05)
    arrived = 0
    while True:
        try:
            receiver.recv(100)
        except TimeoutError:
            return arrived
        arrived += 1


def test_loss_is_silent_and_of_the_size_asked_for(two_hosts: TwoHosts) -> None:
    a, b = pair(two_hosts)
    # Loss takes ARP too: without a known neighbour, everything would wait for that first.
    two_hosts.a.ping("192.0.2.2")
    with a, b:
        for percent, least, most in ((30, 30, 95), (100, 200, 200), (0, 0, 0)):
            faults.set_loss(two_hosts.a, "eth0", percent)
            for number in range(200):
                a.sendto(number.to_bytes(2, "big"), ("192.0.2.2", 6000))
            assert least <= 200 - count_arriving(b) <= most
    with pytest.raises(LabError, match="between 0 and 100"):
        faults.set_loss(two_hosts.a, "eth0", 101)


def test_a_blocked_sender_is_told_in_output_only(two_hosts: TwoHosts) -> None:
    a, b = pair(two_hosts)
    with a, b:
        faults.block(two_hosts.a, faults.Hook.OUTPUT, "udp dport 6000")
        with pytest.raises(PermissionError):
            a.sendto(b"x", ("192.0.2.2", 6000))
        faults.unblock(two_hosts.a, faults.Hook.OUTPUT)
        faults.block(two_hosts.b, faults.Hook.INPUT, "udp dport 6000")
        a.sendto(b"x", ("192.0.2.2", 6000))
        assert count_arriving(b) == 0
        faults.unblock(two_hosts.b, faults.Hook.INPUT)
        faults.unblock(two_hosts.b, faults.Hook.INPUT)
        a.sendto(b"x", ("192.0.2.2", 6000))
        assert count_arriving(b) == 1


@pytest.mark.foreign("iperf3")
def test_rate(two_hosts: TwoHosts) -> None:
    faults.set_rate(two_hosts.a, "eth0", 20)
    server = two_hosts.b.popen(["iperf3", "-s", "-1", "--forceflush"])
    server.wait_for_output("Server listening")
    run = two_hosts.a.run(["iperf3", "-c", "192.0.2.2", "-t", "1", "-J"])
    assert json.loads(run.stdout)["end"]["sum_received"]["bits_per_second"] < 25e6
    faults.set_rate(two_hosts.a, "eth0", None)


def test_nat_hides_the_inside_and_forgets_mappings(lab: Lab) -> None:
    a, router, b = lab.host("a"), lab.router("r"), lab.host("b")
    far = lab.routed(a, router, b)
    faults.masquerade(router, far.a_interface, udp_timeout=1)
    inside = a.socket(socket.AF_INET, socket.SOCK_DGRAM)
    outside = b.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with inside, outside:
        outside.bind(("203.0.113.1", 6000))
        outside.settimeout(5)
        inside.settimeout(0.3)
        inside.sendto(b"out", ("203.0.113.1", 6000))
        _, sender = outside.recvfrom(100)
        assert sender[0] == "203.0.113.254"
        outside.sendto(b"back", sender)
        assert inside.recv(100) == b"back"

        def answered() -> bool:
            outside.sendto(b"late", sender)
            try:
                return inside.recv(100) != b"late"
            except TimeoutError:
                return True

        # Every datagram keeps the mapping alive, so the silence comes first.
        time.sleep(2.5)
        assert answered()


def test_mtu_black_hole_swallows_and_says_nothing(lab: Lab) -> None:
    a, router, b = lab.host("a"), lab.router("r"), lab.host("b")
    far = lab.routed(a, router, b)
    faults.make_mtu_black_hole(router, far.a_interface, 1300)
    for address, overhead in (("203.0.113.1", 28), ("2001:db8:b::1", 48)):
        command = ["ping", "-n", "-c1", "-W1", "-M", "do", address, "-s"]
        assert "1 received" in a.run([*command, str(1300 - overhead)]).stdout
        lost = a.run([*command, str(1301 - overhead)], check=False)
        assert re.search(r"0 received, 100% packet loss", lost.stdout)
        assert "mtu" not in (lost.stdout + lost.stderr).lower()


@pytest.mark.parametrize("version", [4, 6])
def test_a_wire_in_user_space_can_be_bad(lab: Lab, version: int) -> None:
    a, b = lab.host("a"), lab.host("b")
    ours, theirs = OUTER[version]
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    with UserWire([a, b], Faults(), seed=1) as wire:
        for host, interface, address in zip((a, b), wire.interfaces, (ours, theirs), strict=True):
            host.add_addresses(interface, [f"{address}/{64 if version == 6 else 24}"])
        client, server = (host.socket(family, socket.SOCK_DGRAM) for host in (a, b))
        with client, server:
            check_wire(wire.carrier, client, server, (theirs, 6000))


def check_wire(
    wire: Carrier, client: socket.socket, server: socket.socket, target: tuple[str, int]
) -> None:
    """What it does to each datagram that client sends to server."""
    server.bind(target)
    for used in (server, client):
        used.settimeout(10)
    client.connect(target)
    client.send(b"ask")
    data, sender = server.recvfrom(100)
    assert data == b"ask"
    server.sendto(b"answer", sender)
    assert client.recv(100) == b"answer"

    wire.faults = Faults(reorder=1, reorder_delay=0.5)
    client.send(b"slow")
    wait_for(lambda: wire.waiting >= 1, 10, "the wire to hold the datagram")
    wire.faults = Faults()
    client.send(b"fast")
    assert [server.recv(100), server.recv(100)] == [b"fast", b"slow"]

    wire.faults = Faults(corrupt=1, duplicate=1)
    client.send(bytes(8))
    copies = [server.recv(100), server.recv(100)]
    assert copies[0] == copies[1] != bytes(8)
    assert sum(byte.bit_count() for byte in copies[0]) == 1

    wire.faults = Faults(reorder=0.3, reorder_delay=0.05)
    for number in range(50):
        client.send(bytes([number]))
    order = [server.recv(100)[0] for _ in range(50)]
    assert sorted(order) == list(range(50)) != order

    wire.faults = Faults(loss=1)
    client.send(b"lost")
    wait_for(lambda: wire.counts["lost"] >= 1, 10, "the wire to lose the datagram")
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.recv(100)
    assert wire.counts["reordered"] > 1

    wire.faults = Faults(rebind=3600)
    server.settimeout(10)
    client.send(b"from elsewhere")
    _, found = server.recvfrom(100)
    assert found[0] == sender[0]
    assert found[1] != sender[1]
    server.sendto(b"answer", found)
    assert client.recv(100) == b"answer"
