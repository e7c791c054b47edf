"""`tunnel trace` on two hosts, b having a third one, c, behind it."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Sequence
from typing import Any

import pytest

from tests.support.traces import (
    IN,
    OUT,
    PINGS,
    PREFIX,
    TRACE,
    B,
    C,
    Net,
    finish,
    places,
    report,
    start,
    trace_tables,
)
from tunnel.lab import Host, Lab, LabError
from tunnel.lab.peers import Node, OurEnd, mesh

pytestmark = pytest.mark.root


FORWARDED = [*IN[:-1], "inner FORWARD", "inner POSTROUTING"]


def ping(host: Host, target: str, words: Sequence[str] = PINGS) -> list[dict[str, Any]]:
    """One ping from `host`, as `tunnel trace` there shows it."""
    command = ["ping", "-n", "-c", "1", "-W", "1", target]
    traced = host.run([*TRACE, "wg0", *words, "--json", "--", *command], check=False)
    return report(traced.stdout)


def whats(journey: dict[str, Any]) -> dict[str, str]:
    return dict(zip(places(journey), (step["what"] for step in journey["steps"]), strict=True))


def test_a_ping_is_followed_on_both_hosts_step_by_step(net: Net) -> None:
    far = start(net.b, "wg0", *PINGS, "--json")
    request, reply = ping(net.a, B)
    came, went = finish(far)
    for journey, direction, wanted in (
        (request, "out", OUT),
        (came, "in", IN),
        (went, "out", OUT),
        (reply, "in", IN),
    ):
        assert journey["direction"] == direction
        assert journey["outcome"] == "passed"
        assert places(journey) == wanted
        times = [step["time"] for step in journey["steps"]]
        assert times == sorted(times)
    assert request["datagrams"] == came["datagrams"]
    assert went["datagrams"] == reply["datagrams"]
    assert request["inner_key"] == came["inner_key"]
    said = whats(request)
    assert said["inner POSTROUTING"] == "leaves by wg0"
    assert f"{B} is in {B}/32" in said["tunnel allowed IPs"]
    assert re.fullmatch(r"receiver index 0x[0-9a-f]{8}, counter \d+", said["tunnel session"])
    assert said["tunnel seal"] == "84 + 16 header + 12 padding + 16 tag = 128 bytes"
    assert said["tunnel UDP send"] == "to 192.0.2.2:51820"
    assert said["outer POSTROUTING"] == "leaves by eth0"


def test_people_read_the_same_without_a_name_and_without_a_filter(net: Net) -> None:
    ran = net.a.run([*TRACE, "--", "ping", "-n", "-c", "1", B])
    position = 0
    for step in OUT:
        position = ran.stdout.index(step.partition(" ")[2], position) + 1
    assert "1 received" in ran.stdout
    assert "✓  passed in" in ran.stdout


def test_ipv6_and_udp(net: Net) -> None:
    request, _ = ping(net.a, "fd77::2", ["icmp", "and", "host", "fd77::2"])
    assert places(request) == OUT
    assert request["packet"].startswith("ICMPv6 echo request")
    process = start(net.a, "wg0", "udp", "port", "7777", "--json", "--count", "1")
    net.a.ping(B)
    net.a.run(["bash", "-c", f"echo hi > /dev/udp/{B}/7777"])
    process.wait(10)
    (packet,) = report(process.log())
    assert packet["packet"] == "UDP"
    assert packet["flow"].endswith(f"→ {B}:7777")
    assert places(packet) == OUT


INNER, OUTER = "icmp type echo-request", "udp dport 51820"


@pytest.mark.parametrize(
    ("hook", "where", "match", "target", "layer"),
    [
        ("output", "a", INNER, B, "inner"),
        ("postrouting", "a", INNER, B, "inner"),
        ("output", "a", OUTER, B, "outer"),
        ("postrouting", "a", OUTER, B, "outer"),
        ("prerouting", "b", OUTER, B, "outer"),
        ("input", "b", OUTER, B, "outer"),
        ("prerouting", "b", INNER, B, "inner"),
        ("input", "b", INNER, B, "inner"),
        ("forward", "b", INNER, C, "inner"),
        ("postrouting", "b", INNER, C, "inner"),
    ],
)
def test_a_drop_is_named_as_the_place_of_death(
    net: Net, hook: str, where: str, match: str, target: str, layer: str
) -> None:
    host = net.a if where == "a" else net.b
    base = f"type filter hook {hook} priority 0; policy accept;"
    host.nft(f"table inet user {{ chain guard {{ {base} {match} counter drop; }}; }}")
    listing = host.run(["nft", "-a", "list", "table", "inet", "user"]).stdout
    handle = re.search(r"drop # handle (\d+)", listing)
    assert handle is not None
    far = start(net.b, "wg0", *PINGS, "--json")
    near = ping(net.a, target)
    journeys = finish(far) if where == "b" else near
    if where == "a":
        finish(far)
    (dead,) = [journey for journey in journeys if journey["outcome"] != "passed"]
    place = f"{layer} {hook.upper()}"
    assert dead["outcome"] == "dropped"
    assert places(dead)[-1] == place
    assert dead["steps"][-1]["dropped"] is True
    rule = f"table inet user, chain guard, rule with handle {handle[1]}"
    wanted = f"{hook.upper()} of the {layer} packet: {rule}"
    assert dead["death"].startswith(wanted)
    assert "drop" in dead["death"]
    way = {("a", True): OUT, ("b", True): IN}.get((where, target == B), FORWARDED)
    assert places(dead) == way[: way.index(place) + 1]


def test_a_policy_that_drops_is_named(net: Net) -> None:
    net.a.nft(
        "table inet user { chain wall { type filter hook output priority 0; policy drop; "
        "udp dport 51820 accept; }; }"
    )
    (dead,) = ping(net.a, B)
    assert dead["death"] == ("OUTPUT of the inner packet: table inet user, chain wall, policy drop")


def test_a_rule_in_another_chain_added_meanwhile_is_named(net: Net) -> None:
    process = start(net.a, "wg0", *PINGS, "--json")
    net.a.nft(
        "table inet user { chain late { type filter hook output priority 0; jump more; }; "
        "chain more { icmp type echo-request drop; }; }"
    )
    net.a.run(["ping", "-n", "-c", "1", "-W", "1", B], check=False)
    (dead,) = finish(process)
    assert "chain more" in dead["death"]
    assert "icmp type echo-request drop" in dead["death"]


def test_forwarding_and_nat_are_shown(net: Net) -> None:
    net.b.nft(
        "table inet user { chain nat { type nat hook postrouting priority 100; "
        "ip saddr 10.77.0.1 oifname eth1 masquerade; }; }"
    )
    far = start(net.b, "wg0", *PINGS, "--json")
    ping(net.a, C)
    request, reply = finish(far)
    assert places(request) == FORWARDED
    assert request["steps"][-1]["nat"] == f"10.77.0.1 → {C} became 10.88.0.1 → {C}"
    assert whats(request)["inner POSTROUTING"] == "leaves by eth1"
    # The answer comes for b itself; only NAT makes it one for the tunnel, which FORWARD sees.
    assert places(reply) == ["inner FORWARD", *OUT[1:]]
    assert reply["flow"] == f"{C} → 10.77.0.1"
    assert reply["outcome"] == "passed"


def test_drops_of_the_daemon_are_named(net: Net) -> None:
    net.a.ip("route add 10.99.0.0/24 dev wg0")
    nobody, answer = ping(net.a, "10.99.0.9")
    assert answer["packet"] == "ICMP unreachable"
    assert nobody["death"].startswith("allowed IPs, in the daemon: no peer's AllowedIPs cover")
    net.a.ip("address add 10.66.0.1/32 dev wg0")
    far = start(net.b, "wg0", "icmp", "and", "host", "10.66.0.1", "--json")
    net.a.run(["ping", "-c", "1", "-W", "1", "-I", "10.66.0.1", B], check=False)
    (stranger,) = finish(far)
    assert places(stranger) == IN[:5]
    assert stranger["death"].startswith("source check, in the daemon")


def test_it_ends_by_count_and_by_time(net: Net) -> None:
    process = start(net.a, "wg0", *PINGS, "--json", "--count", "3")
    net.a.run(["ping", "-n", "-c", "4", "-i", "0.2", B])
    assert process.wait(10) == 0
    assert len(report(process.log())) == 3
    silent = start(net.a, "wg0", "tcp", "port", "9", "--seconds", "0.3")
    assert silent.wait(10) == 1
    assert "no packet of tcp port 9 was seen" in silent.log()


def test_the_picture_is_drawn(net: Net) -> None:
    picture = net.a.directory / "way.svg"
    ping_b = ["ping", "-n", "-c", "1", B]
    net.a.run([*TRACE, "wg0", "icmp", "--svg", str(picture), "--", *ping_b])
    assert picture.read_text().startswith("<svg")
    assert "POSTROUTING" in picture.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_table_goes_with_the_trace(net: Net, number: signal.Signals) -> None:
    process = start(net.a, "wg0")
    assert len(trace_tables(net.a)) == 1
    listing = net.a.run(["nft", "list", "table", "inet", trace_tables(net.a)[0]]).stdout
    assert "flags owner" in listing
    net.a.ping(B)
    process.signal(number)
    process.wait(10)
    net.a.wait_for(lambda: trace_tables(net.a) == [], 5, "the trace table to vanish")
    if number != signal.SIGKILL:
        assert "ICMP echo request" in process.log()


def test_the_table_is_gone_after_a_normal_end_and_a_command_that_fails(net: Net) -> None:
    ping(net.a, B)
    assert trace_tables(net.a) == []
    refused = net.a.run([*TRACE, "wg0", "--", "/nonexistent"], check=False)
    assert refused.returncode == 1
    assert "nonexistent" in refused.stderr
    assert trace_tables(net.a) == []


def test_two_traces_at_once(net: Net) -> None:
    first, second = (
        start(net.a, "wg0", *PINGS, "--json"),
        start(net.a, "wg0", "host", B, "--json"),
    )
    net.a.ping(B)
    for process in (first, second):
        request, reply = finish(process)
        assert (places(request), places(reply)) == (OUT, IN)


@pytest.mark.parametrize(
    ("words", "status", "problem"),
    [
        (["wg9"], 1, "no tunnel named wg9 is running"),
        (["wg0", "arp"], 2, "expected icmp, tcp, udp, ip, ip6, host, net or port, not 'arp'"),
        (["host", "nowhere"], 2, "'nowhere' is not an IP address"),
    ],
)
def test_mistakes_are_named(net: Net, words: list[str], status: int, problem: str) -> None:
    refused = net.a.run([*TRACE, *words], check=False)
    assert refused.returncode == status
    assert problem in refused.stderr


def test_a_blocked_handshake_is_seen_to_die(net: Net) -> None:
    """What an admin sees whose tunnel does not come up."""
    with Lab() as lab:
        a, b = lab.host("a"), lab.host("b")
        lab.link(a, b, ["192.0.2.1/24"], ["192.0.2.2/24"])
        nodes = [
            Node(host, (f"10.77.0.{number}/24",), f"192.0.2.{number}")
            for number, host in enumerate((a, b), start=1)
        ]
        end = mesh(nodes)["a"]
        assert isinstance(end, OurEnd)
        end.up()
        a.nft(
            "table ip user { chain guard { type filter hook output priority 0; "
            "meta l4proto 17 drop; }; }"
        )
        command = ["ping", "-n", "-c", "1", "-W", "1", B]
        ran = a.run([*TRACE, "--", *command], check=False)
        assert "WireGuard handshake initiation" in ran.stdout
        assert "died at OUTPUT of the outer packet: table ip user, chain guard" in ran.stdout
        assert "still waits: no handshake has completed yet" in ran.stdout
        with pytest.raises(LabError, match="no packet"):
            a.run([*TRACE, "tcp", "--seconds", "0.2"])


def test_nft_alone_shows_nothing_is_left_in_our_own_namespace() -> None:
    listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    assert PREFIX not in listed.stdout
