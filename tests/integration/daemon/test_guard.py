"""What another program takes away is noticed by the daemon, and put back if the conf says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.daemons import follow, followed, status
from tests.support.hosts import TwoHosts
from tunnel.lab import Host
from tunnel.lab.peers import Node, OurEnd, render_conf

pytestmark = pytest.mark.root

FULL = ("0.0.0.0/0", "::/0")


def up(two: TwoHosts, *lines: str, routes: tuple[str, ...] = ("10.88.0.0/16",)) -> OurEnd:
    a = Node(two.a, ("10.77.0.1/24", "fd77::1/64"), "192.0.2.1")
    b = Node(two.b, ("10.77.0.2/24", "fd77::2/64"), "192.0.2.2", routes=routes)
    end = OurEnd(a, render_conf(a, [b], extra=lines))
    end.up()
    return end


def missing(end: OurEnd) -> list[str]:
    found: list[str] = status(end)["missing"]
    return found


TAKEN = {
    "rule": (["ip", "rule", "del", "priority", "32765"], "rule ipv4 32765"),
    "suppress": (["ip", "-6", "rule", "del", "priority", "32764"], "rule ipv6 32764"),
    "table": (["ip", "route", "flush", "table", "51820"], "route 0.0.0.0/0 table 51820"),
    "firewall": (["nft", "delete", "table", "inet", "tunnel-wg0"], "firewall"),
    "address": (["ip", "addr", "del", "10.77.0.1/24", "dev", "wg0"], "address 10.77.0.1/24"),
}


@pytest.fixture
def full(two_hosts: TwoHosts) -> OurEnd:
    # The far end is a neighbour, so nothing else of the host is needed to reach it.
    return up(two_hosts, routes=FULL)


def test_what_is_taken_from_a_full_tunnel_is_named_and_put_back_by_reload(full: OurEnd) -> None:
    host = full.node.host
    events = follow(full)
    for command, name in TAKEN.values():
        assert missing(full) == []
        host.run(command)
        host.wait_for(lambda: missing(full), 10, "the daemon to notice")
        assert any(item.startswith(name) for item in missing(full)), missing(full)
        assert "missing: " in full.tunnel("show", "wg0")
        full.tunnel("reload", "wg0")
        host.wait_for(lambda: not missing(full), 10, "all to be there again")

    def reported() -> list[bool]:
        return [bool(each["items"]) for each in followed(events) if each["type"] == "missing"]

    host.wait_for(lambda: len(reported()) == 2 * len(TAKEN), 10, "an event each time")
    assert reported() == [True, False] * len(TAKEN)
    log = Path("/run/tunnel/wg0.log")
    text = host.run(["cat", str(log)]).stdout
    assert text.count("another program has removed: ") == len(TAKEN)
    assert "to put it back: tunnel reload wg0" in text


def rules(host: Host) -> list[dict[str, Any]]:
    return list(host.ip_json(["rule", "show"]))


def test_with_repair_it_is_back_by_itself(two_hosts: TwoHosts) -> None:
    end = up(two_hosts, "#! tunnel: Repair = on", routes=FULL)
    host = end.node.host
    before = rules(host)
    host.run(TAKEN["rule"][0])
    assert rules(host) != before
    host.wait_for(lambda: rules(host) == before, 10, "the rule to be put back")
    host.wait_for(lambda: not missing(end), 10, "the report that it is")


def test_what_a_hook_took_away_is_no_loss(two_hosts: TwoHosts) -> None:
    end = up(two_hosts, "PostUp = ip route del 10.88.0.0/16 dev %i")
    host = end.node.host
    host.run(["ip", "addr", "del", "fd77::1/64", "dev", "wg0"])
    host.wait_for(lambda: missing(end), 10, "the daemon to notice")
    assert missing(end) == ["address fd77::1/64"]
