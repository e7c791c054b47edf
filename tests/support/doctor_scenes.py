"""Networks for the doctor's matrix: one for each shape of conf, all well.

In each there are a client a, a router, and a server b that a's conf knows by name:

    a 198.51.100.1 ── router ── 203.0.113.1 b      and the same by IPv6
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from tests.support.doctoring import DOCTOR, conf_of, examined, forget_sessions
from tunnel.lab import Cable, Host, Lab, Router
from tunnel.lab.errors import LabError
from tunnel.lab.peers import Node, OurEnd

SERVER = "b.example"
WAIT = "12"
OUTER_A = {4: "198.51.100.1", 6: "2001:db8:a::1"}
OUTER_B = {4: "203.0.113.1", 6: "2001:db8:b::1"}
BEHIND = "10.99.0.2"
"""A host behind the gateway."""


@dataclass(frozen=True)
class Shape:
    """A form of conf: addresses of a and b in the tunnel, and what a reaches by b.

    `outer` is the IP version of the endpoints. `target` is an address that a pings.
    """

    name: str
    a: tuple[str, ...] = ("10.77.0.1/24",)
    b: tuple[str, ...] = ("10.77.0.2/24",)
    target: str = "10.77.0.2"
    routes: tuple[str, ...] = ()
    full: tuple[int, ...] = ()
    outer: int = 4
    mutual: bool = True


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("split"),
        Shape(
            *("full v4", ("10.77.0.5/32",), ("10.77.0.1/24",), "10.77.0.1", ("0.0.0.0/0",), (4,)),
            mutual=False,
        ),
        Shape(
            *("full v6", ("fd77::5/128",), ("fd77::1/64",), "fd77::1", ("::/0",), (6,), 6),
            mutual=False,
        ),
        Shape(
            *("both", ("10.77.0.5/32", "fd77::5/128"), ("10.77.0.1/24", "fd77::1/64")),
            *("10.77.0.1", ("0.0.0.0/0", "::/0"), (4, 6)),
            mutual=False,
        ),
        Shape("halves", routes=("0.0.0.0/1", "128.0.0.0/1"), mutual=False),
        Shape("nested"),
        Shape("gateway", routes=("10.99.0.0/24",), target=BEHIND, mutual=False),
        Shape("hub", routes=("10.77.0.0/24",), mutual=False),
        Shape("namespace"),
    )
}


@dataclass
class Scene:
    """One shape that runs. `console` is where a's doctor is called, if not in a."""

    shape: Shape
    lab: Lab
    router: Router
    a: OurEnd
    b: OurEnd
    cable: Cable
    console: Host | None = None
    others: list[OurEnd] = field(default_factory=list)
    peers_of_b: tuple[Node, ...] = ()

    @property
    def here(self) -> Host:
        return self.a.node.host

    @property
    def there(self) -> Host:
        return self.b.node.host

    def text_a(self, **changes: Any) -> str:
        """a's conf, with changes of what it says of b."""
        return conf_of(self.a.node, seen_by_a(self.shape, self.b.node, **changes))

    def text_b(self, **changes: Any) -> str:
        """b's conf, with changes of what it says of a."""
        return conf_of(
            self.b.node, replace(seen_by_b(self.shape, self.a.node), **changes), *self.peers_of_b
        )

    def flows(self, seconds: float = 15.0) -> bool:
        """Whether a reaches what it should."""
        try:
            self.here.ping(self.shape.target, timeout=seconds)
        except LabError:
            return False
        return True

    def examine(self, *options: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the doctors on both sides say; they look at the same time."""
        asked_here, asked_there = options, tuple[str, ...]()
        if self.shape.name == "gateway":
            asked_here, asked_there = ("--address", BEHIND), ("--forward", "--address", BEHIND)
        enter: list[str] = []
        if self.console is not None:
            enter = ["nsenter", f"--net=/proc/{self.console.pid}/ns/net"]
        # Traffic as users have it: what drops it is seen by both.
        traffic = self.here.popen(["ping", "-n", "-i", "0.5", self.shape.target])
        started = [
            end.node.host.popen([*before, *DOCTOR, str(end.conf), "--json", "--wait", WAIT, *asked])
            for end, before, asked in ((self.a, enter, asked_here), (self.b, [], asked_there))
        ]
        here, there = (examined(process) for process in started)
        traffic.kill()
        return here, there

    def forget(self) -> None:
        """Let all sessions end."""
        for end in (self.a, self.b):
            with contextlib.suppress(LabError):
                forget_sessions(end)
        # The daemon puts back what went with the link. Who pings before has a source of eth0.
        with contextlib.suppress(LabError):
            self.here.wait_for(self._enters_tunnel, 2.0, "routes that are back")

    def _enters_tunnel(self) -> bool:
        found = self.here.run(["ip", "route", "get", self.shape.target], check=False)
        return "dev wg0" in found.stdout

    def restore(self, *, reload: bool) -> bool:
        """Bring back what faults, and with `reload` remedies, changed; whether all is well."""
        for end in (self.a, self.b) if reload else ():
            end.tunnel("reload", end.node.interface, check=False)
        self.forget()
        return self.flows()


def seen_by_a(shape: Shape, b: Node, **changes: Any) -> Node:
    """b in a's conf: behind a full tunnel there is no address but the default routes."""
    addresses = () if shape.full or shape.name == "halves" else b.addresses
    return replace(b, **{"addresses": addresses, "routes": shape.routes, **changes})


def seen_by_b(shape: Shape, a: Node) -> Node:
    return a if shape.mutual else replace(a, endpoint=None)


NAT = """table inet nat_of_b {
    chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr 10.77.0.0/24 oifname != "wg0" masquerade
    }
}"""


@contextlib.contextmanager
def scene(name: str) -> Iterator[Scene]:
    """All hosts of a shape, their tunnels up and in use."""
    shape = SHAPES[name]
    with Lab() as lab:
        a, b, router = lab.host("a"), lab.host("b"), lab.router("router")
        cable = lab.routed(a, router, b)
        place = OUTER_B[shape.outer]
        others: list[OurEnd] = []
        if name == "nested":
            others = _carrier(a, b)
            place = "10.78.0.2"
        with (a.etc / "hosts").open("a") as hosts:
            hosts.write(f"{place} {SERVER}\n")
        if name == "halves":
            a.ip(f"route add {place} via 198.51.100.254")
        own = "10.78.0.1" if name == "nested" else OUTER_A[shape.outer]
        here, there = Node(a, shape.a, own), Node(b, shape.b, SERVER)
        peers: tuple[Node, ...] = ()
        if name == "hub":
            peers = tuple(Node(b, (f"10.77.0.{number}/32",)) for number in (51, 52, 53))
        text_b = conf_of(there, seen_by_b(shape, here), *peers)
        found = Scene(
            shape,
            lab,
            router,
            OurEnd(here, conf_of(here, seen_by_a(shape, there)), _with_resolvconf(a)),
            OurEnd(there, text_b),
            cable,
            others=others,
            peers_of_b=peers,
        )
        if name == "gateway":
            inside = lab.host("inside")
            lab.link(b, inside, ["10.99.0.1/24"], [f"{BEHIND}/24"])
            b.set_sysctl("net.ipv4.ip_forward", "1")
            b.nft(NAT)
        if name == "namespace":
            found.console = lab.host("console")
        for end in (*others, found.b, found.a):
            end.up()
        if not found.flows():
            raise LabError(f"{name}: nothing flows before there is a fault")
        yield found


RESOLVCONF = """#!/bin/sh
[ "$1" != -a ] || cat > /etc/resolv.conf
"""


def _with_resolvconf(host: Host) -> dict[str, str]:
    """An environment in which there is a resolvconf(8), for the host's own resolv.conf."""
    folder = host.etc / "programs"
    folder.mkdir()
    (folder / "resolvconf").write_text(RESOLVCONF)
    (folder / "resolvconf").chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def _carrier(a: Host, b: Host) -> list[OurEnd]:
    """A tunnel wg1 between the two, through which the other goes."""
    here = Node(a, ("10.78.0.1/24",), OUTER_A[4], 51821, "wg1")
    there = Node(b, ("10.78.0.2/24",), OUTER_B[4], 51821, "wg1")
    return [OurEnd(here, conf_of(here, there)), OurEnd(there, conf_of(there, here))]


Make = Callable[[Scene], contextlib.AbstractContextManager[object]]
TUNNEL = f'tunnel() {{ "{sys.executable}" -m tunnel "$@"; }}\n'
"""For remedies: our command is on no PATH of the tests."""
