"""Docker's requests for networks and containers, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.docker_driver import (
    END,
    END2,
    NETWORK,
    OTHER,
    Scene,
    container,
    creation,
    of_end,
    port,
)
from tunnel.containers.docker.driver import Answer
from tunnel.containers.docker.protocol import CreateEndpoint, CreateNetwork, OfEndpoint, OfNetwork
from tunnel.containers.docker.store import PluginState
from tunnel.containers.errors import ContainerError


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def create(scene: Scene, network: str = NETWORK, **changes: Any) -> None:
    scene.driver.create_network(CreateNetwork.parse(creation(network, **changes)))


def add(scene: Scene, address: str = "10.90.0.2/24", end: str = END, **changes: Any) -> Answer:
    return scene.driver.create_endpoint(CreateEndpoint.parse(container(address, end, **changes)))


def join(scene: Scene, end: str = END) -> Answer:
    return scene.driver.join(OfEndpoint.parse(of_end(end)))


def publish(scene: Scene, end: str, *ports: dict[str, Any]) -> list[str]:
    scene.driver.publish(OfEndpoint.parse(of_end(end, *ports)))
    endpoint = scene.driver.state.networks[NETWORK].endpoints[end]
    return [str(each) for each in endpoint.published]


def test_a_container_gets_a_card_and_the_way_out(scene: Scene) -> None:
    create(scene)
    assert add(scene) == {"Interface": {"MacAddress": "02:42:0a:5a:00:02"}}
    answer = join(scene)
    assert answer == {
        "InterfaceName": {"SrcName": "tc-d4eef10bcd51", "DstPrefix": "eth"},
        "Gateway": "10.90.0.1",
        "StaticRoutes": [],
    }
    assert scene.wiring.cards == {END}
    assert scene.driver.state.networks[NETWORK].mtu == 1420


def test_a_card_address_that_docker_chose_is_not_answered(scene: Scene) -> None:
    create(scene)
    assert add(scene, MacAddress="02:42:0a:5a:00:02") == {"Interface": {}}


def test_ipv6_of_other_hosts_leads_by_the_gateway(scene: Scene) -> None:
    scene.tunnels.allowed["office"] = ("10.90.0.128/25", "fd90::8000/113")
    create(scene, six=[{"Pool": "fd90::/112", "Gateway": "fd90::1/112"}])
    add(scene, AddressIPv6="fd90::2/112")
    answer = join(scene)
    assert answer["GatewayIPv6"] == "fd90::1"
    assert answer["StaticRoutes"] == [
        {"Destination": "fd90::1/128", "RouteType": 1},
        {"Destination": "fd90::8000/113", "RouteType": 0, "NextHop": "fd90::1"},
    ]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"conf": ""}, "-o conf=NAME"),
        ({"conf": "nope"}, "there is no tunnel nope"),
        ({"options": {"mode": "tap"}}, "-o mode=tap"),
        ({"options": {"colour": "red"}}, "unknown option -o colour; known: conf"),
        ({"options": {"com.docker.network.driver.mtu": "12"}}, "from 576 to 65535"),
        ({"gateway": ""}, "has no gateway: --gateway 10.90.0.1"),
        ({"gateway": "10.90.0.129/24"}, "another host's part; .* --gateway 10.90.0.1"),
        (
            {"pool": "10.91.0.0/24"},
            "no peer of office has a part of .*10.91.0.128/25",
        ),
        ({"pool": "10.90.0.128/25"}, "all of 10.90.0.128/25 to one peer"),
    ],
)
def test_a_network_is_refused_with_the_remedy(
    scene: Scene, changes: dict[str, Any], text: str
) -> None:
    with pytest.raises(ContainerError, match=text):
        create(scene, **changes)
    assert scene.driver.state.networks == {}
    assert scene.wiring.standing == {}


def test_one_pool_is_for_one_network(scene: Scene) -> None:
    create(scene)
    with pytest.raises(ContainerError, match=f"of the network {NETWORK:.12} on this host"):
        create(scene, OTHER)
    with pytest.raises(ContainerError, match="overlaps"):
        create(scene, OTHER, pool="10.90.0.0/16", gateway="10.90.0.1/16")
    create(scene)  # asked for again
    assert set(scene.wiring.standing) == {NETWORK}


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("10.90.0.1/24", "gateway of the network"),
        ("10.91.0.2/24", "in none of 10.90.0.0/24"),
        (
            "10.90.0.130/24",
            "another host's: .* --ip-range 10.90.0.0/25 or --ipam-driver tunnel --ipam-opt "
            "conf=office",
        ),
        ("10.90.0.2/24", f"in use by another container .*endpoint {END:.12}"),
    ],
)
def test_an_address_is_refused_with_the_remedy(scene: Scene, address: str, text: str) -> None:
    create(scene)
    add(scene)
    with pytest.raises(ContainerError, match=text):
        add(scene, address, END2)
    assert set(scene.driver.state.networks[NETWORK].endpoints) == {END}


def test_the_parts_of_hosts_follow_the_tunnel(scene: Scene) -> None:
    create(scene)
    scene.tunnels.allowed["office"] = ("10.90.0.64/26", "10.90.0.128/25")
    with pytest.raises(ContainerError, match="another host's"):
        add(scene, "10.90.0.70/24")
    del scene.tunnels.allowed["office"]  # down, and its conf is gone
    with pytest.raises(ContainerError, match="another host's"):
        add(scene, "10.90.0.71/24")
    add(scene)


@pytest.mark.parametrize("step", ["check", "set_up"])
def test_a_network_that_fails_is_not_there(scene: Scene, step: str) -> None:
    def fail(now: str) -> None:
        if now == step:
            raise ContainerError("no")

    scene.wiring.fail = fail
    with pytest.raises(ContainerError):
        create(scene)
    assert scene.wiring.standing == {}
    scene.again()
    assert scene.driver.state.networks == {}


def test_a_container_that_fails_to_join_leaves_no_card(scene: Scene) -> None:
    create(scene)
    add(scene)

    def fail(now: str) -> None:
        if now == "plug":
            raise ContainerError("no")

    scene.wiring.fail = fail
    with pytest.raises(ContainerError):
        join(scene)
    assert scene.wiring.cards == set()
    assert not scene.driver.state.networks[NETWORK].endpoints[END].joined


def full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_full_disk_lets_all_go(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker forgets what it removes, whatever it is answered: an address would stay in use."""
    create(scene)
    add(scene)
    join(scene)
    publish(scene, END, port(80, 8080))
    there = scene.driver.state
    with monkeypatch.context() as disk:
        disk.setattr("tunnel.containers.docker.store.replace_file", full)
        for request in (scene.driver.withdraw, scene.driver.leave, scene.driver.delete_endpoint):
            assert request(OfEndpoint.parse(of_end())) == {}
        assert scene.wiring.cards == set()
        assert scene.driver.state.networks[NETWORK].endpoints == {}
        scene.again()
        assert scene.driver.state == there, "more than there is"
        scene.driver.delete_network(OfNetwork(NETWORK))
        assert scene.driver.state.networks == scene.wiring.standing == {}
    create(scene)
    add(scene, end=END2)
    scene.again()
    assert set(scene.driver.state.networks[NETWORK].endpoints) == {END2}


