"""All traffic of a host through `tunnel up`, and not a frame beside it."""

from __future__ import annotations

import sys

import pytest

from tests.support.daemons import remains, status
from tests.support.full_tunnel import (
    ELSEWHERE,
    FULL,
    ROUTER,
    World,
    check_that_nothing_leaks,
    make_world,
    say_much,
)
from tests.support.outgoing import Outgoing
from tunnel.lab import Host, Lab
from tunnel.lab.peers import Node, OurEnd, render_conf

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]


@pytest.mark.real_root
@pytest.mark.parametrize("outer", [4, 6])
def test_nothing_leaks(lab: Lab, outer: int) -> None:
    world = make_world(lab, outer=outer)
    a = world.a
    end = OurEnd(world.nodes[0], world.confs[0])
    end.up()

    def reload() -> None:
        end.conf.write_text(world.confs[0].replace("Address = ", "Address = 10.99.0.1/32, "))
        end.tunnel("reload", "wg0")
        say_much(a)

    check_that_nothing_leaks(world, and_then=reload)
    end.down()
    with Outgoing(a) as seen:
        say_much(a)
        seen.read(*world.endpoints)
        assert seen.strangers, "the capture sees what is not tunnelled"
    assert remains(a) == []


def received(end: OurEnd) -> int:
    (link,) = end.node.host.ip_json(["-statistics", "link", "show", end.node.interface])
    found: int = link["stats64"]["rx"]["bytes"]
    return found


def carrier(world: World, address: str) -> list[str]:
    """The far ends that what host a sends to `address` comes through, all of it in tunnels."""
    before = [received(end) for end in world.far]
    with Outgoing(world.a) as seen:
        ping = ["ping", "-n", "-i", "0.05", "-c", "20", "-w", "20", "-s", "1000", address]
        world.a.run(ping)
        seen.read(*world.endpoints)
        assert seen.strangers == []
    after = [received(end) for end in world.far]
    return [
        end.node.host.name
        for end, old, new in zip(world.far, before, after, strict=True)
        if new - old >= 20 * 1000
    ]


@pytest.mark.real_root
@pytest.mark.parametrize("first", [0, 1], ids=["older-first", "newer-first"])
def test_the_newer_one_is_nested_and_either_taken_down_first(lab: Lab, first: int) -> None:
    """The peer of the second sees the address of the first one's, never ours."""
    world = make_world(lab, tunnels=2)
    a = world.a
    ends = [OurEnd(node, conf) for node, conf in zip(world.nodes, world.confs, strict=True)]
    for end in ends:
        end.up()
    assert [status(end)["nested_in"] for end in ends] == [[], ["wg0"]]
    assert "  nested in: wg0\n" in ends[1].tunnel("show", "wg1")
    # Its packets, once sealed, are packets of the first one.
    assert [status(end)["mtu"] for end in ends] == [1420, 1340]
    for address in ELSEWHERE:
        assert carrier(world, address) == ["b", "c"]
    seen = status(world.far[1])["peers"][0]["endpoint"]
    assert seen.startswith("203.0.113.1:")
    ends[first].down()
    left = ends[1 - first]
    for address in ELSEWHERE:
        assert carrier(world, address) == ["bc"[1 - first]]
    assert status(left)["fwmark"] == 51820 + 1 - first
    left.down()
    assert remains(a) == []
    reaches_router(a)


@pytest.mark.real_root
def test_two_that_come_up_at_the_same_time(lab: Lab) -> None:
    world = make_world(lab, tunnels=2)
    a = world.a
    # Both have chosen a mark when their hooks run, and no hook ends before the other has begun.
    there = [f"{a.directory}/{node.interface}.chosen" for node in world.nodes]
    met = " && ".join(f"[ -e {path} ]" for path in there)
    wait = f"timeout 30 sh -c 'until {met}; do sleep 0.05; done'"
    hook = f"PreUp = touch {a.directory}/%i.chosen; {wait}"
    confs = [conf.replace("[Interface]", f"[Interface]\n{hook}") for conf in world.confs]
    ends = [OurEnd(node, conf) for node, conf in zip(world.nodes, confs, strict=True)]
    ups = [a.popen([sys.executable, "-m", "tunnel", "up", str(end.conf)]) for end in ends]
    assert [up.wait(60) for up in ups] == [0, 0], [up.log() for up in ups]
    assert sorted(status(end)["fwmark"] for end in ends) == [51820, 51821]
    for address in ELSEWHERE:
        assert carrier(world, address) == ["b", "c"]
    for end in ends:
        end.down()
    assert remains(a) == []


@pytest.mark.real_root
def test_an_endpoint_that_only_the_first_tunnel_leads_to(lab: Lab) -> None:
    world = make_world(lab)
    a, b = world.a, world.far[0].node.host
    first = OurEnd(world.nodes[0], world.confs[0])
    first.up()
    here = Node(a, ("10.79.0.1/24",), port=51830, interface="wg1")
    there = Node(b, ("10.79.0.2/24",), "10.77.0.2", 51831, interface="wg1", routes=FULL)
    far = OurEnd(there, render_conf(there, [here]))
    far.up()
    second = OurEnd(here, render_conf(here, [there]))
    second.up()
    a.ping("10.79.0.2")
    a.ping(ELSEWHERE[0])
    assert status(second)["nested_in"] == ["wg0"]
    assert status(far)["peers"][0]["endpoint"] == "10.77.0.1:51830"
    for end in (second, first, far):
        end.down()
    assert remains(a) == []


def reaches_router(a: Host) -> None:
    for address in ROUTER:
        a.ping(address)
