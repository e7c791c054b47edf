"""All traffic of a host through `tunnel up`, and not a frame beside it."""

from __future__ import annotations

import sys

import pytest

from tests.support.daemons import remains, status
from tests.support.full_tunnel import (
    ELSEWHERE,
    ROUTER,
    World,
    check_that_nothing_leaks,
    make_world,
    say_much,
)
from tests.support.outgoing import Outgoing
from tunnel.lab import Host, Lab
from tunnel.lab.peers import OurEnd

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
    """The far ends that get what host a sends to `address`, all of it in tunnels."""
    before = [received(end) for end in world.far]
    with Outgoing(world.a) as seen:
        ping = ["ping", "-n", "-i", "0.05", "-c", "20", "-w", "20", "-s", "1000", address]
        world.a.run(ping)
        seen.read(*world.endpoints)
        assert seen.strangers == []
    after = [received(end) for end in world.far]
    grown = [
        end.node.host.name
        for end, old, new in zip(world.far, before, after, strict=True)
        if new - old >= 20 * 1000
    ]
    assert len(grown) == 1
    return grown


@pytest.mark.real_root
@pytest.mark.parametrize("first", [0, 1], ids=["older-first", "newer-first"])
def test_two_side_by_side_and_either_taken_down_first(lab: Lab, first: int) -> None:
    world = make_world(lab, tunnels=2)
    a = world.a
    ends = [OurEnd(node, conf) for node, conf in zip(world.nodes, world.confs, strict=True)]
    for end in ends:
        end.up()
    for address in ELSEWHERE:
        carrier(world, address)
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
        carrier(world, address)
    for end in ends:
        end.down()
    assert remains(a) == []


def reaches_router(a: Host) -> None:
    for address in ROUTER:
        a.ping(address)