def test_a_full_disk_adds_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    create(scene)
    before = scene.driver.state

    monkeypatch.setattr("tunnel.containers.docker.store.replace_file", full)
    for step in (lambda: add(scene), lambda: create(scene, OTHER, pool="10.91.0.0/24")):
        scene.tunnels.allowed["office"] = ("10.90.0.128/25", "10.91.0.128/25")
        with pytest.raises(ContainerError, match=r"No space left on device.*nothing was changed"):
            step()
    assert scene.driver.state == before
    assert set(scene.wiring.standing) == {NETWORK}


def test_all_of_a_network_goes(scene: Scene) -> None:
    create(scene)
    add(scene)
    join(scene)
    gone = OfNetwork(NETWORK)
    assert scene.driver.delete_network(gone) == scene.driver.delete_network(gone) == {}
    assert (scene.wiring.standing, scene.wiring.cards) == ({}, set())
    for request in (scene.driver.leave, scene.driver.delete_endpoint, scene.driver.withdraw):
        assert request(OfEndpoint.parse(of_end())) == {}


def test_a_network_goes_though_the_state_was_lost(scene: Scene) -> None:
    create(scene)
    scene.driver.state = PluginState()
    assert scene.driver.delete_network(OfNetwork(NETWORK)) == {}
    assert scene.wiring.standing == {}


