"""`tunnel doctor` on two hosts: each fault is made, found under its code, and undone again."""

from __future__ import annotations

import contextlib
import glob
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tunnel.lab import Host, Lab, faults
from tunnel.lab.faults import Hook
from tunnel.lab.peers import Node, OurEnd, generate_preshared_key, render_conf

pytestmark = pytest.mark.root

DOCTOR = [sys.executable, "-m", "tunnel", "doctor"]
A, B, BEHIND_B = "10.77.0.1", "10.77.0.2", "10.88.0.5"
NAME = "b.example"

FAKETIME = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")

SHORT = "3"
"""Seconds to wait where nothing is expected to answer."""


@dataclass(frozen=True)
class Net:
    """Hosts a and b with a tunnel between them; a's conf knows b by name."""

    a: OurEnd
    b: OurEnd

    @property
    def host(self) -> Host:
        return self.a.node.host


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with Lab() as lab:
        a, b = lab.host("a"), lab.host("b")
        lab.link(a, b, ["192.0.2.1/24"], ["192.0.2.2/24"])
        with (a.etc / "hosts").open("a") as hosts:
            hosts.write(f"192.0.2.2 {NAME}\n")
        here = Node(a, (f"{A}/24", "fd77::1/64"), "192.0.2.1")
        there = Node(b, (f"{B}/24", "fd77::2/64"), NAME, routes=("10.88.0.0/24",))
        net = Net(OurEnd(here, conf_of(here, there)), OurEnd(there, conf_of(there, here)))
        net.a.up()
        net.b.up()
        yield net


def conf_of(node: Node, peer: Node, psk: str | None = None, *, extra: Sequence[str] = ()) -> str:
    return render_conf(node, [peer], psk, extra=extra)


def examine(
    end: OurEnd, *options: str, wait: str = "30", before: Sequence[str] = ()
) -> dict[str, Any]:
    """What the doctor says on the host of `end`."""
    command = [*before, *DOCTOR, str(end.conf), "--json", "--wait", wait, *options]
    ran = end.node.host.run(command, check=False)
    (report,) = json.loads(ran.stdout)
    assert ran.returncode == (0 if report["healthy"] else 1), ran.stderr
    for finding in report["findings"]:
        assert all(finding[part] for part in ("what", "evidence", "remedy"))
    found: dict[str, Any] = report
    return found


def codes(report: dict[str, Any]) -> set[str]:
    return {finding["code"] for finding in report["findings"]}


@contextlib.contextmanager
def conf_is(end: OurEnd, text: str) -> Iterator[None]:
    """Let the conf of `end` hold `text` for a while; the tunnel does not know."""
    right = end.conf.read_text()
    end.conf.write_text(text)
    try:
        yield
    finally:
        end.conf.write_text(right)


@contextlib.contextmanager
def reloaded(end: OurEnd, text: str) -> Iterator[None]:
    """Let the running tunnel of `end` follow another conf; sessions stay."""
    right = end.conf.read_text()
    with conf_is(end, text):
        end.tunnel("reload", "wg0")
        try:
            yield
        finally:
            end.conf.write_text(right)
            end.tunnel("reload", "wg0")


@contextlib.contextmanager
def runs_with(end: OurEnd, text: str) -> Iterator[None]:
    """Let the tunnel of `end` run with another conf, without any old session."""
    end.down()
    try:
        with conf_is(end, text):
            end.up()
            try:
                yield
            finally:
                end.down()
    finally:
        end.up()


@contextlib.contextmanager
def done_and_undone(host: Host, do: str, undo: str) -> Iterator[None]:
    """Two lines of `ip`."""
    host.ip(do)
    try:
        yield
    finally:
        host.ip(undo)


@contextlib.contextmanager
def sysctl(host: Host, name: str, value: str, old: str) -> Iterator[None]:
    host.set_sysctl(name, value)
    try:
        yield
    finally:
        host.set_sysctl(name, old)


@contextlib.contextmanager
def blocked(host: Host, hook: Hook, match: str) -> Iterator[None]:
    faults.block(host, hook, match)
    try:
        yield
    finally:
        faults.unblock(host, hook)


@contextlib.contextmanager
def rules(host: Host, table: str, chains: str) -> Iterator[None]:
    host.nft(f"table {table} {{\n{chains}\n}}")
    try:
        yield
    finally:
        host.run(["nft", "delete", "table", *table.split()])


def rules_left(host: Host) -> str:
    return host.run(["nft", "list", "tables"]).stdout


# --- Healthy -------------------------------------------------------------------------------------


