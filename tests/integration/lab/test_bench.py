"""The benchmark's figures, as far as they do not depend on how busy the machine is."""

from __future__ import annotations

import pytest

from tunnel.lab import Lab
from tunnel.lab.bench import METRICS, Bench
from tunnel.lab.contenders import A_OUTER, B_OUTER, Ours, WireGuardGo
from tunnel.lab.rounds import steps

pytestmark = pytest.mark.root


def test_throughput_is_compared_around_a_trace() -> None:
    with Lab() as lab:
        a, b = lab.host("a"), lab.host("b")
        lab.link(a, b, [f"{A_OUTER}/24"], [f"{B_OUTER}/24"])
        contender = Ours("python")
        contender.prepare(a, b)
        contender.up()
        figures = [
            figure
            for found in Bench(a, b, contender, seconds=1.0).run_traced()
            for figure in found.items()
        ]
        assert "tunnel-trace" not in a.run(["nft", "list", "tables"]).stdout
    assert [key for key, _ in figures] == ["untraced", "traced"]
    assert all(ratio > 0 for _, ratio in figures)
    assert {key for key, _ in figures} < {metric.key for metric in METRICS}


def test_only_ours_has_a_trace_to_compare() -> None:
    assert steps([Ours("python")], crowded=False) == steps([WireGuardGo()], crowded=False) + 2
