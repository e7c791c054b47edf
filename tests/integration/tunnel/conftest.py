"""Two of our ends, by every combination of what is outside."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.conftest import TwoHosts
from tunnel.lab import Host, Lab
from tunnel.lab.peers import Node, OurEnd, mesh

OUTER = {
    4: ("192.0.2.1", "192.0.2.2"),
    6: ("2001:db8::1", "2001:db8::2"),
}


@dataclass(frozen=True)
class Pair:
    """Two ends that are up, each knowing where the other is."""

    lab: Lab
    a: OurEnd
    b: OurEnd

    @property
    def hosts(self) -> tuple[Host, Host]:
        return self.a.node.host, self.b.node.host


def make_pair(two: TwoHosts, *, outer: int = 4, preshared_key: str | None = None) -> Pair:
    nodes = [
        Node(host, (f"10.77.0.{number}/24", f"fd77::{number}/64"), OUTER[outer][number - 1])
        for number, host in enumerate((two.a, two.b), start=1)
    ]
    ends = mesh(nodes, preshared_key=preshared_key)
    a, b = ends["a"], ends["b"]
    assert isinstance(a, OurEnd)
    assert isinstance(b, OurEnd)
    a.up()
    b.up()
    return Pair(two.lab, a, b)


@pytest.fixture
def pair(two_hosts: TwoHosts) -> Pair:
    return make_pair(two_hosts)
