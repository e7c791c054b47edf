"""Hosts whose way to everywhere leads through a router, and the far ends of full tunnels."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.support.outgoing import Outgoing
from tests.support.transfer import check_transfer
from tunnel.lab import Host, Lab, LabError
from tunnel.lab.peers import PORT, Node, OurEnd, render_conf

FULL = ("0.0.0.0/0", "::/0")
ELSEWHERE = ("198.18.0.1", "2001:db8:5::1")
"""Addresses that only the far ends have."""

ROUTER = ("198.51.100.254", "2001:db8:a::254")


@dataclass(frozen=True)
class World:
    """Host a, and far ends that are up: `b`, and `c` where there are two tunnels."""

    lab: Lab
    a: Host
    far: tuple[OurEnd, ...]
    confs: tuple[str, ...]
    nodes: tuple[Node, ...]

    @property
    def endpoints(self) -> list[tuple[str, int]]:
        return [(end.node.endpoint or "", PORT) for end in self.far]


def make_world(lab: Lab, *, outer: int = 4, tunnels: int = 1) -> World:
    """`confs` are for a: wg0 leads all traffic to b, wg1 to c."""
    a, router = lab.host("a"), lab.router("r")
    far, confs, nodes = [], [], []
    for number in range(tunnels):
        host = lab.host("bc"[number])
        if number:
            near = {4: "203.0.114.254", 6: "2001:db8:c::254"}
            own = {4: "203.0.114.1", 6: "2001:db8:c::1"}
            lab.link(
                router,
                host,
                [f"{near[4]}/24", f"{near[6]}/64"],
                [f"{own[4]}/24", f"{own[6]}/64"],
            )
            host.ip(f"route add default via {near[4]}", f"route add default via {near[6]}")
        else:
            lab.routed(a, router, host)
            own = {4: "203.0.113.1", 6: "2001:db8:b::1"}
        host.add_addresses("lo", [f"{ELSEWHERE[0]}/32", f"{ELSEWHERE[1]}/128"])
        near_node = Node(
            a,
            (f"10.{77 + number}.0.1/24", f"fd{77 + number}::1/64"),
            port=PORT + number,
            interface=f"wg{number}",
        )
        far_node = Node(
            host,
            (f"10.{77 + number}.0.2/24", f"fd{77 + number}::2/64"),
            own[outer],
            routes=FULL,
        )
        end = OurEnd(far_node, render_conf(far_node, [near_node]))
        end.up()
        if tunnels > 1:
            pass_on(host)
        far.append(end)
        nodes.append(near_node)
        confs.append(render_conf(near_node, [far_node]))
    return World(lab, a, tuple(far), tuple(confs), tuple(nodes))


def pass_on(host: Host) -> None:
    """Let `host` carry what comes from its tunnel on to elsewhere, as a provider does."""
    host.set_sysctl("net.ipv4.ip_forward", "1")
    host.set_sysctl("net.ipv6.conf.all.forwarding", "1")
    chain = "type nat hook postrouting priority srcnat;"
    host.nft(f"table inet provider {{\n chain out {{\n {chain}\n oifname eth0 masquerade\n }}\n}}")


def use_it(a: Host, far: Host) -> None:
    """All kinds of traffic of host a to ELSEWHERE, which `far` answers."""
    for address in ELSEWHERE:
        a.ping(address, timeout=20)
        check_transfer(a, far, address, 300_000)
        check_transfer(far, a, a_address(a, address), 50_000)
    say_much(a)


def a_address(a: Host, like: str) -> str:
    """The first address of a's wg0 or wg1, of the same IP version."""
    version = 6 if ":" in like else 4
    found = [each for each in a.addresses() if each.interface.startswith("wg")]
    return str(next(each.address.ip for each in found if each.address.version == version))


def say_much(a: Host) -> None:
    """Datagrams and calls of host a that nobody answers."""
    for address in (*ELSEWHERE, "203.0.113.1", "2001:db8:b::1", "8.8.8.8", "2001:db8:99::1"):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        for port in (53, 123, 51820, 33434):
            # A kill switch refuses.
            with a.socket(family, socket.SOCK_DGRAM) as sock, contextlib.suppress(PermissionError):
                sock.sendto(b"x" * 1300, (address, port))
        with a.socket(family, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            sock.connect_ex((address, 80))


def check_that_nothing_leaks(world: World, and_then: Callable[[], None] = lambda: None) -> None:
    """Host a, its full tunnel up, sends nothing past it: in use, and while the far end is deaf.

    `and_then` is what else is done before the capture is looked at.
    """
    a, (b,) = world.a, world.far
    with Outgoing(a) as seen:
        use_it(a, b.node.host)
        b.down()
        say_much(a)
        with pytest.raises(LabError):
            a.ping(ELSEWHERE[0], timeout=1)
        and_then()
        seen.read(*world.endpoints)
        assert seen.strangers == []
        assert seen.tunnelled > 2 * 300_000
