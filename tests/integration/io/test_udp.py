"""UDP sockets while addresses, routes and rules of the host change under them."""

import array
import fcntl
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.io_namespace import Namespace
from tunnel.io.drops import IoDrop
from tunnel.io.endpoint import Endpoint
from tunnel.io.udp import Udp
from tunnel.io.udp_socket import SENT, Received
from tunnel.linux import kernel

pytestmark = pytest.mark.root

V4 = ("10.8.0.1", "10.8.0.11", "10.8.0.2", "24")
V6 = ("fd08::1", "fd08::11", "fd08::2", "64")
both_families = pytest.mark.parametrize("addresses", [V4, V6], ids=["v4", "v6"])


class Pair:
    """Two hosts on one wire: `a` with two addresses of each family, `b` with one."""

    def __init__(self, a: Namespace, b: Namespace, stack: ExitStack) -> None:
        self.a_host, self.b_host = a, b
        a.ip("link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", b.name)
        for host, count in ((a, 2), (b, 1)):
            for first, second, other, length in (V4, V6):
                for address in (first, second) if count == 2 else (other,):
                    nodad = ["nodad"] if ":" in address else []
                    host.ip("address", "add", f"{address}/{length}", "dev", "wire", *nodad)
            host.ip("link", "set", "wire", "up")
        with a.entered():
            self.a = stack.enter_context(Udp.open())
        with b.entered():
            self.b = stack.enter_context(Udp.open())


@pytest.fixture
def pair(netns: Namespace, other_netns: Namespace) -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(netns, other_netns, stack)


def receive(udp: Udp, family: socket.AddressFamily) -> Received:
    ready, _, _ = select.select([udp._sockets[family].sock], [], [], 5)
    assert ready, "nothing arrived"
    received = udp.receive(family, bytearray(70_000))
    assert received is not None
    return received


def at(host: str, udp: Udp) -> Endpoint:
    return Endpoint.from_sockaddr((host, udp.port))


def greet(pair: Pair, reached: str) -> Endpoint:
    """Let b reach a at one of its addresses; return where a then sends its replies."""
    pair.b.send(b"hello", 5, at(reached, pair.a))
    return receive(pair.a, at(reached, pair.a).family).origin.endpoint


@both_families
def test_replies_leave_from_the_second_address(
    pair: Pair, addresses: tuple[str, str, str, str]
) -> None:
    _, second, _, _ = addresses
    endpoint = greet(pair, second)
    assert pair.a.send(bytes(5000), 1200, endpoint, 1) is SENT
    reply = receive(pair.b, endpoint.family)
    assert reply.origin.endpoint.same_remote(at(second, pair.a))
    assert reply.ecn == 1


@both_families
@pytest.mark.parametrize("size", [100, 5000])
def test_the_very_next_packet_goes_through_when_that_address_is_removed(
    pair: Pair, addresses: tuple[str, str, str, str], size: int
) -> None:
    first, second, _, length = addresses
    endpoint = greet(pair, second)
    pair.a_host.ip("address", "delete", f"{second}/{length}", "dev", "wire")
    sent = pair.a.send(bytes(size), 1200, endpoint)
    assert sent.endpoint == endpoint.without_source()
    assert sent.drop is None
    reply = receive(pair.b, endpoint.family)
    assert reply.origin.endpoint.same_remote(at(first, pair.a))
    assert not pair.a.drops


@both_families
def test_refusals_of_routes_are_named_and_pass(
    pair: Pair, addresses: tuple[str, str, str, str]
) -> None:
    endpoint = at(addresses[2], pair.b)
    target = addresses[2] + ("/128" if ":" in addresses[2] else "/32")
    reasons = {
        "unreachable": {IoDrop.SEND_HOST_UNREACHABLE, IoDrop.SEND_NETWORK_UNREACHABLE},
        "prohibit": {IoDrop.SEND_PROHIBITED},
        "blackhole": {IoDrop.SEND_INVALID},
    }
    for kind, expected in reasons.items():
        pair.a_host.ip("route", "add", kind, target)
        for size in (100, 5000):
            assert pair.a.send(bytes(size), 1200, endpoint).drop in expected, kind
        pair.a_host.ip("route", "delete", kind, target)
    assert pair.a.send(b"x", 1, endpoint) is SENT
    assert receive(pair.b, endpoint.family).length == 1
    pair.a_host.ip("link", "set", "wire", "down")
    assert pair.a.send(b"x", 1, endpoint).drop is IoDrop.SEND_NETWORK_UNREACHABLE


@both_families
def test_a_firewall_is_a_named_drop(pair: Pair, addresses: tuple[str, str, str, str]) -> None:
    rules = (
        "add table inet t; add chain inet t o { type filter hook output priority 0; policy drop; }"
    )
    made = pair.a_host.run("nft", rules)
    assert made.returncode == 0, made.stderr
    endpoint = at(addresses[2], pair.b)
    sent = pair.a.send(bytes(5000), 1200, endpoint)
    assert (sent.drop, sent.dropped) == (IoDrop.SEND_FIREWALL, 5)
    assert pair.a.gso
    assert pair.a_host.run("nft", "delete table inet t").returncode == 0
    assert pair.a.send(bytes(5000), 1200, endpoint) is SENT


