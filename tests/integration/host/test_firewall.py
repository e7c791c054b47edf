"""What the firewall of a full tunnel does to packets, not only how it reads."""

import socket
import threading
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.support.host_namespace import Namespace
from tunnel.host.hooks import run_hooks
from tunnel.host.netfilter import (
    fingerprint,
    has_firewall,
    remove_firewall,
    render,
    set_firewall,
)
from tunnel.host.rtnetlink import inside
from tunnel.host.state import Firewall
from tunnel.packet.filter import Filter
from tunnel.trace import trace_table

pytestmark = pytest.mark.root

MARK = 51820
BOTH = Firewall((4, 6), MARK, (ip_address("10.9.0.1"), ip_address("fd00:9::1")))
FAR = {4: "192.0.2.2", 6: "2001:db8::2"}
OWN = {4: "10.9.0.1", 6: "fd00:9::1"}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}


@pytest.fixture
def far(ns: Namespace, other: Namespace) -> Namespace:
    """A host on the other end of out0 that believes it can reach the tunnel's addresses there."""
    ns.ip("link", "set", "out1", "netns", other.name)
    other.ip("link", "set", "out1", "up")
    other.ip("address", "add", "192.0.2.2/24", "dev", "out1")
    other.ip("address", "add", "2001:db8::2/64", "dev", "out1", "nodad")
    other.ip("route", "add", "10.9.0.1/32", "via", "192.0.2.1")
    other.ip("route", "add", "fd00:9::1/128", "via", "2001:db8::1")
    ns.ip("address", "add", "10.9.0.1/24", "dev", "tun0")
    ns.ip("address", "add", "fd00:9::1/64", "dev", "tun0", "nodad")
    ns.ip("link", "set", "tun0", "up")
    return other


@pytest.mark.parametrize("version", [4, 6])
def test_packets_to_the_tunnel_from_elsewhere_are_dropped(
    ns: Namespace, far: Namespace, version: int
) -> None:
    ping = ["ping", f"-{version}", "-c1", OWN[version], "-w"]
    assert "1 received" in far.run(*ping, "10", check=False)
    with inside(ns.path):
        set_firewall("tun0", BOTH)
        before = fingerprint("tun0")
    assert "0 received" in far.run(*ping, "1", check=False)
    with inside(ns.path):
        assert fingerprint("tun0") == before != "", "what was counted is no change"
    assert "1 received" in ns.run(*ping, "10", check=False), "what is local is no spoof"
    assert "1 received" in far.run("ping", "-c1", "-w10", "192.0.2.1", check=False)
    with inside(ns.path):
        remove_firewall("tun0")
    assert "1 received" in far.run(*ping, "10", check=False)


@pytest.mark.parametrize("version", [4, 6])
def test_mark_of_our_udp_comes_back_with_the_reply(
    ns: Namespace, far: Namespace, version: int
) -> None:
    with inside(ns.path):
        set_firewall("tun0", BOTH)
    ns.run("nft", "add table inet count")
    ns.run("nft", "add chain inet count in { type filter hook input priority 0; }")
    ns.run("nft", f"add rule inet count in meta l4proto 17 meta mark {MARK} counter")
    with inside(far.path):
        echo = socket.socket(FAMILY[version], socket.SOCK_DGRAM)
        echo.bind((FAR[version], 5000))
    with inside(ns.path):
        ours = socket.socket(FAMILY[version], socket.SOCK_DGRAM)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
    with echo, ours:
        echo.settimeout(5)
        ours.settimeout(5)
        ours.sendto(b"out", (FAR[version], 5000))
        data, sender = echo.recvfrom(100)
        echo.sendto(data, sender)
        assert ours.recv(100) == b"out"
    assert "counter packets 1 " in ns.run("nft", "list", "table", "inet", "count")


def test_name_of_every_legal_kind_and_idempotent_removal(ns: Namespace) -> None:
    with inside(ns.path):
        for name in ("tun0", "a=b+c", "_.-", "0wg", "table", "abcdefghijklmno"):
            assert not has_firewall(name)
            set_firewall(name, BOTH)
            set_firewall(name, BOTH)
            assert has_firewall(name)
        for name in ("tun0", "a=b+c", "_.-", "0wg", "table", "abcdefghijklmno"):
            remove_firewall(name)
            remove_firewall(name)
            assert not has_firewall(name)
    assert ns.run("nft", "list", "ruleset") == ""


def test_hooks_run_in_the_namespace(ns: Namespace, tmp_path: Path) -> None:
    lines: list[str] = []
    run_hooks("PreUp", ["ip -br link show %i"], "tun0", lines.append, netns=ns.path)
    assert lines[1].startswith("tun0")
    with inside(ns.path):
        assert Path("/proc/thread-self/net/dev").read_text().count("tun0") == 1


def test_only_the_calling_thread_moves(ns: Namespace) -> None:
    seen: list[bool] = []

    def look() -> None:
        seen.append("tun0" in Path("/proc/thread-self/net/dev").read_text())

    with inside(ns.path):
        thread = threading.Thread(target=look)
        look()
    look()
    thread.start()
    thread.join()
    assert seen == [True, False, False]


NO_PROTOCOLS = """
if [ -e /etc/protocols ]; then mount --bind /dev/null /etc/protocols; fi
exec nft -c -f "$1"
"""


def test_nft_takes_our_rules_without_etc_protocols(ns: Namespace, tmp_path: Path) -> None:
    """A container may have no package netbase, and nft knows protocols by name only with it."""

    def check(rules: str) -> None:
        file = tmp_path / "rules"
        file.write_text(rules)
        ns.run("unshare", "--mount", "sh", "-ec", NO_PROTOCOLS, "sh", str(file))

    with pytest.raises(AssertionError, match="protocol"):
        check("add table inet t; add chain inet t c; add rule inet t c meta l4proto ospf drop")
    check(render("tun0", BOTH))
    check(render("tun0", replace(BOTH, versions=(6,))))
    for text in ("", "icmp", "tcp", "udp port 53 and host 10.9.0.1"):
        check(trace_table.render("t", "tun0", 51820, Filter.parse(text)))
