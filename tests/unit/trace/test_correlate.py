"""Events of the kernel and records of the daemon, joined to journeys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.operations import Operations
from tests.support.stack import ETH, TUN, Stack, echo, message
from tunnel.trace.correlate import LATE, PATIENCE, QUIET, Joiner
from tunnel.trace.journey import Journey, Step, elapsed, in_order
from tunnel.trace.nftrace import Verdict, decode
from tunnel.trace.ruleset import Ruleset

RECORDED = Path(__file__).with_name("recorded") / "two_pings.json"
"""What one host heard of two pings, the second answer being dropped: real bytes of the kernel."""


def recorded() -> list[Journey]:
    heard: dict[str, Any] = json.loads(RECORDED.read_text())
    joiner = Joiner(
        table=heard["table"],
        ruleset=Ruleset.parse(heard["ruleset-a"]),
        interfaces={int(index): name for index, name in heard["interfaces"].items()},
        tun=heard["tun"],
        port=heard["port"],
    )
    for moment, data in heard["datagrams"]:
        joiner.add_events(decode(bytes.fromhex(data), moment))
    for moment, kind, details in heard["records"]:
        joiner.add_record(kind, details, moment)
    return joiner.take(0.0, final=True)


def places(journey: Journey) -> list[str]:
    return [f"{step.layer} {step.place}" for step in journey.steps]


OUT = [
    "inner OUTPUT",
    "inner POSTROUTING",
    "tunnel TUN read",
    "tunnel allowed IPs",
    "tunnel session",
    "tunnel seal",
    "tunnel UDP send",
    "outer OUTPUT",
    "outer POSTROUTING",
]
IN = [
    "outer PREROUTING",
    "outer INPUT",
    "tunnel UDP receive",
    "tunnel open",
    "tunnel source check",
    "tunnel TUN write",
    "inner PREROUTING",
    "inner INPUT",
]


def test_a_recorded_ping_has_all_its_steps_in_order() -> None:
    request, reply, *_ = recorded()
    assert (request.direction, places(request)) == ("out", OUT)
    assert (reply.direction, places(reply)) == ("in", IN)
    assert request.packet.startswith("ICMP echo request")
    assert request.flow == "10.77.0.1 → 10.77.0.2"
    assert request.steps[1].what == "leaves by wg0"
    assert request.steps[5].what == "84 + 16 header + 12 padding + 16 tag = 128 bytes"
    assert request.steps[8].what == "leaves by eth0"
    assert [step.size for step in request.steps] == [84, 84, 84, 0, 0, 128, 128, 156, 156]


def test_only_steps_with_a_stamp_of_their_own_have_a_time() -> None:
    request, reply, *_ = recorded()
    ours = [step for step in request.steps + reply.steps if step.layer == "tunnel"]
    unmeasured = [step.place for step in ours if not step.measured]
    assert unmeasured == ["allowed IPs", "TUN write"]
    times = [step.time for step in ours if step.measured]
    assert len(set(times)) == len(times)
    shown = list(elapsed(request))
    assert [shown[number] is None for number in range(2, 7)] == [False, True, False, False, False]
    total = request.steps[-1].time - request.start
    assert sum(filter(None, shown)) == pytest.approx(total)


def test_what_is_put_back_in_time_counts_as_not_measured() -> None:
    steps = [Step("inner", "OUTPUT", "", time) for time in (1.0, 3.0, 2.0)]
    assert [(step.time, step.measured) for step in in_order(steps)] == [
        (1.0, True),
        (2.0, False),
        (2.0, True),
    ]


def test_times_never_go_back() -> None:
    for journey in recorded():
        times = [step.time for step in journey.steps]
        assert times == sorted(times)


def test_rules_are_named_and_the_one_that_drops_is_the_place_of_death() -> None:
    request, reply, _, lost = recorded()
    (accepted,) = request.steps[0].decisions
    assert str(accepted) == (
        "table inet user, chain out, rule with handle 4: "
        "ct state new counter packets 0 bytes 0 accept"
    )
    jumps = [decision.verdict for decision in reply.steps[-1].decisions]
    assert jumps == ["jump other", "accept"]
    assert (lost.outcome, places(lost)[-1]) == ("dropped", "inner INPUT")
    assert lost.death == (
        "INPUT of the inner packet: table inet user, chain other, rule with handle 6: "
        "icmp type echo-reply icmp sequence 2 drop"
    )
    assert [step.dropped for step in lost.steps][-2:] == [False, True]


def test_json_and_back() -> None:
    for journey in recorded():
        assert Journey.from_json(json.loads(json.dumps(journey.to_json()))) == journey


def test_one_frame_of_many_segments_is_one_journey() -> None:
    stack = Stack()
    stack.cross(1, echo(1), "OUTPUT POSTROUTING", oif=TUN)
    stack.sent(echo(1), counter=10, packets=40)
    stack.cross(2, message(index=7, counter=10), "OUTPUT POSTROUTING", oif=ETH)
    stack.cross(3, message(index=7, counter=50), "OUTPUT POSTROUTING", oif=ETH)
    (journey,) = stack.journeys()
    assert places(journey) == OUT
    assert "counters 10 to 49" in journey.steps[4].what
    assert journey.datagrams[-1] == (7, 49)


def test_datagrams_that_came_as_one_are_joined_by_the_first() -> None:
    stack = Stack()
    stack.cross(1, message(index=7, counter=3), "PREROUTING INPUT", iif=ETH)
    for number in (3, 4):
        stack.received(echo(number), counter=number, batch=3)
        stack.cross(number, echo(number), "PREROUTING INPUT", iif=TUN)
    first, second = stack.journeys()
    assert places(first) == places(second) == IN


def test_the_kernel_uses_a_number_again() -> None:
    stack = Stack()
    for number in (1, 2):
        stack.cross(1, echo(number), "OUTPUT POSTROUTING", oif=TUN)
        stack.sent(echo(number), counter=number)
        stack.cross(2, message(7, number), "OUTPUT POSTROUTING", oif=ETH)
    assert [places(journey) for journey in stack.journeys()] == [OUT, OUT]


@pytest.mark.parametrize(("hooks", "oif"), [("FORWARD POSTROUTING", TUN), ("INPUT", 0)])
def test_a_bridge_with_br_netfilter_has_the_packet_renumbered(hooks: str, oif: int) -> None:
    stack = Stack()
    stack.cross(5, echo(7), "PREROUTING", iif=ETH)
    stack.cross(1, echo(8), "PREROUTING", iif=ETH)
    stack.cross(2, echo(8), hooks, iif=ETH, oif=oif)
    stack.cross(6, echo(7), hooks, iif=ETH, oif=oif)
    if oif:
        for number in (7, 8):
            stack.sent(echo(number), counter=number)
            stack.cross(number, message(7, number), "OUTPUT POSTROUTING", oif=ETH)
    crossed = [f"inner {hook}" for hook in ("PREROUTING", *hooks.split())]
    rest = OUT[2:] if oif else []
    assert [places(journey) for journey in stack.journeys()] == [crossed + rest] * 2


def test_a_hub_sends_back_into_the_tunnel() -> None:
    stack = Stack()
    stack.cross(1, message(5, 1), "PREROUTING INPUT", iif=ETH)
    stack.received(echo(1), counter=1, index=5)
    stack.cross(2, echo(1), "PREROUTING FORWARD POSTROUTING", iif=TUN, oif=TUN)
    stack.sent(echo(1), counter=9)
    stack.cross(3, message(7, 9), "OUTPUT POSTROUTING", oif=ETH)
    (journey,) = stack.journeys()
    assert journey.direction == "through"
    assert journey.outcome == "passed"
    assert places(journey) == [
        *IN[:-1],
        "inner FORWARD",
        "inner POSTROUTING",
        *OUT[2:],
    ]


def test_what_nat_rewrote_is_told_where_it_did() -> None:
    stack = Stack()
    stack.cross(
        1, echo(1, "10.5.0.9"), "PREROUTING FORWARD POSTROUTING", iif=ETH, oif=TUN, left_as=echo(1)
    )
    stack.sent(echo(1), counter=1)
    stack.cross(2, message(7, 1), "OUTPUT POSTROUTING", oif=ETH)
    (journey,) = stack.journeys()
    assert [step.nat for step in journey.steps[:4]] == [
        None,
        None,
        "10.5.0.9 → 10.77.0.2 became 10.77.0.1 → 10.77.0.2",
        None,
    ]
    assert len(journey.steps) == 10


def test_a_datagram_that_never_reached_the_daemon_is_told_only_if_it_died() -> None:
    stack = Stack()
    stack.cross(1, message(5, 1), "PREROUTING INPUT", iif=ETH)
    assert stack.journeys() == []
    stack.cross(2, message(5, 2), "PREROUTING INPUT", iif=ETH, verdict=Verdict.DROP)
    (journey,) = stack.journeys()
    assert journey.packet == "WireGuard datagram, content unknown"
    assert (
        journey.death
        == "INPUT of the outer packet: table inet user, chain in, rule with handle 3: a rule"
    )
    assert not journey.counts


def test_routing_that_refuses_without_a_word() -> None:
    stack = Stack()
    stack.cross(1, echo(1), "PREROUTING", iif=TUN)
    (journey,) = stack.journeys()
    assert journey.outcome == "lost"
    assert "rp_filter" in str(journey.death)


@pytest.mark.parametrize(
    ("reason", "place"),
    [
        ("no_peer", "allowed IPs"),
        ("link_multicast", "allowed IPs"),
        ("over_rate", "limits"),
        ("over_quota", "limits"),
        ("no_endpoint", "UDP send"),
        ("too_long", "seal"),
    ],
)
def test_drops_of_the_daemon_on_the_way_out(reason: str, place: str) -> None:
    stack = Stack()
    stack.cross(1, echo(1), "OUTPUT POSTROUTING", oif=TUN)
    stack.sent(echo(1), counter=1, drop=reason)
    (journey,) = stack.journeys()
    assert journey.outcome == "dropped"
    assert journey.steps[-1].place == place
    assert str(journey.death).endswith(f"({reason})")


@pytest.mark.parametrize(
    ("reason", "place"),
    [
        ("replay", "open"),
        ("authentication", "open"),
        ("no_session", "open"),
        ("source_not_allowed", "source check"),
        ("over_quota", "limits"),
        ("tun_busy", "TUN write"),
    ],
)
def test_drops_of_the_daemon_on_the_way_in(reason: str, place: str) -> None:
    stack = Stack()
    stack.cross(1, message(7, 1), "PREROUTING INPUT", iif=ETH)
    stack.received(echo(1), counter=1, drop=reason)
    (journey,) = stack.journeys()
    assert journey.outcome == "dropped"
    assert journey.steps[-1].place == place


def test_a_packet_that_waits_for_a_session() -> None:
    stack = Stack()
    stack.cross(1, echo(1), "OUTPUT POSTROUTING", oif=TUN)
    stack.sent(echo(1), staged=True)
    assert stack.joiner.take(stack.time + 2 * QUIET) == []
    (journey,) = stack.joiner.take(stack.time + PATIENCE + 1)
    assert journey.outcome == "waiting"


def test_a_packet_that_waited() -> None:
    stack = Stack()
    stack.cross(1, echo(1), "OUTPUT POSTROUTING", oif=TUN)
    stack.sent(echo(1), staged=True)
    stack.cross(2, message(7, 1, kind=1), "OUTPUT POSTROUTING", oif=ETH)
    stack.sent(echo(1), counter=0, read=False)
    stack.cross(3, message(7, 0), "OUTPUT POSTROUTING", oif=ETH)
    packet, handshake = stack.journeys()
    assert packet.outcome == "passed"
    assert places(packet) == [*OUT[:5], *OUT[4:]]
    assert handshake.packet == "WireGuard handshake initiation"
    assert not handshake.counts


def test_a_journey_is_told_once_and_not_before_it_is_quiet() -> None:
    stack = Stack()
    stack.cross(1, echo(1), "OUTPUT POSTROUTING", oif=TUN)
    stack.sent(echo(1), counter=1)
    assert stack.joiner.take(stack.time) == []
    stack.cross(2, message(7, 1), "OUTPUT POSTROUTING", oif=ETH)
    assert len(stack.joiner.take(stack.time + QUIET)) == 1
    assert stack.joiner.take(stack.time + QUIET, final=True) == []


def test_parts_that_have_to_come_are_waited_for() -> None:
    stack = Stack()
    stack.cross(1, echo(1), "OUTPUT POSTROUTING", oif=TUN)
    assert stack.joiner.take(stack.time + 2 * QUIET) == []
    (journey,) = stack.joiner.take(stack.time + LATE)
    assert journey.outcome == "lost"
    assert str(journey.death).startswith("the daemon reported nothing")


def test_records_of_packets_that_the_kernel_could_not_report_are_scrap() -> None:
    stack = Stack()
    stack.sent(echo(1), counter=1)
    stack.received(echo(2), counter=1)
    assert stack.journeys() == []
    stack.sent(echo(1), counter=1, drop="no_peer")
    assert [journey.outcome for journey in stack.journeys()] == ["dropped"]


def test_a_missing_part_means_nothing_where_reports_were_lost() -> None:
    stack = Stack()
    stack.cross(1, echo(1), "OUTPUT POSTROUTING", oif=TUN)
    stack.cross(2, echo(2), "OUTPUT", oif=TUN, verdict=Verdict.DROP)
    stack.joiner.note_hole(stack.time)
    assert [journey.outcome for journey in stack.journeys()] == ["dropped"]
    for number in range(60):
        stack.cross(10 + number, echo(number), "OUTPUT POSTROUTING", oif=TUN)
    assert stack.journeys() == []


def test_what_others_trace_is_none_of_ours() -> None:
    stack = Stack()
    stack.cross(1, echo(1), "OUTPUT POSTROUTING", oif=TUN, marked=False)
    assert stack.journeys() == []


def test_a_packet_that_vanishes_at_the_last_hook_is_told() -> None:
    stack = Stack()
    data = echo(1)
    stack.cross(1, data, "OUTPUT", oif=TUN)
    stack.cross(1, data, "POSTROUTING", oif=TUN, vanishes=True)
    (journey,) = stack.journeys()
    assert journey.outcome == "lost"
    assert journey.death is not None
    assert journey.death.startswith("after POSTROUTING of the inner packet: ")


@pytest.mark.parametrize("hooks", ["OUTPUT", "OUTPUT POSTROUTING"])
def test_a_packet_in_the_middle_at_the_end_is_not_finished_and_not_lost(hooks: str) -> None:
    stack = Stack()
    stack.cross(1, echo(1), hooks, oif=TUN, vanishes=hooks == "OUTPUT POSTROUTING")
    (journey,) = stack.joiner.take(stack.time, final=True)
    assert journey.outcome == "unfinished"
    assert journey.death is not None
    assert "the trace ended" in journey.death


def test_a_busy_tunnel_costs_the_joiner_little() -> None:
    """Far more records than crossings: the kernel marks a few packets, the daemon tells of all."""
    stack = Stack()
    for number in range(300):
        stack.sent(echo(number), counter=number)
        stack.received(echo(number), counter=number)
    for number in range(1000, 1300):
        stack.cross(number, echo(number), "OUTPUT POSTROUTING", oif=TUN)
        stack.cross(number, echo(number, "10.77.0.9"), "PREROUTING INPUT", iif=TUN)
    with Operations() as counted:
        for _ in range(5):
            stack.cross(1, message(7, 601), "OUTPUT POSTROUTING", oif=ETH)
            stack.joiner.take(stack.time + QUIET)
    # Per round, for 600 records and 600 crossings; comparing all with all makes 360,000.
    assert counted.count / 5 < 100_000