@both_families
def test_datagrams_above_the_mtu_are_fragmented_and_arrive(
    pair: Pair, addresses: tuple[str, str, str, str]
) -> None:
    endpoint = at(addresses[2], pair.b)
    pair.a_host.ip("link", "set", "wire", "mtu", "1300")
    assert pair.a.send(bytes(4400), 1452, endpoint) is SENT
    lengths = [receive(pair.b, endpoint.family).length for _ in range(4)]
    assert lengths == [1452, 1452, 1452, 44]
    assert pair.a.gso


def test_link_local_addresses_keep_their_scope(pair: Pair) -> None:
    output = pair.b_host.ip("-6", "address", "show", "dev", "wire", "scope", "link")
    host = output.split("inet6 ")[1].split("/")[0]
    with pair.a_host.entered():
        scope = socket.if_nametoindex("wire")
    # Duplicate address detection takes its second; until then there is no such source.
    endpoint = Endpoint.from_sockaddr((host, pair.b.port, 0, scope))
    for _ in range(50):
        if "tentative" not in pair.a_host.ip("-6", "address") + pair.b_host.ip("-6", "address"):
            break
        select.select([], [], [], 0.1)
    assert pair.a.send(b"over the link", 13, endpoint) is SENT
    received = receive(pair.b, socket.AF_INET6)
    assert received.origin.endpoint.scope_id
    assert pair.b.send(b"and back", 8, received.origin.endpoint) is SENT
    assert receive(pair.a, socket.AF_INET6).origin.endpoint.same_remote(endpoint)


def test_handshakes_carry_their_dscp_on_the_wire(pair: Pair) -> None:
    for addresses, level, kind in (
        (V4, socket.IPPROTO_IP, kernel.IP_TOS),
        (V6, socket.IPPROTO_IPV6, kernel.IPV6_TCLASS),
    ):
        endpoint = at(addresses[2], pair.b)
        pair.a.send(b"initiation", 10, endpoint, 0x88)
        sock = pair.b._sockets[endpoint.family].sock
        select.select([sock], [], [], 5)
        _, messages, _, _ = sock.recvmsg(100, 200)
        data = next(data for *where, data in messages if where == [level, kind])
        assert data[0] == 0x88


def test_with_ipv6_disabled_ipv4_works_and_ipv6_is_a_named_drop(netns: Namespace) -> None:
    disabled = netns.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
    assert disabled.returncode == 0, disabled.stderr
    with netns.entered(), Udp.open() as udp:
        assert socket.AF_INET in udp.families
        assert udp.send(b"x", 1, at("127.0.0.1", udp)) is SENT
        sent = udp.send(b"x", 1, at("::1", udp))
        assert sent.drop in {
            IoDrop.SEND_NO_ADDRESS,
            IoDrop.SEND_NO_FAMILY,
            IoDrop.SEND_NETWORK_UNREACHABLE,
        }


def test_marks_route_and_change_under_way(pair: Pair) -> None:
    endpoint = at(V4[2], pair.b)
    pair.a_host.ip("rule", "add", "fwmark", "0x77", "prohibit")
    assert pair.a.send(b"x", 1, endpoint) is SENT
    pair.a.set_fwmark(0x77)
    assert pair.a.fwmark == 0x77
    assert pair.a.send(b"x", 1, endpoint).drop is IoDrop.SEND_PROHIBITED
    with pair.a_host.entered():
        pair.a.set_port(0)
    assert pair.a.send(b"x", 1, endpoint).drop is IoDrop.SEND_PROHIBITED
    pair.a.set_fwmark(0)
    assert pair.a.send(b"x", 1, endpoint) is SENT
    with pair.a_host.entered(), Udp.open(0, 0x8000_0000) as marked:
        assert marked.send(b"x", 1, endpoint) is SENT


@pytest.mark.real_root
def test_buffers_are_as_large_as_asked(pair: Pair) -> None:
    for sock in pair.a._sockets.values():
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            # The kernel doubles the value for its bookkeeping.
            assert sock.sock.getsockopt(socket.SOL_SOCKET, option) == 2 * 7 * 1024 * 1024


def test_without_tx_checksums_every_datagram_arrives(pair: Pair) -> None:
    with pair.a_host.entered():
        switch_tx_checksums_off("wire")
    endpoint = at(V4[2], pair.b)
    assert pair.a.send(bytes(3000), 1000, endpoint) is SENT
    # Kernels before 6.11 answer EIO here, later ones compute the checksums themselves.
    arrived = 0
    while arrived < 3000:
        arrived += receive(pair.b, socket.AF_INET).length


def switch_tx_checksums_off(interface: str) -> None:
    """Do what `ethtool -K wire tx off` does (linux/ethtool.h), which not every machine has."""
    siocethtool, ethtool_stxcsum = 0x8946, 0x17
    value = array.array("I", [ethtool_stxcsum, 0])
    request = struct.pack("16sP16x", interface.encode(), value.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, siocethtool, request)
