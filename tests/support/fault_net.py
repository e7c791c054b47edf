"""Two hosts behind a router, with tunnels by IPv4 and by IPv6, for faults that come and go."""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.pairs import drops
from tests.support.streams import Stream
from tunnel.lab import Host, Lab, wait_for
from tunnel.lab.peers import Node, OurEnd, mesh
from tunnel.lab.topology import Router

OUTER = {4: ("198.51.100.1", "203.0.113.1"), 6: ("2001:db8:a::1", "2001:db8:b::1")}


@dataclass(frozen=True)
class Net:
    """a and b with a tunnel, by `outer`'s version of IP; the router has eth0 to a and eth1 to b."""

    a: OurEnd
    router: Router
    b: OurEnd
    outer: int

    @property
    def here(self) -> Host:
        return self.a.node.host

    @property
    def there(self) -> Host:
        return self.b.node.host

    def set_up_ipv6(self) -> None:
        """The address and the route of a, which the kernel takes away with the link."""
        self.here.add_addresses("eth0", [f"{OUTER[6][0]}/64"])
        self.here.ip("route add default via 2001:db8:a::254 dev eth0")

    def stream(self, *, back: bool = False, size: int = 64) -> Stream:
        """From a to b, or from b to a."""
        near, far = (self.b, self.a) if back else (self.a, self.b)
        return Stream(near.node.host, far.node.host, far.node.address(), size=size)

    def wait_for_drops(self, reason: str, more_than: int) -> None:
        """Until a has dropped for that reason what it had not before."""
        wait_for(
            lambda: drops(self.a).get(reason, 0) > more_than, 20, f"a drop counted as {reason}"
        )


class Nets:
    """Those of each version of IP, on the same three hosts of a lab; made when asked for."""

    def __init__(self, lab: Lab) -> None:
        self._hosts = lab.host("a"), lab.host("b")
        self._router = lab.router("r")
        lab.routed(self._hosts[0], self._router, self._hosts[1])
        self._made: dict[int, Net] = {}

    def by(self, outer: int) -> Net:
        """With interfaces wg4 and port 51824, or wg6 and 51826."""
        if outer not in self._made:
            nodes = [
                Node(
                    host,
                    (f"10.7{outer}.0.{number}/24",),
                    OUTER[outer][number - 1],
                    port=51820 + outer,
                    interface=f"wg{outer}",
                )
                for number, host in enumerate(self._hosts, start=1)
            ]
            ends = mesh(nodes)
            here, there = ends["a"], ends["b"]
            assert isinstance(here, OurEnd)
            assert isinstance(there, OurEnd)
            here.up()
            there.up()
            self._made[outer] = Net(here, self._router, there, outer)
        return self._made[outer]
