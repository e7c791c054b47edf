"""Limits, hooks and records of peers, in daemons with real traffic."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemons import follow, followed, kill, rewrite, status
from tests.support.hosts import TwoHosts
from tests.support.transfer import check_transfer
from tunnel.lab.peers import Node, OurEnd, render_conf

pytestmark = pytest.mark.root

HOSTILE = "$(touch pwned) `touch pwned`; '\"touch pwned"


def ends(
    two: TwoHosts, *, peer: tuple[str, ...] = (), settings: tuple[str, ...] = (), name: str = "b"
) -> tuple[OurEnd, OurEnd]:
    """Both ends, not up yet; `peer` are more lines of the first one's section [Peer]."""
    a = Node(two.a, ("10.77.0.1/24",), "192.0.2.1")
    b = Node(two.b, ("10.77.0.2/24",), "192.0.2.2")
    conf = render_conf(a, [b], settings=settings)
    conf += "\n".join([f"# friendly_name = {name}", *peer, ""])
    first = OurEnd(a, conf, folders(two.a.directory))
    return first, OurEnd(b, render_conf(b, [a]) + "Quota = 1 TB\n", folders(two.b.directory))


def folders(directory: Path) -> dict[str, str]:
    return {
        "STATE_DIRECTORY": str(directory / "state"),
        "LOGS_DIRECTORY": str(directory / "records"),
    }


def limits(end: OurEnd) -> dict[str, Any]:
    (peer,) = status(end)["peers"]
    found = peer["limits"]
    assert isinstance(found, dict)
    return found


def iperf(two: TwoHosts, *arguments: str) -> dict[str, Any]:
    """What iperf3 says of a run from a to b."""
    server = two.b.popen(["iperf3", "-s", "-1", "--forceflush"])
    server.wait_for_output("Server listening")
    command = ["iperf3", "-J", "-c", "10.77.0.2", *arguments]
    found = json.loads(two.a.run(command, timeout=60).stdout)
    assert isinstance(found, dict)
    return found


@pytest.mark.foreign("iperf3")
def test_tcp_and_udp_keep_to_the_rate_in_each_direction(two_hosts: TwoHosts) -> None:
    end, other = ends(two_hosts, peer=("RateLimit = to 80 Mbit/s, from 40 Mbit/s",))
    other.up()
    end.up()
    for arguments, rate in ((("-t", "2"), 80e6), (("-t", "2", "-R"), 40e6)):
        tcp = iperf(two_hosts, *arguments)["end"]["sum_received"]
        # As much as the queue holds may come after what iperf takes for the end.
        assert 0 < tcp["bytes"] * 8 <= rate * (tcp["seconds"] + 0.5)
    before = limits(end)["over_rate"]
    iperf(two_hosts, "-u", "-b", "160M", "-t", "1")
    assert limits(end)["over_rate"] > before
    assert "rate limit: to 80 Mbit/s, from 40 Mbit/s, " in end.tunnel("show", "wg0")


@pytest.mark.foreign("iperf3")
def test_a_quota_is_reached_in_the_middle_and_outlives_a_kill(two_hosts: TwoHosts) -> None:
    end, other = ends(two_hosts, peer=("Quota = 3 MB per month",))
    other.up()
    end.up()
    events = follow(end)
    two_hosts.a.ping("10.77.0.2", count=3)
    # Both ends count the same, though each splits and merges in its own way.
    assert limits(end)["quota_used"] == limits(other)["quota_used"] == 6 * 84
    check_transfer(two_hosts.a, two_hosts.b, "10.77.0.2", 1 << 20)
    two_hosts.a.wait_for(
        lambda: limits(end)["quota_used"] == limits(other)["quota_used"] > 1 << 20,
        10,
        "both ends to count the same",
    )
    server = two_hosts.b.popen(["iperf3", "-s", "-1", "--forceflush"])
    server.wait_for_output("Server listening")
    client = two_hosts.a.popen(["iperf3", "-c", "10.77.0.2", "-n", "10M"])
    two_hosts.a.wait_for(lambda: "quota_reached" in events.log(), 20, "the quota to be reached")
    client.kill()
    server.kill()
    used = limits(end)["quota_used"]
    assert 2_900_000 < used <= 3_000_000
    (reached,) = (event for event in followed(events) if event["type"] == "quota_reached")
    assert (reached["quota"], reached["period"], reached["name"]) == (3_000_000, "month", "b")
    os.kill(status(end)["pid"], signal.SIGKILL)
    two_hosts.a.wait_for(lambda: "quota_used" in shown(end), 20, "another daemon")
    used = limits(end)["quota_used"]
    kill(end)
    end.up()
    assert limits(end)["quota_used"] >= used
    rewrite(end, "3 MB", "30 MB")
    (before,) = status(end)["peers"]
    end.tunnel("reload", "wg0")
    two_hosts.a.ping("10.77.0.2")
    (after,) = status(end)["peers"]
    assert after["limits"]["quota"] == 30_000_000
    assert before["latest_handshake"] in (0, after["latest_handshake"])


def shown(end: OurEnd) -> str:
    return end.tunnel("show", "wg0", "--json", check=False)


def test_hooks_and_records_of_a_peer_with_a_hostile_name(two_hosts: TwoHosts) -> None:
    told = two_hosts.a.directory / "told"
    hook = f'cd {two_hosts.a.directory}; env | grep ^TUNNEL_ | sort >> {told}; echo "$0" >> {told}'
    settings = (f"PeerUp = {hook}", f"PeerDown = {hook}", "Records = flows")
    end, other = ends(two_hosts, settings=settings, name=HOSTILE)
    other.up()
    end.up()
    events = follow(end)
    two_hosts.a.ping("10.77.0.2", count=3)
    two_hosts.a.wait_for(told.exists, 10, "the hook")
    (peer,) = status(end)["peers"]
    assert peer["connected"]
    end.tunnel("restart", str(end.conf))
    two_hosts.a.ping("10.77.0.2")
    end.down()
    lines = told.read_text().splitlines()
    assert [line for line in lines if line.startswith("TUNNEL_PEER_NAME=")] == [
        f"TUNNEL_PEER_NAME={HOSTILE}"
    ] * 2
    assert f"TUNNEL_PEER={peer['public_key']}" in lines
    assert "TUNNEL_PEER_ENDPOINT=192.0.2.2:51820" in lines
    assert "TUNNEL_PEER_REASON=the tunnel goes down" in lines
    assert not (two_hosts.a.directory / "pwned").exists()
    assert [event["type"] for event in followed(events) if "connected" in event["type"]] == [
        "connected"
    ]
    path = two_hosts.a.directory / "records" / "wg0.jsonl"
    assert path.stat().st_mode & 0o777 == 0o600
    records = [json.loads(line) for line in path.read_text().splitlines()]
    sessions = [record for record in records if record["type"] == "session"]
    assert [session["reason"] for session in sessions] == [
        "the daemon is restarted",
        "the tunnel goes down",
    ]
    assert all(session["name"] == HOSTILE for session in sessions)
    assert sum(session["tx_bytes"] for session in sessions) >= 4 * 128
    flows = [record for record in records if record["type"] == "flow"]
    pings = [flow for flow in flows if flow["protocol"] == 1]
    assert sum(flow["tx_packets"] for flow in pings) == 4
    assert sum(flow["rx_bytes"] for flow in pings) == 4 * 84
    assert {(flow["local"], flow["remote"]) for flow in pings} == {("10.77.0.1", "10.77.0.2")}
