"""Parts of hosts, and the addresses that this host gives."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.docker_driver import (
    NETWORK,
    POOL,
    Scene,
    container,
    creation,
)
from tunnel.containers.docker import parts
from tunnel.containers.docker.protocol import (
    CreateEndpoint,
    CreateNetwork,
    OfAddress,
    OfNetwork,
    RequestPool,
)
from tunnel.containers.errors import ContainerError

NAME = f"office/{POOL}"


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def pool(scene: Scene, part: str = "", conf: str = "office", of: str = POOL) -> object:
    options = {"conf": conf} if conf else {}
    request = {"AddressSpace": "x", "Pool": of, "SubPool": part, "Options": options, "V6": False}
    return scene.driver.request_pool(RequestPool.parse(request))["PoolID"]


def address(scene: Scene, wanted: str = "", *, gateway: bool = False, of: str = NAME) -> object:
    options = {"RequestAddressType": "com.docker.network.gateway"} if gateway else {}
    request = {"PoolID": of, "Address": wanted, "Options": options}
    return scene.driver.request_address(OfAddress.parse(request))["Address"]


def release(scene: Scene, wanted: str) -> None:
    request = {"PoolID": NAME, "Address": wanted}
    assert scene.driver.release_address(OfAddress.parse(request)) == {}


def test_addresses_are_of_this_hosts_part(scene: Scene) -> None:
    assert pool(scene) == NAME
    assert address(scene, gateway=True) == "10.90.0.1/24"
    assert [address(scene) for _ in range(3)] == [f"10.90.0.{n}/24" for n in (2, 3, 4)]
    assert address(scene, "10.90.0.77") == "10.90.0.77/24"
    release(scene, "10.90.0.3")
    assert address(scene) == "10.90.0.3/24"
    scene.tunnels.allowed["office"] = ("10.90.0.0/25",)  # as on the other host
    assert address(scene) == "10.90.0.128/24"
    assert address(scene, gateway=True) == "10.90.0.1/24", "the same on all hosts"


def test_docker_asks_again_after_its_restart(scene: Scene) -> None:
    pool(scene)
    address(scene, gateway=True)
    assert address(scene) == "10.90.0.2/24"
    scene.again()
    assert pool(scene) == NAME
    assert address(scene, "10.90.0.1", gateway=True) == "10.90.0.1/24"
    assert address(scene, "10.90.0.2") == "10.90.0.2/24"
    assert address(scene) == "10.90.0.3/24"


def test_what_docker_asked_for_in_vain_does_not_go_with_it(scene: Scene) -> None:
    """A second network of the same pool, or a second container of one address, is refused; then
    Docker releases what it asked for, and that is the first one's."""
    pool(scene)
    scene.driver.create_network(CreateNetwork.parse(creation()))
    taken = address(scene)
    scene.driver.create_endpoint(CreateEndpoint.parse(container(str(taken))))
    release(scene, "10.90.0.2")
    scene.driver.release_pool(OfAddress(NAME, None))
    assert address(scene) == "10.90.0.3/24"
    scene.driver.delete_network(OfNetwork(NETWORK))
    assert scene.driver.state.pools == {}


def test_an_address_that_came_back_while_the_plugin_was_away_is_free(scene: Scene) -> None:
    pool(scene)
    address(scene, gateway=True)
    scene.driver.create_network(CreateNetwork.parse(creation()))
    assert address(scene, "10.90.0.99") == "10.90.0.99/24", "not a container's: --aux-address"
    taken = str(address(scene))
    scene.driver.create_endpoint(CreateEndpoint.parse(container(taken)))
    scene.again()  # and Docker has removed the container meanwhile
    scene.driver.forget_others({NETWORK: frozenset()}, scene.driver.state)
    assert address(scene) == taken
    assert next(iter(scene.driver.state.pools.values())).given >= {ip_address("10.90.0.99")}


def test_a_pool_without_a_network_goes(scene: Scene) -> None:
    pool(scene)
    scene.driver.release_pool(OfAddress(NAME, None))
    assert scene.driver.state.pools == {}
    scene.driver.release_pool(OfAddress(NAME, None))
    release(scene, "10.90.0.2")


def test_a_part_may_be_named(scene: Scene) -> None:
    name = str(pool(scene, "10.90.0.64/26"))
    assert address(scene, of=name) == "10.90.0.64/24"
    with pytest.raises(ContainerError, match=r"10.90.0.2 is another host's.*10.90.0.64/26"):
        address(scene, "10.90.0.2", of=name)
    with pytest.raises(ContainerError, match=r"--ip-range 10.90.0.192/26 .*10.90.0.0/25"):
        pool(scene, "10.90.0.192/26")


def test_refusals_name_the_remedy(scene: Scene) -> None:
    with pytest.raises(ContainerError, match="--ipam-opt conf=NAME"):
        pool(scene, conf="")
    with pytest.raises(ContainerError, match=r"--subnet 10.90.0.0/24"):
        pool(scene, of="")
    with pytest.raises(ContainerError, match="docker network create"):
        address(scene)
    pool(scene)
    with pytest.raises(ContainerError, match=r"is not in 10.90.0.0/24"):
        address(scene, "10.91.0.1")
    with pytest.raises(ContainerError, match=r"10.90.0.200 is another host's"):
        address(scene, "10.90.0.200")


def test_a_part_that_is_used_up_is_named(scene: Scene) -> None:
    scene.tunnels.allowed["office"] = ("10.90.0.4/30", "10.90.0.8/29", "10.90.0.16/28")
    name = str(pool(scene, of="10.90.0.0/27"))
    assert [address(scene, of=name) for _ in range(2)] == ["10.90.0.2/27", "10.90.0.3/27"]
    with pytest.raises(ContainerError, match=r"no address is left .*\(10.90.0.0/30\)"):
        address(scene, of=name)


networks = st.tuples(st.integers(0, 255), st.integers(24, 32)).map(
    lambda pair: IPv4Network((0x0A5A0000 + pair[0], pair[1]), strict=False)
)


@given(st.lists(networks, max_size=8))
def test_parts_share_the_pool_without_a_rest(allowed: list[IPv4Network]) -> None:
    whole = IPv4Network(POOL)
    others = parts.others(whole, allowed)
    own = parts.own(whole, others)
    ours = [address for part in own for address in part]
    assert sorted([*ours, *{address for part in others for address in part}]) == list(whole)
    pieces = [piece for left in parts.by_host(whole, allowed) for piece in left]
    assert sorted([*ours, *(address for piece in pieces for address in piece)]) == list(whole)


def test_what_holds_all_of_a_pool_is_no_part() -> None:
    whole = ip_network(POOL)
    allowed = [ip_network(text) for text in ("0.0.0.0/0", "10.0.0.0/8", POOL, "::/0")]
    assert parts.others(whole, allowed) == []


def test_the_address_that_another_host_is_asked_at_is_not_ours() -> None:
    whole, first, last = (ip_network(f"10.90.0.{end}") for end in ("0/24", "0/25", "128/25"))
    assert str(parts.last_host(whole, last)) == "10.90.0.254"
    assert str(parts.last_host(whole, first)) == "10.90.0.127"
    gateway = ip_address("10.90.0.127")
    assert str(parts.last_host(whole, first, [gateway])) == "10.90.0.126"
