"""A tunnel with a router behind one end, and no rules that stay."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.traces import (
    STARTED,
    C,
    Net,
    trace_tables,
)
from tunnel.lab import Lab
from tunnel.lab.peers import Node, mesh


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with Lab() as lab:
        a, b, c = lab.host("a"), lab.router("b"), lab.host("c")
        lab.link(a, b, ["192.0.2.1/24"], ["192.0.2.2/24"])
        lab.link(b, c, ["10.88.0.1/24"], ["10.88.0.2/24"])
        c.ip("route add default via 10.88.0.1")
        nodes = [
            Node(a, ("10.77.0.1/24", "fd77::1/64"), "192.0.2.1"),
            Node(b, ("10.77.0.2/24", "fd77::2/64"), "192.0.2.2", routes=("10.88.0.0/24",)),
        ]
        for end in mesh(nodes).values():
            end.up()
        a.ping(C)
        yield Net(a, b, c)


@pytest.fixture(autouse=True)
def no_rules_stay(net: Net) -> Iterator[None]:
    yield
    while STARTED:
        STARTED.pop().stop()
    for host in (net.a, net.b):
        host.run(["nft", "delete", "table", "inet", "user"], check=False)
        assert trace_tables(host) == []
