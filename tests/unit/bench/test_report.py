"""The table of a benchmark: what it says, and that it fits."""

from __future__ import annotations

import pytest

from tunnel.bench.figures import Figures
from tunnel.bench.report import as_json, number, table
from tunnel.bench.rows import METRICS, ROWS

NAMES = ("tunnel (native)", "tunnel (python)", "wireguard-go", "gotatun", "openvpn", "bare veth")


def everything(rounds: int = 3) -> Figures:
    """Every figure of every subject, as wide as it gets."""
    return {
        name: {
            metric.key: [(at + 1) * 12_345.6 * (1 + each) for each in range(rounds)]
            for metric in METRICS
        }
        for at, name in enumerate(NAMES)
    }


@pytest.mark.parametrize(
    ("value", "text"), [(12345.6, "12,346"), (0.98, "0.98"), (5.678, "5.68"), (0.0, "0")]
)
def test_three_digits_that_matter(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize("width", [52, 80, 120, 200])
def test_fits_its_width_and_leaves_nothing_out(width: int) -> None:
    lines = table(everything(), METRICS, width=width)
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    for name in NAMES:
        assert name.split()[-1] in text
    for at in range(len(NAMES)):
        assert text.count(f"{number((at + 1) * 24_691.2)} ±25%") >= len(METRICS)
    # Once beside each of the others, however many tables that takes.
    assert text.count(" 0.50") == len([each for each in METRICS if each.unit != "ratio"])


def test_one_round_has_no_spread_and_one_subject_no_ratio() -> None:
    (head, *_), lines = NAMES[:1], table({NAMES[0]: {"tcp": [5.0]}}, METRICS, width=80)
    assert head.split()[0] in lines[0]
    assert [line.split() for line in lines[3:]] == [["TCP,", "one", "stream,", "Gbit/s", "5"]]


def test_the_report_for_programs_explains_what_it_holds() -> None:
    figures = {"ours": {"tcp": [6.0, 6.0], "rtt_p50": [100.0, 100.0]}, "bare": {"tcp": [3.0, 2.0]}}
    report = as_json(figures, METRICS, rounds=2, seconds=1.5)
    assert report["figures"] == figures
    assert report["medians"] == {"ours": {"tcp": 6.0, "rtt_p50": 100.0}, "bare": {"tcp": 2.5}}
    assert report["spreads"] == {"ours": {"tcp": 0.0, "rtt_p50": 0.0}, "bare": {"tcp": 0.1}}
    assert report["ratios"] == {"bare": {"tcp": {"median": 2.5, "spread": 0.1}}}
    assert isinstance(report["metrics"], dict)
    assert set(report["metrics"]) == {"tcp", "rtt_p50"}


def test_every_figure_has_a_key_of_its_own_and_every_row_a_name() -> None:
    assert len({metric.key for metric in METRICS}) == len(METRICS)
    assert len({row.name for row in ROWS}) == len(ROWS)
