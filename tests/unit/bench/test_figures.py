"""Medians, spreads and ratios, and when a figure counts as worse."""

from __future__ import annotations

import pytest

from tunnel.bench.figures import Metric, Middle, is_clearly_worse, middles, ratio, ratios

TCP = Metric("tcp", "TCP", "Gbit/s")
RTT = Metric("rtt", "round trip", "µs", higher=False)


@pytest.mark.parametrize(
    ("values", "middle"),
    [
        ([4.0], Middle(4.0, None)),
        ([0.0, 0.0, 1.0], Middle(0.0, None)),
        ([4.0, 2.0, 3.0], Middle(3.0, 0.5 / 3)),
        # One round that something else disturbed says nothing.
        ([10.0, 10.0, 10.0, 10.0, 1000.0], Middle(10.0, 0.0)),
    ],
)
def test_median_and_spread(values: list[float], middle: Middle) -> None:
    assert Middle.of(values) == middle


def test_a_ratio_is_that_of_the_same_round() -> None:
    # The machine became half as fast in the second round: 2 in both, while the medians give 1.5.
    assert ratio([8.0, 4.0], [4.0, 2.0]) == Middle(2.0, 0.0)
    assert ratio([1.0, 3.0], [0.0, 1.0]) == Middle(3.0, None)
    assert ratio([1.0], [0.0]) is None
    assert ratio([], [1.0]) is None


def test_ratios_are_those_of_the_first_and_of_what_both_have() -> None:
    figures = {"ours": {"tcp": [6.0], "rtt": [3.0]}, "bare": {"tcp": [2.0], "other": [1.0]}}
    assert ratios(figures, "ours") == {"bare": {"tcp": Middle(3.0, None)}}
    assert middles(figures)["bare"]["other"] == Middle(1.0, None)


BASE = [100.0, 102.0, 98.0, 101.0, 99.0]


@pytest.mark.parametrize(
    ("factors", "worse"),
    [
        ([0.9, 0.91, 0.9, 0.89, 0.9], True),
        ([1.1, 1.09, 1.1, 1.11, 1.1], False),
        ([1.0, 1.0, 1.0, 1.0, 1.0], False),
        ([0.98, 0.98, 0.98, 0.98, 0.98], False),  # within the margin
        ([0.9, 0.9, 0.9, 0.9, 1.01], False),  # one round says otherwise
        ([0.98, 0.6, 0.9, 0.99, 0.7], False),  # worse by less than the rounds differ by
        ([0.5], True),
        ([], False),
    ],
)
def test_worse_by_more_than_chance(factors: list[float], worse: bool) -> None:
    new = [base * factor for base, factor in zip(BASE, factors, strict=False)]
    assert is_clearly_worse(TCP, new, BASE, margin=0.03) is worse
    # Where less is better, it is the other way round.
    slower = [base / factor for base, factor in zip(BASE, factors, strict=False)]
    assert is_clearly_worse(RTT, slower, BASE, margin=0.03) is worse


def test_what_the_base_does_not_have_is_not_worse() -> None:
    assert not is_clearly_worse(TCP, [1.0], [], margin=0.03)
    assert not is_clearly_worse(TCP, [1.0], [0.0], margin=0.03)
