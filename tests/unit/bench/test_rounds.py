"""The order of a benchmark's rounds, and what becomes of a row that fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import pytest

from tunnel.bench import rounds
from tunnel.bench.bench import Bench
from tunnel.bench.figures import Metric
from tunnel.bench.rows import ROWS, Row, chosen
from tunnel.bench.subjects import Bare, OpenVpn, Ours, Subject, WireGuardGo
from tunnel.lab.errors import LabError


@dataclass
class Hosts:
    """In the place of a bench: notes what happens to it."""

    subject: Subject
    happened: list[str]

    def begin(self) -> None:
        self.happened.append(f"{self.subject.name} up")


@dataclass
class Script:
    """Rows that note when they are measured, and may fail."""

    happened: list[str] = field(default_factory=list)
    fails_at: str = ""

    def row(self, name: str, *of: type) -> Row:
        def measure(bench: Bench) -> dict[str, float]:
            did = f"{name} {bench.subject.name}"
            self.happened.append(did)
            if did == self.fails_at:
                raise LabError("no answer")
            return {name: float(len(self.happened))}

        return Row(name, (Metric(name, name, "s"),), measure, of or (object,))


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    script = Script()

    @contextlib.contextmanager
    def joined(subject: Subject, seconds: float) -> Iterator[Bench]:
        yield cast(Bench, Hosts(subject, script.happened))
        script.happened.append(f"{subject.name} gone")

    monkeypatch.setattr(rounds, "joined", joined)
    return script


def test_each_row_is_measured_of_all_in_turn_and_another_is_first_in_each_round(
    script: Script,
) -> None:
    subjects = [Bare("one"), Bare("two")]
    rows = [script.row("x"), script.row("y")]
    result = rounds.measure(subjects, rows, rounds=2, seconds=1.0)
    assert script.happened == [
        *("one up", "two up", "x one", "x two", "y one", "y two", "two gone", "one gone"),
        *("two up", "one up", "x two", "x one", "y two", "y one", "one gone", "two gone"),
    ]
    assert result.figures == {
        "one": {"x": [3.0, 12.0], "y": [5.0, 14.0]},
        "two": {"x": [4.0, 11.0], "y": [6.0, 13.0]},
    }
    assert result.failures == []


def test_progress_ends_where_it_was_to_end(script: Script) -> None:
    subjects: list[Subject] = [Ours("python"), Bare()]
    rows = [script.row("x"), script.row("y", Ours)]
    done: list[int] = []
    rounds.measure(
        subjects, rows, rounds=3, seconds=1.0, progress=lambda _, count: done.append(count)
    )
    assert sum(done) == rounds.steps(subjects, rows, 3) == 3 * (2 + 3)


def test_a_row_that_failed_once_is_named_and_has_no_figures(script: Script) -> None:
    script.fails_at = "x two"
    rows = [script.row("x"), script.row("y")]
    result = rounds.measure([Bare("one"), Bare("two")], rows, rounds=3, seconds=1.0)
    assert result.failures == ["x, two: no answer"]
    assert {name: sorted(found) for name, found in result.figures.items()} == {
        "one": ["x", "y"],
        "two": ["y"],
    }
    assert script.happened.count("x two") == 1
    assert script.happened.count("y two") == 3


def test_rows_are_for_subjects_that_have_what_they_measure() -> None:
    by_name = {row.name: row for row in ROWS}
    fits = {
        name: [
            type(each).__name__
            for each in (Ours("python"), WireGuardGo(), OpenVpn(), Bare())
            if by_name[name].fits(each)
        ]
        for name in ("tcp", "junk", "peers", "trace")
    }
    of_no_cipher = [name for name, row in by_name.items() if row.fits(Ours.unencrypted())]
    assert of_no_cipher == ["tcp", "tcp8", "udp1300", "steady1300"]
    assert fits == {
        "tcp": ["Ours", "WireGuardGo", "OpenVpn", "Bare"],
        "junk": ["Ours", "WireGuardGo"],
        "peers": ["Ours", "WireGuardGo"],
        "trace": ["Ours"],
    }


def test_rows_are_chosen_by_name_in_their_own_order() -> None:
    assert [row.name for row in chosen(["udp64", "tcp"])] == ["tcp", "udp64"]
    with pytest.raises(KeyError, match="nonsense"):
        chosen(["tcp", "nonsense"])


def test_a_program_that_is_missing_is_named_with_the_way_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    said = [WireGuardGo("gotatun").missing(), OpenVpn().missing(), chosen(["gateway"])[0].missing()]
    assert said == [
        "gotatun is not installed: cargo install gotatun-cli, and have ~/.cargo/bin on the PATH",
        "openvpn is not installed: apt-get install openvpn",
        "nft is not installed: apt-get install nftables",
    ]
