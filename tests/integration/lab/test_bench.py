"""The benchmark's figures, as far as they do not depend on how busy the machine is."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from tunnel.bench import trace_overhead
from tunnel.bench.bench import joined
from tunnel.bench.rows import METRICS, gateway
from tunnel.bench.subjects import Bare, Ours, Subject, WireGuardGo
from tunnel.cli.bench import app

pytestmark = pytest.mark.root


@pytest.mark.foreign("iperf3")
def test_a_tunnel_that_was_traced_is_compared_with_one_that_never_was() -> None:
    figures = trace_overhead.measure(Ours("python"), seconds=1.0, pairs=1)
    assert list(figures) == ["untraced", "untraced_cpu", "traced", "traced_cpu"]
    assert all(ratio > 0 for ratio in figures.values())
    assert figures.keys() < {metric.key for metric in METRICS}


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
    with joined(subject, seconds=1.0) as bench:
        found = gateway(bench)
    assert found.keys() == {"tcp_gateway"}
    assert found["tcp_gateway"] > 0


@pytest.mark.foreign("iperf3", "wireguard-go", "wg")
def test_rows_of_two_subjects_side_by_side() -> None:
    rows = "start,idle,tcp,steady64,junk,memory"
    arguments = ["--quick", "--rows", rows, "--only", "python", "--only", "wireguard-go", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert list(report["figures"]) == ["tunnel (python)", "wireguard-go"]
    for figures in report["figures"].values():
        assert list(figures) == [
            *("first_ping", "rtt_p50", "rtt_p99", "cpu_ping", "tcp", "cpu", "loss64", "cpu64"),
            *("tcp_junk", "tcp_junk_kept", "rss"),
        ]
        assert all(len(values) == 1 for values in figures.values())
        assert all(value > 0 for key, (value,) in figures.items() if key != "loss64")
    assert report["ratios"].keys() == {"wireguard-go"}
