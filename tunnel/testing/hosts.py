"""Two hosts in namespaces: on a cable, on a bad wire, with a tunnel between them."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from tunnel.lab import Cable, Host, Lab
from tunnel.lab.errors import LabError
from tunnel.lab.peers import Node, OurEnd, mesh
from tunnel.lab.weather import Faults
from tunnel.lab.wire import Carrier, UserWire

ADDRESSES = (("192.0.2.1/24", "2001:db8::1/64"), ("192.0.2.2/24", "2001:db8::2/64"))
"""Outside: those of host a, and those of host b."""

INNER = (("10.77.0.1/24", "fd77::1/64"), ("10.77.0.2/24", "fd77::2/64"))
"""The same in a tunnel."""


@dataclass(frozen=True)
class TwoHosts:
    """Hosts a (192.0.2.1, 2001:db8::1) and b (192.0.2.2, 2001:db8::2) on one veth."""

    lab: Lab
    a: Host
    b: Host
    link: Cable


def two_hosts(lab: Lab) -> TwoHosts:
    """Make them."""
    a, b = lab.host("a"), lab.host("b")
    return TwoHosts(lab, a, b, lab.link(a, b, *ADDRESSES))


class LossyWire:
    """Hosts a and b with the addresses of `TwoHosts`, on a wire with faults."""

    def __init__(self, a: Host, b: Host, carrier: Carrier) -> None:
        self.a = a
        self.b = b
        self._carrier = carrier

    @property
    def faults(self) -> Faults:
        """What happens to each packet, in each direction; may be replaced at any time."""
        return self._carrier.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._carrier.faults = faults

    @property
    def counts(self) -> Counter[str]:
        """Packets so far: "carried", "lost", "duplicated", "corrupted", "reordered", …"""
        return Counter(self._carrier.counts)


@contextlib.contextmanager
def lossy_wire(lab: Lab, faults: Faults, *, seed: int = 0) -> Iterator[LossyWire]:
    """Make two hosts and a wire between them, which carries for the time of the `with`.

    The same `seed` means the same faults, packet by packet.
    """
    a, b = lab.host("a"), lab.host("b")
    with UserWire([a, b], faults, seed=seed) as wire:
        for host, interface, addresses in zip((a, b), wire.interfaces, ADDRESSES, strict=True):
            host.add_addresses(interface, addresses)
        yield LossyWire(a, b, wire.carrier)


@dataclass(frozen=True)
class TunnelPair:
    """A tunnel that is up: `a` has 10.77.0.1 and fd77::1 in it, `b` 10.77.0.2 and fd77::2."""

    a: OurEnd
    b: OurEnd


def tunnel_pair(a: Host, b: Host) -> TunnelPair:
    """Set up a tunnel between the hosts of `TwoHosts` or of a `LossyWire`, by `tunnel up`."""
    nodes = [
        Node(host, inner, outer[0].partition("/")[0])
        for host, inner, outer in zip((a, b), INNER, ADDRESSES, strict=True)
    ]
    ends = []
    for end in mesh(nodes).values():
        if not isinstance(end, OurEnd):
            raise LabError(f"{end.program} is not this program")
        end.up()
        ends.append(end)
    return TunnelPair(*ends)
