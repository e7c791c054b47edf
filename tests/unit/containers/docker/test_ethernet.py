"""Networks with -o mode=tap: one Ethernet network of all hosts, in the bridge of a tunnel."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from tests.support.docker_driver import (
    NETWORK,
    OTHER,
    POOL,
    Scene,
    container,
    creation,
    of_end,
)
from tunnel.containers.docker import parts
from tunnel.containers.docker.driver import Driver
from tunnel.containers.docker.protocol import (
    CreateEndpoint,
    CreateNetwork,
    OfAddress,
    OfEndpoint,
    RequestPool,
)
from tunnel.containers.errors import ContainerError


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """As on the second host: the first part of the pool is a peer's."""
    scene = Scene(tmp_path)
    scene.tunnels.allowed |= {"l2": ("10.77.0.1/32", "10.90.0.0/25")}
    scene.tunnels.bridges["l2"] = "br0"
    scene.tunnels.mtu = 1400
    return scene


def create(scene: Scene, network: str = NETWORK, **changes: Any) -> None:
    options = {"mode": "tap", **changes.pop("options", {})}
    given = {"conf": "l2", "gateway": "10.90.0.128/24", **changes}
    scene.driver.create_network(CreateNetwork.parse(creation(network, options=options, **given)))


def pool(scene: Scene, part: str = "") -> str:
    request = {"Pool": POOL, "SubPool": part, "Options": {"conf": "l2"}}
    return str(scene.driver.request_pool(RequestPool.parse(request))["PoolID"])


def address(scene: Scene, name: str, *, gateway: bool = False) -> object:
    options = {"RequestAddressType": "com.docker.network.gateway"} if gateway else {}
    request = {"PoolID": name, "Address": "", "Options": options}
    return scene.driver.request_address(OfAddress.parse(request))["Address"]


def join(driver: Driver) -> dict[str, object]:
    driver.create_endpoint(CreateEndpoint.parse(container("10.90.0.129/24")))
    return driver.join(OfEndpoint.parse(of_end()))


def test_a_network_is_in_the_bridge_of_the_tunnel(scene: Scene) -> None:
    create(scene)
    record = scene.wiring.standing[NETWORK]
    assert (record.bridge, record.mtu) == ("br0", 1400)
    answer = join(scene.driver)
    assert (answer["Gateway"], answer["StaticRoutes"]) == ("10.90.0.128", [])
    scene.again()
    assert scene.driver.state.networks[NETWORK].bridge == "br0"


def test_ipv6_of_other_hosts_needs_no_route(scene: Scene) -> None:
    scene.tunnels.allowed["l2"] = ("10.90.0.0/25", "fd90::/113")
    create(scene, six=[{"Pool": "fd90::/112", "Gateway": "fd90::8000/112"}])
    assert join(scene.driver)["StaticRoutes"] == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"options": {"mode": "tun"}}, "l2 carries Ethernet frames .*add -o mode=tap"),
        ({"options": {"mode": ""}}, "l2 carries Ethernet frames .*add -o mode=tap"),
        ({"conf": "office"}, "office carries packets: remove the option"),
        ({"options": {"mode": "macvlan"}}, "-o mode=macvlan: the mode is tun"),
        ({"gateway": "10.90.0.1/24"}, "each host has a gateway of its own.* --gateway 10.90.0.128"),
        ({"gateway": "10.90.0.200/24"}, "on this host --gateway 10.90.0.128"),
        ({"gateway": ""}, "has no gateway: --gateway 10.90.0.128"),
        ({"options": {"com.docker.network.driver.mtu": "1401"}}, "from 576 to 1400"),
        ({"pool": "10.91.0.0/24", "gateway": "10.91.0.1/24"}, "no peer of l2 has a part"),
    ],
)
def test_a_network_is_refused_with_the_remedy(
    scene: Scene, changes: dict[str, Any], text: str
) -> None:
    with pytest.raises(ContainerError, match=text):
        create(scene, **changes)
    assert scene.wiring.standing == {}