def test_nothing_is_found_on_a_healthy_tunnel_and_nothing_is_left_behind(net: Net) -> None:
    before = rules_left(net.host)
    for end in (net.a, net.b):
        report = examine(end)
        assert codes(report) == set()
        assert report["notes"] == [] or codes({"findings": report["notes"]}) == {"datapath_python"}
        assert report["skipped"] == []
    assert rules_left(net.host) == before


def test_people_are_told_the_same(net: Net) -> None:
    ran = net.host.run([*DOCTOR, "--address", "fd77::2"])
    assert ran.stdout.startswith("wg0: nothing wrong\n")
    assert "in use  datapath: " in ran.stdout


def test_nothing_is_found_on_a_full_tunnel(net: Net) -> None:
    there = replace(net.b.node, routes=("0.0.0.0/0", "::/0"))
    with reloaded(net.a, conf_of(net.a.node, there)):
        assert codes(examine(net.a)) == set()


# --- Conf, clock, rights -------------------------------------------------------------------------


def test_a_conf_with_a_mistake(net: Net) -> None:
    with conf_is(net.a, net.a.conf.read_text() + "AllowedIPs = 10.0.0.0/33\n"):
        assert codes(examine(net.a)) == {"conf_invalid"}


def test_our_own_key_as_the_peers(net: Net) -> None:
    mixed = replace(net.b.node, private_key=net.a.node.private_key)
    with conf_is(net.a, conf_of(net.a.node, mixed)):
        assert codes(examine(net.a)) == {"own_key_as_peer"}


def test_a_tunnel_that_is_not_up_and_an_endpoint_without_address(net: Net) -> None:
    net.a.down()
    try:
        there = replace(net.b.node, endpoint="no-such-host.invalid")
        with conf_is(net.a, conf_of(net.a.node, there)):
            assert codes(examine(net.a)) == {"not_running", "endpoint_name"}
    finally:
        net.a.up()


@pytest.mark.skipif(not FAKETIME, reason="needs libfaketime")
@pytest.mark.parametrize(
    ("clock", "code"), [("@2016-01-01 00:00:00", "clock_wrong"), ("-2h", "clock_set_back")]
)
def test_a_wrong_clock(net: Net, clock: str, code: str) -> None:
    net.host.ping(B)
    settings = (f"LD_PRELOAD={FAKETIME[0]}", f"FAKETIME={clock}", "FAKETIME_DONT_FAKE_MONOTONIC=1")
    fake = ["env", *settings]
    assert codes(examine(net.a, before=fake)) == {code}


@pytest.mark.foreign("setpriv")
def test_missing_privileges(net: Net) -> None:
    without = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    report = examine(net.a, before=without)
    assert codes(report) == {"privileges"}


# --- Handshakes ----------------------------------------------------------------------------------


def test_a_preshared_key_on_one_side_only(net: Net) -> None:
    with runs_with(net.a, conf_of(net.a.node, net.b.node, generate_preshared_key())):
        assert codes(examine(net.a, wait=SHORT)) == {"preshared_key_differs"}


def test_the_peer_has_the_wrong_key_of_us_and_we_of_it(net: Net) -> None:
    stranger = replace(net.b.node, private_key=Node(net.host, ()).private_key)
    with runs_with(net.a, conf_of(net.a.node, stranger)):
        # Without an old session each side says at once who it is, and for whom.
        net.b.down()
        net.b.up()
        net.host.run(["ping", "-n", "-c1", "-W1", B], check=False)
        assert codes(examine(net.b, wait=SHORT)) == {"peer_has_wrong_key"}
        assert codes(examine(net.a, wait=SHORT)) == {"unknown_peer"}


def test_udp_blocked_on_the_way(net: Net) -> None:
    with blocked(net.b.node.host, Hook.INPUT, "udp dport 51820"):
        report = examine(net.a, wait=SHORT)
    assert codes(report) == {"nothing_comes"}
    assert "192.0.2.2:51820" in report["findings"][0]["evidence"]


def test_nobody_at_the_endpoint(net: Net) -> None:
    net.b.down()
    try:
        # A handshake that is under way already is tried again only every five seconds.
        assert codes(examine(net.a, wait="8")) == {"endpoint_refuses"}
    finally:
        net.b.up()


# --- Routes --------------------------------------------------------------------------------------


def test_the_route_to_the_endpoint_leads_into_the_tunnel(net: Net) -> None:
    route = "route {} 192.0.2.2/32 dev wg0"
    with done_and_undone(net.host, route.format("add"), route.format("del")):
        assert codes(examine(net.a, wait=SHORT)) == {"endpoint_in_tunnel"}


def test_no_route_to_the_endpoint(net: Net) -> None:
    route = "route {} unreachable 192.0.2.2/32"
    with done_and_undone(net.host, route.format("add"), route.format("del")):
        assert codes(examine(net.a, wait=SHORT)) == {"endpoint_unreachable"}