@pytest.mark.parametrize("name", ["join", "publish", "info"])
def test_what_is_not_known_is_named(scene: Scene, name: str) -> None:
    request: Callable[[OfEndpoint], Answer] = getattr(scene.driver, name)
    with pytest.raises(ContainerError, match=f"network {NETWORK:.12} is not known here"):
        request(OfEndpoint.parse(of_end()))
    create(scene)
    with pytest.raises(ContainerError, match=f"endpoint {END:.12} is not known here"):
        request(OfEndpoint.parse(of_end()))


# Published ports


def test_ports_lead_to_the_container_until_it_goes(scene: Scene) -> None:
    create(scene)
    add(scene)
    assert publish(scene, END, port(80, 8080), port(53, 5300, proto=17, host="127.0.0.1")) == [
        "8080:80/tcp",
        "127.0.0.1:5300:53/udp",
    ]
    scene.driver.withdraw(OfEndpoint.parse(of_end()))
    assert scene.wiring.standing[NETWORK].endpoints[END].published == ()
    publish(scene, END, port(80, 8080))
    scene.driver.delete_endpoint(OfEndpoint.parse(of_end()))
    assert scene.wiring.standing[NETWORK].endpoints == {}


def test_a_port_is_chosen_where_it_is_left_open(scene: Scene) -> None:
    create(scene)
    add(scene)
    scene.wiring.taken[8000] = "port 8000 is in use"
    assert publish(scene, END, port(80, 0)) == ["49152:80/tcp"]
    assert publish(scene, END, port(80, 8000, 8002)) == ["8001:80/tcp"]
    add(scene, "10.90.0.3/24", END2)
    assert publish(scene, END2, port(80, 8000, 8002)) == ["8002:80/tcp"]
    with pytest.raises(ContainerError, match=r"-p 8001:80/tcp: .*already published by another"):
        publish(scene, END2, port(80, 8001))
    with pytest.raises(ContainerError, match="-p 8000:80/tcp: port 8000 is in use"):
        publish(scene, END2, port(80, 8000))
    assert publish(scene, END2, port(80, 8001, proto=17)) == ["8001:80/udp"]


def test_ports_of_two_containers_may_be_of_two_addresses(scene: Scene) -> None:
    create(scene)
    add(scene)
    add(scene, "10.90.0.3/24", END2)
    publish(scene, END, port(80, 8080, host="192.0.2.1"))
    assert publish(scene, END2, port(80, 8080, host="192.0.2.2")) == ["192.0.2.2:8080:80/tcp"]
    with pytest.raises(ContainerError):
        publish(scene, END2, port(80, 8080))


def test_what_cannot_be_published_is_refused(scene: Scene) -> None:
    create(scene)
    add(scene)
    with pytest.raises(ContainerError, match="protocol sctp cannot be published"):
        publish(scene, END, port(80, 80, proto=132))
    with pytest.raises(
        ContainerError, match="-p ::1: the container has no address of that IP version"
    ):
        publish(scene, END, port(80, 80, host="::1"))


