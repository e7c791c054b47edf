"""When a comparison with another commit fails."""

from __future__ import annotations

import pytest

from tests.support import bench_check
from tests.support.bench_check import BASE, NEW, compare, main
from tunnel.bench import rounds
from tunnel.bench.figures import Figures
from tunnel.bench.rounds import Measured
from tunnel.bench.rows import Row, chosen
from tunnel.bench.subjects import Ours

SUBJECTS = (Ours("python", label=NEW), Ours("python", label=BASE))
ROWS = chosen(["tcp", "idle"])
GOOD: Figures = {
    NEW: {"tcp": [5.0, 5.1], "cpu": [2.0, 2.0], "rtt_p50": [100.0, 101.0]},
    BASE: {"tcp": [5.0, 5.0], "cpu": [2.0, 2.1], "rtt_p50": [100.0, 100.0]},
}
SLOW: Figures = {**GOOD, NEW: {**GOOD[NEW], "rtt_p50": [120.0, 121.0]}}


@pytest.fixture
def asked() -> list[list[str]]:
    """The rows that were measured, of each time."""
    return []


def let_measure(
    monkeypatch: pytest.MonkeyPatch, asked: list[list[str]], *results: Measured
) -> None:
    coming = iter(results)

    def measure(subjects: object, rows: list[Row], **_: object) -> Measured:
        asked.append([row.name for row in rows])
        return next(coming)

    monkeypatch.setattr(rounds, "measure", measure)


@pytest.mark.parametrize(
    ("results", "status", "rows"),
    [
        ([Measured(GOOD)], 0, [["idle", "tcp"]]),
        ([Measured(SLOW), Measured(SLOW)], 1, [["idle", "tcp"], ["idle"]]),
        ([Measured(SLOW), Measured(GOOD)], 0, [["idle", "tcp"], ["idle"]]),
        ([Measured(GOOD, ["tcp, base: no answer"])], 2, [["idle", "tcp"]]),
    ],
)
def test_what_is_worse_twice_fails(
    results: list[Measured],
    status: int,
    rows: list[list[str]],
    asked: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    let_measure(monkeypatch, asked, *results)
    assert compare(SUBJECTS, ROWS, 2, 1.0) == status
    assert asked == rows
    printed = capsys.readouterr().out
    assert ("WORSE: round trip, idle, p50" in printed) is (status == 1)
    assert ("not measured: tcp, base: no answer" in printed) is (status == 2)
    assert max(map(len, printed.splitlines())) <= 80
    tcp = next(line for line in printed.splitlines() if line.startswith("TCP, one stream"))
    assert tcp.split()[-4:] == ["5.05", "5", "1.010", "±0%"]


@pytest.mark.parametrize("arguments", [["HEAD", "--rows", "zzz"], ["HEAD", "--rounds", "1"], []])
def test_mistakes_are_named_before_anything_is_set_up(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_check, "checked_out", None)
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.foreign("git")
def test_a_commit_that_is_not_there_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["no-such-commit"]) == 2
    assert "not measured: " in capsys.readouterr().out