def test_an_address_that_no_allowed_ips_cover(net: Net) -> None:
    assert codes(examine(net.a, "--address", "10.99.0.1")) == {"address_missed"}


def test_an_address_behind_the_peer_that_is_silent(net: Net) -> None:
    assert codes(examine(net.a, "--address", BEHIND_B)) == {"address_silent"}


def test_allowed_ips_that_swallow_the_own_network(net: Net) -> None:
    there = replace(net.b.node, routes=("192.0.2.128/25",))
    with reloaded(net.a, conf_of(net.a.node, there)):
        assert codes(examine(net.a)) == {"allowed_ips_swallow"}


def test_strict_rp_filter_with_a_route_that_misses_the_tunnel(net: Net) -> None:
    route = f"route replace {B}/32 dev "
    with (
        sysctl(net.host, "net.ipv4.conf.wg0.rp_filter", "1", "0"),
        done_and_undone(net.host, route + "eth0", route + "wg0"),
    ):
        report = examine(net.a, wait=SHORT)
    assert codes(report) == {"rp_filter", "route_misses_tunnel"}
    (finding,) = [each for each in report["findings"] if each["code"] == "rp_filter"]
    assert "it dropped" in finding["evidence"]


def test_forwarding_that_is_off(net: Net) -> None:
    assert codes(examine(net.a, "--forward")) == {"forwarding_off"}


# --- Firewall ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hook", "match", "layer"),
    [
        (Hook.OUTPUT, "udp dport 51820", "outer"),
        (Hook.INPUT, "udp sport 51820", "outer"),
        (Hook.INPUT, "icmp type echo-reply", "inner"),
    ],
)
def test_a_rule_of_ours_drops_it(net: Net, hook: Hook, match: str, layer: str) -> None:
    with blocked(net.host, hook, match):
        report = examine(net.a, wait=SHORT)
        assert codes(report) == {"firewall_drop"}
        finding = report["findings"][0]
        assert (
            f"{hook.upper()} of the {layer} packet: table inet lab_block_{hook}"
            in (finding["evidence"])
        )
        # The remedy is a command that works.
        net.host.run(["sh", "-c", finding["remedy"]])
        net.host.ping(B)


@contextlib.contextmanager
def forwarding(host: Host) -> Iterator[None]:
    with (
        sysctl(host, "net.ipv4.ip_forward", "1", "0"),
        sysctl(host, "net.ipv6.conf.all.forwarding", "1", "0"),
    ):
        yield


CLOSED = "chain FORWARD { type filter hook forward priority filter; policy drop; }"


@pytest.mark.parametrize(
    ("chains", "code"),
    [(f"chain DOCKER-USER {{ }}\n{CLOSED}", "docker_forward"), (CLOSED, "forward_closed")],
)
def test_a_forward_chain_that_docker_or_another_has_closed(
    net: Net, chains: str, code: str
) -> None:
    with forwarding(net.host), rules(net.host, "ip filter", chains):
        assert codes(examine(net.a, "--forward")) == {code}


def test_keepalives_too_late_for_conntrack(net: Net) -> None:
    guard = """chain input {
        type filter hook input priority filter; policy drop;
        ct state established,related accept
        meta l4proto ipv6-icmp accept
    }"""
    slow = replace(net.a.node, keepalive=300)
    with (
        reloaded(net.a, conf_of(slow, net.b.node)),
        rules(net.host, "inet guard", guard),
    ):
        assert codes(examine(net.a)) == {"keepalive_late"}


# --- Sizes and the device ------------------------------------------------------------------------


def test_an_mtu_that_is_too_large(net: Net) -> None:
    link = "link set wg0 mtu "
    with done_and_undone(net.host, link + "1480", link + "1420"):
        assert codes(examine(net.a)) == {"mtu_too_large"}


def test_a_black_hole_for_large_packets(net: Net) -> None:
    # A veth end drops what its own MTU does not allow, and nobody hears of it.
    far = net.b.node.host
    with done_and_undone(far, "link set eth0 mtu 1300", "link set eth0 mtu 1500"):
        report = examine(net.a)
    assert codes(report) == {"mtu_black_hole"}
    assert "MTU = 1232 in the conf" in report["findings"][0]["remedy"]


def test_an_interface_that_is_down(net: Net) -> None:
    net.host.ip("link set wg0 down")
    try:
        assert codes(examine(net.a, wait=SHORT)) == {"interface_down"}
    finally:
        net.a.down()
        net.a.up()


def test_usage(net: Net) -> None:
    run: Callable[..., Any] = net.host.run
    assert run([*DOCTOR, "nobody"], check=False).returncode == 2
    assert run([*DOCTOR, "wg0", "--address", "b.example"], check=False).returncode == 2