def test_a_bridge_is_for_one_network(scene: Scene) -> None:
    create(scene)
    scene.tunnels.allowed["l3"] = ("10.91.0.0/25",)
    scene.tunnels.bridges["l3"] = "br0"
    for conf, of in (("l2", "10.90.0"), ("l3", "10.91.0")):
        with pytest.raises(
            ContainerError, match=f"bridge br0 of {conf} is .* network {NETWORK:.12}"
        ):
            create(scene, OTHER, conf=conf, pool=f"{of}.0/24", gateway=f"{of}.128/24")
    create(scene)  # asked for again


def test_the_address_of_the_tunnel_is_the_gateway_or_elsewhere(scene: Scene) -> None:
    scene.tunnels.addresses = ("10.77.0.2/24", "10.90.0.130/24")
    with pytest.raises(ContainerError, match=r"10.90.0.130/24 of l2 .* Address = 10.90.0.128/24"):
        create(scene)
    scene.tunnels.addresses = ("10.77.0.2/24", "10.90.0.128/24")
    create(scene)


def test_a_tunnel_that_changed_is_not_mistaken(scene: Scene) -> None:
    create(scene)
    scene.tunnels.mtu = 1300
    join(scene.driver)
    assert scene.driver.state.networks[NETWORK].mtu == 1300, "what fits into the tunnel"
    scene.tunnels.bridges["l2"] = "br1"
    with pytest.raises(ContainerError, match=r"Bridge = br0, and the conf of l2 has .* br1"):
        join(scene.driver)
    del scene.tunnels.bridges["l2"]
    with pytest.raises(ContainerError, match="the conf of l2 has Mode = tun"):
        join(scene.driver)


def test_each_host_has_the_first_address_of_its_part(scene: Scene) -> None:
    name = pool(scene)
    assert address(scene, name, gateway=True) == "10.90.0.128/24"
    assert address(scene, name) == "10.90.0.129/24"
    scene.tunnels.allowed["l2"] = ("10.90.0.128/25",)  # as on the first one
    assert address(scene, name, gateway=True) == "10.90.0.1/24"
    assert address(scene, name) == "10.90.0.2/24"


def test_without_the_tunnel_it_is_what_it_was(scene: Scene) -> None:
    name = pool(scene)
    create(scene)
    del scene.tunnels.allowed["l2"]
    assert address(scene, name, gateway=True) == "10.90.0.128/24"


def test_where_peers_may_have_any_address_the_part_is_named(scene: Scene) -> None:
    scene.tunnels.allowed["l2"] = ()
    with pytest.raises(ContainerError, match=r"part is not known: .* --ip-range 10.90.0.0/25"):
        pool(scene)
    with pytest.raises(ContainerError, match="no peer of l2 has a part"):
        create(scene)
    name = pool(scene, "10.90.0.64/26")
    assert address(scene, name, gateway=True) == "10.90.0.64/24"
    assert address(scene, name) == "10.90.0.65/24"
    create(scene, gateway="10.90.0.64/24")


def test_a_part_that_is_all_of_others_is_named(scene: Scene) -> None:
    scene.tunnels.allowed["l2"] = ("10.90.0.0/25", "10.90.0.128/25")
    with pytest.raises(ContainerError, match=r"no address of 10.90.0.0/24 is left for this host"):
        create(scene)
    with pytest.raises(ContainerError, match="no address is left"):
        address(scene, pool(scene), gateway=True)


def test_other_hosts_are_asked_at_the_first_address_of_each_peer() -> None:
    whole = ip_network("10.90.0.0/24")
    peers = [
        ["10.77.0.2/32", "10.90.0.192/26", "10.90.0.128/26"],
        ["10.90.0.64/26"],
        ["10.90.0.128/28", "0.0.0.0/0"],
        ["10.77.0.5/32"],
    ]
    found = parts.by_peer(whole, [map(ip_network, peer) for peer in peers])
    first = [str(next(parts.hosts(whole, left))) for left in found]
    assert first == ["10.90.0.144", "10.90.0.64", "10.90.0.128"]