def test_an_internal_network_publishes_nothing(scene: Scene) -> None:
    create(scene, internal=True)
    add(scene)
    assert scene.driver.state.networks[NETWORK].internal
    assert publish(scene, END, port(80, 8080)) == []


# After a restart


def test_what_is_missing_is_set_up_again(scene: Scene) -> None:
    create(scene)
    add(scene)
    join(scene)
    publish(scene, END, port(80, 8080))
    before = scene.driver.state
    scene.wiring.standing.clear()
    scene.again()
    scene.driver.restore()
    assert scene.driver.state == before
    assert scene.wiring.standing == dict(before.networks)


def test_one_network_that_fails_does_not_keep_others_down(scene: Scene) -> None:
    scene.tunnels.allowed["office"] = ("10.90.0.128/25", "10.91.0.128/25")
    create(scene)
    create(scene, OTHER, pool="10.91.0.0/24", gateway="10.91.0.1/24")
    scene.wiring.standing.clear()
    failed: list[str] = []

    def fail(now: str) -> None:
        if not failed:
            failed.append(now)
            scene.wiring.standing.clear()
            raise ContainerError("no")

    scene.wiring.fail = fail
    scene.again()
    scene.driver.restore()
    assert len(scene.wiring.standing) == 1
    assert set(scene.driver.state.networks) == {NETWORK, OTHER}


def test_what_docker_no_longer_has_goes(scene: Scene) -> None:
    scene.tunnels.allowed["office"] = ("10.90.0.128/25", "10.91.0.128/25")
    create(scene)
    create(scene, OTHER, pool="10.91.0.0/24", gateway="10.91.0.1/24")
    add(scene)
    add(scene, "10.90.0.3/24", END2)
    join(scene)
    join(scene, END2)
    scene.again()
    asked = scene.driver.state
    scene.wiring.cards.discard(END2)  # that container's namespace is gone
    scene.driver.forget_others({NETWORK: frozenset()}, asked)
    assert set(scene.driver.state.networks) == set(scene.wiring.standing) == {NETWORK}
    assert set(scene.driver.state.networks[NETWORK].endpoints) == {END}, "its card is there"


class KilledError(BaseException):
    """Nothing is done any more after it."""


@pytest.mark.parametrize("step", ["check", "set_up", "plug"])
def test_after_a_kill_at_any_step_all_is_as_docker_has_it(scene: Scene, step: str) -> None:
    dead = False
    save = scene.store.save

    def until_killed(state: PluginState) -> None:
        if dead:
            raise KilledError
        save(state)

    def kill(now: str) -> None:
        nonlocal dead
        dead = dead or now == step
        if dead:
            raise KilledError

    if step == "plug":
        create(scene)
        add(scene)
    scene.store.save = until_killed  # type: ignore[method-assign]
    scene.wiring.fail = kill
    with pytest.raises(KilledError):
        join(scene) if step == "plug" else create(scene)
    scene.store.save = save  # type: ignore[method-assign]
    scene.wiring.fail = lambda now: None
    scene.again()
    scene.driver.restore()
    asked = scene.driver.state
    assert scene.wiring.standing.keys() <= asked.networks.keys(), "no more than what is recorded"
    scene.driver.forget_others({}, asked)
    assert (scene.driver.state, scene.wiring.standing) == (PluginState(), {})
    assert scene.wiring.cards == set()


def test_a_network_that_came_after_the_question_stays(scene: Scene) -> None:
    asked = scene.driver.state
    create(scene)
    scene.driver.forget_others({}, asked)
    assert set(scene.driver.state.networks) == {NETWORK}


def test_a_network_that_is_asked_for_again_keeps_its_containers(scene: Scene) -> None:
    create(scene)
    add(scene)
    join(scene)
    publish(scene, END, port(80, 8080))
    before = scene.driver.state
    create(scene)
    assert scene.driver.state == before
    assert scene.wiring.standing[NETWORK] == before.networks[NETWORK]
