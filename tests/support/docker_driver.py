"""The network driver of docker-plugin on a machine that only notes what is done to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any

from tunnel.containers.docker.driver import Driver
from tunnel.containers.docker.store import NetworkRecord, Store
from tunnel.containers.docker.tunnels import TunnelFacts
from tunnel.containers.errors import ContainerError
from tunnel.host.gateway import IpAddress

NETWORK = "4ab0a4ce9cfd12549bb8d19740e147d9f944f53292607bc2913e54ab3c9c1fe4"
OTHER = "655a658c1e09f9f2d69e95e4a47aa86c3d2da67191ed42568613c074c19b420b"
END = "d4eef10bcd5100000000000000000000000000000000000000000000000000ff"
END2 = "1eb333d489db00000000000000000000000000000000000000000000000000ff"

POOL = "10.90.0.0/24"


class FakeWiring:
    """See `driver.Wiring`: what stands is in `standing` and `cards`; `fail` may raise."""

    def __init__(self) -> None:
        self.standing: dict[str, NetworkRecord] = {}
        self.cards: set[str] = set()
        self.taken: dict[int, str] = {}
        self.fail: Callable[[str], None] = lambda step: None

    def check(self, network: str, record: NetworkRecord) -> None:
        self.fail("check")

    def set_up(self, network: str, record: NetworkRecord) -> NetworkRecord:
        record = replace(record, ports=(4000, 4001))
        self.standing[network] = record
        self.fail("set_up")
        return record

    def take_down(self, network: str, record: NetworkRecord | None) -> None:
        self.fail("take_down")
        self.standing.pop(network, None)

    def plug(self, network: str, endpoint: str, record: NetworkRecord) -> str:
        assert network in self.standing
        self.cards.add(endpoint)
        self.fail("plug")
        return f"tc-{endpoint[:12]}"

    def unplug(self, endpoint: str) -> None:
        self.cards.discard(endpoint)

    def is_plugged(self, network: str, endpoint: str, record: NetworkRecord) -> bool:
        return endpoint in self.cards

    def holder(self, protocol: str, address: IpAddress | None, port: int) -> str | None:
        return self.taken.get(port)

    def free_port(self, protocol: str, address: IpAddress | None) -> int:
        return 49152


class Tunnels:
    """Tunnels by name, with the networks of their peers; none else is there.

    Those that are in `bridges` carry Ethernet frames, and have their `addresses`.
    """

    def __init__(self, **allowed: tuple[str, ...]) -> None:
        self.allowed = allowed
        self.bridges: dict[str, str] = {}
        self.addresses: tuple[str, ...] = ()
        self.mtu = 1420

    def look_up(self, name: str) -> TunnelFacts:
        if name not in self.allowed:
            raise ContainerError(f"there is no tunnel {name}")
        peers = tuple((ip_network(network),) for network in self.allowed[name])
        addresses = tuple(map(ip_interface, self.addresses))
        return TunnelFacts(name, peers, self.mtu, self.bridges.get(name, ""), addresses)


class Scene:
    """A driver, the machine it works on, and the tunnels there are; `again` is after a kill."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder)
        self.wiring = FakeWiring()
        self.tunnels = Tunnels(office=("10.77.0.2/32", "10.90.0.128/25"))
        self.again()

    def again(self) -> None:
        self.driver = Driver(self.store, self.wiring, self.tunnels.look_up)


def creation(network: str = NETWORK, **changes: Any) -> dict[str, Any]:
    """Docker's request for a network."""
    options = {"conf": changes.pop("conf", "office"), **changes.pop("options", {})}
    pool = changes.pop("pool", POOL)
    gateway = changes.pop("gateway", "10.90.0.1/24")
    return {
        "NetworkID": network,
        "Options": {
            "com.docker.network.enable_ipv6": False,
            "com.docker.network.generic": {name: v for name, v in options.items() if v},
            **({"com.docker.network.internal": True} if changes.pop("internal", False) else {}),
        },
        "IPv4Data": [{"AddressSpace": "x", "Pool": pool, "Gateway": gateway, "AuxAddresses": {}}],
        "IPv6Data": changes.pop("six", []),
    }


def container(address: str = "10.90.0.2/24", end: str = END, **changes: Any) -> dict[str, Any]:
    """Docker's request for a container's end of the network."""
    interface = {"Address": address, "AddressIPv6": "", "MacAddress": "", **changes}
    return {"NetworkID": NETWORK, "EndpointID": end, "Options": {}, "Interface": interface}


def of_end(end: str = END, *ports: dict[str, Any]) -> dict[str, Any]:
    """Any other request about a container's end, with ports that it publishes."""
    options = {"com.docker.network.portmap": list(ports)} if ports else {}
    return {"NetworkID": NETWORK, "EndpointID": end, "SandboxKey": "/x", "Options": options}


def port(inner: int, first: int, last: int = 0, proto: int = 6, host: str = "") -> dict[str, Any]:
    """A published port as Docker writes it."""
    return {
        "Proto": proto,
        "IP": "",
        "Port": inner,
        "HostIP": host,
        "HostPort": first,
        "HostPortEnd": last or first,
    }
