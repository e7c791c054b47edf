"""A tunnel whose interface is in another network namespace, and its UDP socket is not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.daemons import kill, rewrite, status
from tests.support.hosts import TwoHosts
from tests.support.pairs import make_pair
from tunnel.lab import Host, LabError
from tunnel.lab.peers import OurEnd

pytestmark = pytest.mark.root

B = ("10.77.0.2", "fd77::2")


@dataclass
class Inside:
    """The namespace `name` beside host a's, and the ends of a and b."""

    name: str
    host: Host
    end: OurEnd
    far: OurEnd

    def run(self, *command: str, check: bool = True) -> str:
        result = self.host.run(["ip", "netns", "exec", self.name, *command], check=check)
        return result.stdout

    def ping(self, address: str) -> None:
        self.run("ping", "-n", "-i", "0.2", "-c", "1", "-w", "10", address)


@pytest.fixture
def inside(two_hosts: TwoHosts) -> Iterator[Inside]:
    pair = make_pair(two_hosts)
    a = two_hosts.a
    pair.a.down()
    name = f"{a.netns}-in"
    a.run(["ip", "netns", "add", name])
    try:
        rewrite(pair.a, "[Interface]\n", f"[Interface]\n#! tunnel: NetNS = {name}\n")
        pair.a.up()
        yield Inside(name, a, pair.a, pair.b)
    finally:
        a.run(["ip", "netns", "delete", name], check=False)


def test_it_is_in_there_and_its_datagrams_are_out_here(inside: Inside, tmp_path: Path) -> None:
    for address in B:
        inside.ping(address)
    with pytest.raises(LabError):
        inside.host.ping(B[0], timeout=1)
    assert "wg0" not in inside.host.interfaces()
    assert "eth0" not in inside.run("ip", "-br", "link")
    assert f"network namespace: /run/netns/{inside.name}" in inside.end.tunnel("show", "wg0")
    assert inside.end.tunnel("diff", "wg0") == "reload would change nothing\n"


def test_a_reload_works_in_there(inside: Inside) -> None:
    rewrite(inside.end, "10.77.0.1/24", "10.77.0.1/24, 10.78.0.1/24")
    rewrite(inside.end, "AllowedIPs = ", "AllowedIPs = 0.0.0.0/0, ::/0, ")
    changes = inside.end.tunnel("reload", "wg0")
    assert "+ address 10.78.0.1/24" in changes
    assert "+ route 0.0.0.0/0" in changes
    assert inside.run("ip", "rule").count("lookup") == 3, "nothing of ours needs a rule in there"
    assert inside.run("ip", "route", "get", "198.51.100.1").startswith("198.51.100.1 dev wg0 ")
    inside.run("ip", "route", "delete", "default", "dev", "wg0")
    inside.host.wait_for(lambda: status(inside.end)["missing"], 15, "the daemon to notice")
    assert "[taken_away]" in inside.end.tunnel("doctor", "wg0", check=False)
    inside.end.tunnel("reload", "wg0")
    inside.ping(B[0])
    assert inside.end.tunnel("doctor", "wg0").startswith("wg0: nothing wrong\n")


def test_a_capture_has_both_sides(inside: Inside, tmp_path: Path) -> None:
    file = tmp_path / "both.pcapng"
    command = ["python3", "-m", "tunnel", "capture", "wg0", "-w", str(file), "--count", "4"]
    capture = inside.host.popen(command)
    capture.wait_for_output("capturing wg0")
    inside.ping(B[0])
    assert capture.wait(10) == 0, capture.log()
    assert "4 packets captured, 0 lost" in capture.log()


def test_a_trace_crosses_both_stacks_and_names_the_rule_of_each(inside: Inside) -> None:
    ping = ("--", "ping", "-n", "-c", "1", "-W", "5")
    inside.ping(B[0])  # a handshake is no part of it
    said = inside.end.tunnel("trace", "wg0", "--count", "2", "icmp", *ping, B[0])
    for word in ("routed to wg0", "seal", "UDP send", "leaves by eth0"):
        assert word in said, "on the way out"
    for word in ("came in by eth0", "UDP receive", "TUN write", "came in by wg0", "INPUT"):
        assert word in said, "on the way in"
    table = "add table inet t; add chain inet t c { type filter hook input priority 0; }"
    inside.run("nft", f"{table}; add rule inet t c icmp type echo-reply drop")
    said = inside.end.tunnel("trace", "wg0", "icmp", *ping, B[0], check=False)
    place = f"network namespace {inside.name}"
    assert f"died at INPUT of the inner packet: table inet t in {place}, chain c" in said
    assert "icmp type echo-reply drop" in said
    assert "tunnel-trace" not in inside.run("nft", "list", "tables")


def test_down_and_a_kill_leave_nothing(inside: Inside) -> None:
    kill(inside.end)
    inside.end.tunnel("down", "wg0")
    assert "wg0" not in inside.run("ip", "-br", "link")
    inside.end.up()
    inside.ping(B[0])
    inside.end.down()
    assert "wg0" not in inside.run("ip", "-br", "link")


def test_it_ends_with_its_namespace(inside: Inside) -> None:
    inside.ping(B[0])
    inside.host.run(["ip", "netns", "delete", inside.name])
    inside.host.wait_for(lambda: not inside.host.pids(), 15, "the daemon to end")
    answer = inside.end.tunnel("down", "wg0", check=False)
    assert "no tunnel named wg0 is up" in answer


def test_a_namespace_that_is_not_there(two_hosts: TwoHosts) -> None:
    pair = make_pair(two_hosts)
    pair.a.down()
    rewrite(pair.a, "[Interface]\n", "[Interface]\n#! tunnel: NetNS = nowhere\n")
    answer = pair.a.tunnel("up", str(pair.a.conf), check=False)
    assert "/run/netns/nowhere: No such file or directory" in answer
    assert "ip netns list" in answer
    assert "wg0" not in two_hosts.a.interfaces()
