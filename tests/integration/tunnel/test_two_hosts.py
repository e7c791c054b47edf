"""The main job: two hosts, `tunnel up` on each, and whatever crosses."""

from __future__ import annotations

import json

import pytest

from tests.support.daemons import kill
from tests.support.hosts import TwoHosts
from tests.support.pairs import OUTER, Pair, drops, make_pair, remains, status
from tests.support.transfer import check_transfer
from tunnel.lab import Lab, LabError
from tunnel.lab.peers import Node, OurEnd, generate_preshared_key, mesh

pytestmark = pytest.mark.root

MEBIBYTE = 1 << 20


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("with_psk", [False, True], ids=["no-psk", "psk"])
def test_ping_both_ways(two_hosts: TwoHosts, outer: int, with_psk: bool) -> None:
    psk = generate_preshared_key() if with_psk else None
    pair = make_pair(two_hosts, outer=outer, preshared_key=psk)
    a, b = pair.hosts
    for version in (4, 6):
        a.ping(pair.b.node.address(version), count=2)
        b.ping(pair.a.node.address(version), count=2)
    (peer,) = status(pair.a)["peers"]
    assert peer["endpoint"].startswith(OUTER[outer][1] if outer == 4 else f"[{OUTER[6][1]}]")
    assert peer["has_preshared_key"] is with_psk
    assert peer["rx_bytes"] > 0
    assert peer["latest_handshake"] > 0


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("inner", [4, 6])
def test_file_arrives_as_it_was_sent(two_hosts: TwoHosts, outer: int, inner: int) -> None:
    pair = make_pair(two_hosts, outer=outer)
    a, b = pair.hosts
    check_transfer(a, b, pair.b.node.address(inner), 32 * MEBIBYTE + 1)
    check_transfer(b, a, pair.a.node.address(inner), 8 * MEBIBYTE + 77)


@pytest.mark.foreign("iperf3")
def test_200_megabytes_of_iperf3_both_ways(pair: Pair) -> None:
    a, b = pair.hosts
    server = b.popen(["iperf3", "-s", "-1", "--forceflush"])
    server.wait_for_output("Server listening")
    for direction in ([], ["-R"]):
        if direction:
            server = b.popen(["iperf3", "-s", "-1", "--forceflush"])
            server.wait_for_output("Server listening")
        run = a.run(
            ["iperf3", "-c", pair.b.node.address(), "-n", "200M", "-J", *direction], timeout=90
        )
        result = json.loads(run.stdout)
        assert result["end"]["sum_sent"]["bytes"] >= 200 * MEBIBYTE
        assert server.wait(10) == 0


def test_full_packets_pass_and_one_byte_more_is_refused_by_the_kernel(pair: Pair) -> None:
    a, _ = pair.hosts
    mtu = status(pair.a)["mtu"]
    assert mtu == 1420
    for version, headers in ((4, 28), (6, 48)):
        address = pair.b.node.address(version)
        command = ["ping", "-n", "-c", "1", "-w", "5", "-M", "do", address, "-s"]
        a.run([*command, str(1420 - headers)])
        refused = a.run([*command, str(1420 - headers + 1)], check=False)
        assert refused.returncode != 0
        assert "too long" in (refused.stdout + refused.stderr).lower()
    # Without DF it goes in two pieces and arrives.
    a.run(["ping", "-n", "-c", "1", "-w", "5", "-M", "dont", "-s", "3000", pair.b.node.address()])


def test_three_hosts_reach_each_other(lab: Lab) -> None:
    switch = lab.switch("sw")
    nodes = []
    for number, name in enumerate(("a", "b", "c"), start=1):
        host = lab.host(name)
        switch.attach(host, [f"192.0.2.{number}/24"])
        nodes.append(Node(host, (f"10.77.0.{number}/24",), f"192.0.2.{number}"))
    ends = mesh(nodes)
    for end in ends.values():
        end.up()
    for source in nodes:
        for target in nodes:
            if target is not source:
                source.host.ping(target.address())


