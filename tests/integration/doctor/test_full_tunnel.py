"""`tunnel doctor` on a full tunnel, as providers have it: what silences it, and what leaves it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.support.doctoring import (
    SHORT,
    Net,
    blocked,
    carry_out,
    codes,
    conf_of,
    done_and_undone,
    examine,
    forget_sessions,
    reloaded,
    remedy_of,
)
from tunnel.lab.faults import Hook
from tunnel.lab.peers import Node, generate_preshared_key

pytestmark = pytest.mark.root


@pytest.fixture
def full(net: Net) -> Iterator[Net]:
    """Nothing but default routes."""
    with reloaded(net.a, text_of(net)):
        yield net


def text_of(net: Net, *, psk: str | None = None, key: str = "") -> str:
    there = replace(net.b.node, addresses=(), routes=("0.0.0.0/0", "::/0"))
    text = conf_of(net.a.node, there, psk=psk)
    return text.replace(there.public_key, key or there.public_key)


def test_a_silent_endpoint(full: Net) -> None:
    with blocked(full.far, Hook.INPUT, "udp dport 51820"):
        forget_sessions(full.a)
        assert codes(examine(full.a)) == {"nothing_comes"}


def test_a_preshared_key_on_one_side_and_a_wrong_key(full: Net) -> None:
    with reloaded(full.a, text_of(full, psk=generate_preshared_key()), forget=True):
        assert codes(examine(full.a)) == {"preshared_key_differs"}
    stranger = Node(full.far, ()).public_key
    with reloaded(full.a, text_of(full, key=stranger), forget=True):
        # b may begin a handshake meanwhile, and that says more.
        assert codes(examine(full.a)) in ({"nothing_comes"}, {"unknown_peer"})


def test_what_another_program_took_away_is_put_back(full: Net) -> None:
    full.host.run(["sh", "-ec", "nft delete table inet tunnel-wg0; ip rule flush"])
    full.host.ip("rule add pref 32766 lookup main", "rule add pref 32767 lookup default")
    full.host.run(["ip", "-6", "route", "flush", "table", "51820"])
    report = examine(full.a)
    assert codes(report) == {"taken_away"}
    for lost in ("rule ipv4", "firewall ipv4+ipv6", "route ::/0 table 51820"):
        assert lost in report["findings"][0]["evidence"]
    carry_out(full.a, remedy_of(report, "taken_away"))
    assert codes(examine(full.a)) == set()


@pytest.mark.parametrize(
    ("add", "remove"),
    [
        ("rule add pref 99 lookup main", "rule del pref 99"),
        ("route add 0.0.0.0/1 dev eth0", "route del 0.0.0.0/1 dev eth0"),
        ("route add unreachable 2000::/3", "route del unreachable 2000::/3"),
    ],
)
def test_what_leaves_in_clear(full: Net, add: str, remove: str) -> None:
    with done_and_undone(full.host, "route add default dev eth0", "route del default dev eth0"):
        full.host.ip(add)
        report = examine(full.a)
        assert codes(report) == {"traffic_leaks"}
        carry_out(full.a, remedy_of(report, "traffic_leaks"))
        assert codes(examine(full.a)) == set()
        gone = full.host.run(["ip", *remove.split()], check=False)
        assert gone.returncode != 0


def test_a_route_that_drops_a_part(full: Net) -> None:
    for route in ("blackhole 10.66.0.0/16", "prohibit 2001:db8:66::/48"):
        family = "-6" if ":" in route else "-4"
        full.host.run(["ip", family, "route", "add", *route.split()])
        report = examine(full.a)
        assert codes(report) == set()
        assert codes(report, "notes") == {"route_drops"}
        (note,) = [each for each in report["notes"] if each["code"] == "route_drops"]
        assert route in note["evidence"]
        full.host.run(["sh", "-c", note["remedy"]])
    assert codes(examine(full.a), "notes") == set()


def test_a_conf_that_is_gone(net: Net) -> None:
    kept = net.a.conf.rename(net.a.conf.with_suffix(".kept"))
    try:
        report = examine(net.a, wait=SHORT)
    finally:
        kept.rename(net.a.conf)
    assert codes(report) == {"conf_gone"}
