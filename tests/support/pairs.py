"""Two of our ends that are up, by every combination of what is outside."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tests.support.hosts import TwoHosts
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


def status(end: OurEnd) -> dict[str, Any]:
    (found,) = json.loads(end.tunnel("show", end.node.interface, "--json"))
    assert isinstance(found, dict)
    return found


def drops(end: OurEnd) -> dict[str, int]:
    found: dict[str, int] = status(end)["drops"]
    return found


def remains(host: Host) -> list[str]:
    """What a tunnel may leave behind in a host, and must not."""
    found = [name for name in host.interfaces() if not name.startswith(("lo", "eth"))]
    found += [str(address) for address in host.addresses() if address.interface != "eth0"]
    for family in ("-4", "-6"):
        rules = host.run(["ip", family, "rule", "show"]).stdout.splitlines()
        found += [rule for rule in rules if not rule.endswith(("local", "main", "default"))]
        routes = host.run(["ip", family, "route", "show", "table", "all"]).stdout.splitlines()
        found += [route for route in routes if "eth0" not in route and "dev lo" not in route]
    found += host.run(["ss", "-Hulpn"]).stdout.splitlines()
    found += host.run(["nft", "list", "tables"]).stdout.splitlines()
    found += [f"process {pid}" for pid in host.pids()]
    listing = host.run(["sh", "-c", "ls -A /run/tunnel /run/wireguard 2>/dev/null"], check=False)
    names = [line for line in listing.stdout.splitlines() if line and not line.endswith(":")]
    found += [name for name in names if not name.endswith(".log")]
    return found