def test_peer_is_followed_to_its_new_address(pair: Pair) -> None:
    a, b = pair.hosts
    a.ping(pair.b.node.address())
    a.ip("address delete 192.0.2.1/24 dev eth0", "address add 192.0.2.101/24 dev eth0")
    a.ping(pair.b.node.address())
    (peer,) = status(pair.b)["peers"]
    assert peer["endpoint"] == "192.0.2.101:51820"
    b.ping(pair.a.node.address())


def test_either_side_may_restart(pair: Pair) -> None:
    pair.hosts[0].ping(pair.b.node.address())
    for end, other in ((pair.a, pair.b), (pair.b, pair.a)):
        end.down()
        end.up()
        # The other side still has the old session; new traffic of the restarted one mends it.
        end.node.host.ping(other.node.address(), timeout=15)
        other.node.host.ping(end.node.address(), timeout=15)


def test_killed_daemon_is_cleaned_up_and_comes_back(pair: Pair) -> None:
    a, _ = pair.hosts
    kill(pair.a)
    a.wait_for(lambda: "wg0" not in a.interfaces(), 5, "the interface to vanish")
    pair.a.down()
    assert remains(a) == []
    pair.a.up()
    a.ping(pair.b.node.address(), timeout=15)


def test_down_leaves_no_trace(two_hosts: TwoHosts) -> None:
    assert remains(two_hosts.a) == []
    pair = make_pair(two_hosts)
    pair.hosts[0].ping(pair.b.node.address())
    assert remains(two_hosts.a) != []
    pair.a.down()
    assert remains(two_hosts.a) == []


def test_second_up_and_second_down_are_refused_with_the_reason(pair: Pair) -> None:
    with pytest.raises(LabError, match=r"status 1: .*wg0 is already running"):
        pair.a.up()
    pair.hosts[0].ping(pair.b.node.address())
    pair.a.down()
    with pytest.raises(LabError, match=r"status 1: .*no tunnel named wg0 is up"):
        pair.a.down()


def test_mistakes_in_the_conf_are_all_told_and_nothing_is_touched(two_hosts: TwoHosts) -> None:
    conf = two_hosts.a.directory / "bad.conf"
    conf.write_text("[Interface]\nPrivateKey = short\nMTU = 12\n[Peer]\nAllowedIPs = 300.0.0.0/8\n")
    conf.chmod(0o600)
    end = OurEnd(Node(two_hosts.a, ()), "")
    with pytest.raises(LabError, match="status 2") as error:
        end.tunnel("up", str(conf))
    for place in ("bad.conf:2: PrivateKey", "bad.conf:3: MTU", "bad.conf:5: AllowedIPs"):
        assert place in str(error.value)
    assert remains(two_hosts.a) == []


def test_taken_port_is_named_and_nothing_stays(two_hosts: TwoHosts) -> None:
    holder = two_hosts.a.socket(2, 2)
    with holder:
        holder.bind(("0.0.0.0", 51820))
        with pytest.raises(LabError, match=r"status 1: .*UDP port 51820 is taken.*wg0\.conf:3\)"):
            make_pair(two_hosts)
    assert remains(two_hosts.a) == []


def test_packets_that_go_nowhere_are_counted_by_reason(pair: Pair) -> None:
    a, b = pair.hosts
    a.ping(pair.b.node.address())
    # b sends from an address that a does not allow it.
    b.ip("address add 10.99.0.1/32 dev wg0")
    b.run(["ping", "-c", "1", "-W", "1", "-I", "10.99.0.1", pair.a.node.address()], check=False)
    assert drops(pair.a)["source_not_allowed"] == 1
    # a sends to an address of the tunnel's network that no peer has.
    a.run(["ping", "-c", "1", "-W", "1", "10.77.0.99"], check=False)
    assert drops(pair.a)["no_peer"] == 1
