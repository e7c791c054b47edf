"""What gets past the firewall of a network of containers, and what does not; without an engine."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.docker_driver import END, NETWORK
from tests.support.host_namespace import Namespace, new_namespace
from tunnel.containers.docker.store import EndpointRecord, NetworkRecord
from tunnel.containers.docker.wiring import HostWiring
from tunnel.host.container_gates import PublishedPort
from tunnel.linux.netns import call_inside

pytestmark = pytest.mark.root

INNER = ip_address("10.90.0.2")
ENDPOINT = EndpointRecord(
    (ip_interface("10.90.0.2/24"),),
    joined=True,
    published=(
        PublishedPort("udp", ip_address("127.0.0.1"), 8081, INNER, 80),
        PublishedPort("udp", None, 8080, INNER, 80),
    ),
)
RECORD = NetworkRecord(
    "office",
    (ip_network("10.90.0.0/24"),),
    (ip_interface("10.90.0.1/24"),),
    internal=False,
    mtu=1420,
    endpoints={END: ENDPOINT},
)


class Places(NamedTuple):
    peer: Namespace
    host: Namespace
    container: Namespace
    queries: socket.socket
    """Where the plugin reads queries for names."""


@pytest.fixture(name="places")
def places_fixture(tmp_path: Path) -> Iterator[Places]:
    """A container on a host, whose card `office` leads to a peer as the tunnel would."""
    with new_namespace() as peer, new_namespace() as host, new_namespace() as container:
        host.ip(*f"link add office type veth peer name office netns {peer.name}".split())
        for place, number in ((host, 1), (peer, 2)):
            place.ip(*f"address add 10.77.0.{number}/24 dev office".split())
            place.ip(*["link", "set", "office", "up"])
        host.ip(*["link", "set", "lo", "up"])
        peer.ip(*["route", "add", "10.90.0.0/24", "via", "10.77.0.1"])
        wiring = HostWiring(tmp_path)

        def set_up() -> str:
            wiring.set_up(NETWORK, RECORD)
            return wiring.plug(NETWORK, END, RECORD)

        inner = call_inside(host.path, set_up)
        try:
            host.ip(*f"link set {inner} netns {container.name} name eth0".split())
            container.ip(*["address", "add", "10.90.0.2/24", "dev", "eth0"])
            container.ip(*["link", "set", "eth0", "up"])
            container.ip(*["route", "add", "default", "via", "10.90.0.1"])
            yield Places(peer, host, container, wiring.names[NETWORK].queries)
        finally:
            for sockets in wiring.names.values():
                sockets.close()


def bound(place: Namespace, address: str, port: int = 0) -> socket.socket:
    def make() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.settimeout(10)
        sock.bind((address, port))
        return sock

    return call_inside(place.path, make)


def test_a_port_of_127_0_0_1_is_not_reached_from_the_wire(places: Places) -> None:
    # Its own loopback is down, so that it can be routed.
    places.peer.run("sysctl", "-qw", "net.ipv4.conf.office.route_localnet=1")
    places.peer.ip(*["route", "add", "127.0.0.1", "via", "10.77.0.1", "src", "10.77.0.2"])
    with (
        bound(places.container, "10.90.0.2", 80) as server,
        bound(places.peer, "10.77.0.2") as client,
        bound(places.host, "127.0.0.1") as local,
    ):
        client.sendto(b"8081 from the wire", ("127.0.0.1", 8081))
        client.sendto(b"8080 at 127.0.0.1", ("127.0.0.1", 8080))
        client.sendto(b"8080", ("10.77.0.1", 8080))
        assert server.recvfrom(100) == (b"8080", client.getsockname())
        local.sendto(b"8081 from here", ("127.0.0.1", 8081))
        assert server.recv(100) == b"8081 from here"


@pytest.mark.parametrize("spoofed", ["10.77.0.1", "192.0.2.9"])
def test_a_container_has_no_address_but_its_own(places: Places, spoofed: str) -> None:
    places.container.ip("address", "add", f"{spoofed}/32", "dev", "eth0")
    with (
        bound(places.peer, "10.77.0.2", 9000) as server,
        bound(places.container, spoofed) as liar,
        bound(places.container, "10.90.0.2") as honest,
    ):
        liar.sendto(b"spoofed", ("10.77.0.2", 9000))
        honest.sendto(b"its own", ("10.77.0.2", 9000))
        assert server.recvfrom(100) == (b"its own", honest.getsockname())


def test_a_query_gets_into_no_other_network_of_containers(places: Places) -> None:
    places.host.ip(*["link", "add", "docker0", "type", "bridge"])
    places.host.ip(*["address", "add", "172.17.0.1/16", "dev", "docker0"])
    places.host.ip(*["link", "set", "docker0", "up"])
    with bound(places.container, "10.90.0.2") as asking:
        asking.sendto(b"of another network", ("172.17.0.9", 53))
        asking.sendto(b"outside", ("10.77.0.2", 53))
        places.queries.settimeout(10)
        assert places.queries.recv(100) == b"outside"
