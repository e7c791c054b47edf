"""What bounds a trace, what ends it, and that it follows nobody else: two hosts, a third behind."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.traces import (
    IN,
    OUT,
    PINGS,
    TRACE,
    B,
    Net,
    finish,
    places,
    report,
    start,
    trace_tables,
)
from tunnel.lab import Lab
from tunnel.lab.peers import Node, OurEnd, mesh
from tunnel.packet.filter import Filter
from tunnel.trace.trace_table import render

pytestmark = pytest.mark.root


def whole_report(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.JSONDecoder().raw_decode(text[text.index("{") :])[0]
    return found


def pings(count: int) -> str:
    return f"ping -n -q -c {count} -i 0.2 {B}"


@pytest.mark.parametrize("limit", [["--count", "2"], ["--seconds", "0.5"]])
def test_a_command_outlives_the_limits_of_its_trace(
    net: Net, limit: list[str], tmp_path: Path
) -> None:
    done = tmp_path / "done"
    # It goes on only once the trace is over.
    script = (
        f"{pings(5)} >&2; while nft list tables | grep -q tunnel-trace; do sleep 0.05; done; "
        f"touch {done}; exit 7"
    )
    ran = net.a.run(
        [*TRACE, "wg0", *PINGS, *limit, "--json", "--", "sh", "-c", script], check=False
    )
    assert done.exists()
    assert ran.returncode == 7
    assert "sh goes on" in ran.stderr
    found = whole_report(ran.stdout)
    assert found["command_status"] == 7
    assert 1 <= len(report(ran.stdout)) <= 10
    if limit[0] == "--count":
        assert len(report(ran.stdout)) == 2


def test_the_command_decides_on_the_exit_code(net: Net) -> None:
    ran = net.a.run([*TRACE, "wg0", *PINGS, "--", "sh", "-c", f"{pings(1)}; exit 3"], check=False)
    assert "ICMP echo request" in ran.stdout
    assert ran.returncode == 3
    killed = net.a.run([*TRACE, "wg0", "--", "sh", "-c", "kill -9 $$"], check=False)
    assert killed.returncode == 128 + signal.SIGKILL
    assert net.a.run([*TRACE, "wg0", *PINGS, "--", "true"], check=False).returncode == 0


def test_sigterm_ends_the_command_too(net: Net) -> None:
    process = start(net.a, "wg0", *PINGS, "--", "sh", "-c", "echo begun; exec sleep 600")
    process.wait_for_output("begun")
    process.signal(signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGTERM


def test_a_packet_that_goes_on_unseen_after_the_last_hook_is_told(net: Net) -> None:
    net.a.nft(
        "table inet user { chain quiet { type filter hook postrouting priority 0; "
        'oifname "wg0" meta nftrace set 0; }; }'
    )
    ran = net.a.run([*TRACE, "wg0", *PINGS, "--json", "--", "sh", "-c", pings(1)])
    request = report(ran.stdout)[0]
    assert "after POSTROUTING of the inner packet" in request["death"]
    assert request["outcome"] in ("lost", "unfinished")


@pytest.mark.real_root
def test_only_a_thread_that_reads_is_in_a_hurry(net: Net) -> None:
    process = start(net.a, "wg0", *PINGS)
    tasks = Path(f"/proc/{process.pid}/task")
    policies = {int(task.name): os.sched_getscheduler(int(task.name)) for task in tasks.iterdir()}
    assert policies.pop(process.pid) == os.SCHED_OTHER
    real_time = [policy & ~os.SCHED_RESET_ON_FORK for policy in policies.values()]
    assert real_time.count(os.SCHED_RR) == 1
    net.a.ping(B)
    process.signal(signal.SIGINT)
    process.wait(10)


def datagrams(net: Net, target: str, count: int, port: int = 51820) -> None:
    """Send what looks like handshake initiations from a, beside the tunnel."""
    script = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        f"for _ in range({count}): s.sendto(b'\\1' + bytes(147), ('{target}', {port}))"
    )
    net.a.run(["python3", "-c", script])


def test_others_datagrams_to_the_same_port_are_not_followed(net: Net) -> None:
    net.a.ip("route replace 10.88.0.0/24 via 192.0.2.2")
    try:
        process = start(net.b, "wg0", *PINGS, "--json")
        datagrams(net, "10.88.0.2", 3)
        net.a.ping(B)
        process.signal(signal.SIGINT)
        process.wait(10)
    finally:
        net.a.ip("route replace 10.88.0.0/24 dev wg0")
    journeys = whole_report(process.log())["journeys"]
    assert [journey["packet"].split(",")[0] for journey in journeys] == [
        "ICMP echo request",
        "ICMP echo reply",
    ]


def test_what_does_not_count_is_bounded_too(net: Net) -> None:
    process = start(net.b, "wg0", *PINGS, "--count", "1")
    datagrams(net, "192.0.2.2", 300)
    told = "WireGuard handshake initiation"
    net.b.wait_for(lambda: process.log().count(told) >= 5, 20, "forged handshakes to be told")
    net.a.ping(B)
    assert process.wait(20) == 0
    assert process.log().count(told) == 5
    assert "ICMP echo request" in process.log()
    assert "handshakes and unread datagrams more were left out" in process.log()


@pytest.mark.parametrize("option", [["--count", "1000000"], ["--seconds", "1e9"]])
def test_limits_have_limits(net: Net, option: list[str]) -> None:
    assert net.a.run([*TRACE, "wg0", *option], check=False).returncode == 2


def test_a_stopped_trace_leaves_no_table(net: Net) -> None:
    process = start(net.a, "wg0", *PINGS, "--seconds", "0.5")
    process.signal(signal.SIGSTOP)
    try:
        assert len(trace_tables(net.a)) == 1
        net.a.wait_for(lambda: trace_tables(net.a) == [], 30, "the trace table to vanish")
    finally:
        process.signal(signal.SIGCONT)
    process.wait(20)


def test_a_picture_that_cannot_be_written_is_said_before_the_trace(net: Net) -> None:
    refused = net.a.run([*TRACE, "wg0", "--svg", "/nonexistent/way.svg"], check=False)
    assert refused.returncode == 2
    assert "cannot write /nonexistent/way.svg" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "tracing wg0" not in refused.stderr


@pytest.mark.foreign("wg")
def test_another_port_is_followed(net: Net) -> None:
    process = start(net.a, "wg0", *PINGS, "--json")
    try:
        net.a.run(["wg", "set", "wg0", "listen-port", "51999"])
        process.wait_for_output("the UDP port is 51999 now")
        net.a.wait_for(
            lambda: "dport 51999" in net.a.run(["nft", "list", "ruleset"]).stdout,
            10,
            "the trace table to follow",
        )
        net.a.ping(B)
        request, reply = finish(process)
    finally:
        net.a.run(["wg", "set", "wg0", "listen-port", "51820"])
        net.a.ping(B)
    assert (places(request), places(reply)) == (OUT, IN)
    assert (request["outcome"], reply["outcome"]) == ("passed", "passed")


@pytest.fixture
def end() -> Iterator[OurEnd]:
    with Lab() as lab:
        a, b = lab.host("a"), lab.host("b")
        lab.link(a, b, ["192.0.2.1/24"], ["192.0.2.2/24"])
        nodes = [
            Node(host, (f"10.77.0.{number}/24",), f"192.0.2.{number}")
            for number, host in enumerate((a, b), start=1)
        ]
        ends = mesh(nodes)
        for each in ends.values():
            each.up()
        near = ends["a"]
        assert isinstance(near, OurEnd)
        yield near


def test_a_tunnel_that_goes_down_is_said(end: OurEnd) -> None:
    host = end.node.host
    process = host.popen([*TRACE, "wg0"])
    process.wait_for_output("tracing wg0")
    host.ping(B)
    end.down()
    assert process.wait(20) == 1
    assert "wg0 went down" in process.log()
    assert trace_tables(host) == []


def test_nft_takes_the_rules_of_every_kind_of_filter(net: Net) -> None:
    for text in (
        "not (icmp or udp port 53)",
        "ip6 || src net fd00::/8",
        "src 10.0.0.1 and not dst net 10.0.0.0/8",
        "! host fd00::1 and tcp dst port 443",
        "net 0.0.0.0/0 or icmp6",
    ):
        commands = render("tunnel-trace-wg0", "wg0", 51820, Filter.parse(text))
        # The owner of a table must stay: a check leaves none.
        net.a.run(["nft", "-c", "-f", "-"], stdin=commands.replace("{ flags owner; }", ""))


def test_a_command_without_its_dashes_is_named(net: Net) -> None:
    ran = net.a.run([*TRACE, "ping", "10.77.0.2"], check=False)
    assert ran.returncode == 2
    assert "put -- in front: tunnel trace -- ping 10.77.0.2" in ran.stderr
