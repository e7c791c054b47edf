"""The benchmark's figures, as far as they do not depend on how busy the machine is."""

from __future__ import annotations

import pytest

from tunnel.bench import rounds, trace_overhead
from tunnel.bench.bench import METRICS
from tunnel.bench.rounds import steps
from tunnel.bench.subjects import Bare, Ours, Subject, WireGuardGo

pytestmark = pytest.mark.root


@pytest.mark.foreign("iperf3")
def test_a_tunnel_that_was_traced_is_compared_with_one_that_never_was() -> None:
    figures = [
        figure
        for found in trace_overhead.measure(Ours("python"), seconds=1.0, pairs=1)
        for figure in found.items()
    ]
    assert [key for key, _ in figures] == ["untraced", "untraced_cpu", "traced", "traced_cpu"]
    assert all(ratio > 0 for _, ratio in figures)
    assert {key for key, _ in figures} < {metric.key for metric in METRICS}


def test_only_ours_has_a_trace_to_compare() -> None:
    assert steps([Ours("python")], many_peers=False) == steps([WireGuardGo()], many_peers=False) + 2


@pytest.mark.foreign("iperf3")
@pytest.mark.parametrize(
    "subject",
    [
        Bare(),
        Ours("python"),
        pytest.param(WireGuardGo(), marks=pytest.mark.foreign("wireguard-go", "wg")),
    ],
    ids=lambda subject: subject.name,
)
def test_a_host_behind_a_gateway_is_heard_through_each_subject(subject: Subject) -> None:
    (found,) = rounds.measure_gateway(subject, seconds=1.0)
    assert found.keys() == {"tcp_gateway"}
    assert found["tcp_gateway"] > 0
