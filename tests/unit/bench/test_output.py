"""What a benchmark prints and draws, from figures that were not measured here."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tunnel.bench import rounds
from tunnel.bench.chart import draw
from tunnel.bench.rounds import Measured
from tunnel.bench.rows import Row
from tunnel.bench.subjects import Subject
from tunnel.cli.bench import app
from tunnel.lab import rootless
from tunnel.lab.errors import LabError

FIGURES = {
    "tunnel (python)": {"tcp": [4.0, 2.0, 3.0], "rtt_p50": [200.0, 200.0, 200.0]},
    "bare veth": {"tcp": [40.0, 10.0, 30.0], "traced": [0.98, 0.98, 0.98]},
}


@pytest.fixture
def failures() -> list[str]:
    """What could not be measured."""
    return []


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, failures: list[str]) -> None:
    """A measurement that gives `FIGURES` at once, on a machine that has all programs."""

    def measure(
        subjects: list[Subject],
        rows: list[Row],
        *,
        progress: Callable[[str, int], None],
        **_: object,
    ) -> Measured:
        progress("round 1 of 1: bare veth", 0)
        return Measured(FIGURES, list(failures))

    monkeypatch.setattr(rounds, "measure", measure)
    monkeypatch.setattr(rootless, "check", lambda: None)
    monkeypatch.setattr(shutil, "which", lambda program: f"/bin/{program}")


@pytest.mark.usefixtures("measured")
def test_table_has_medians_and_the_ratio_to_the_first() -> None:
    result = CliRunner().invoke(app, ["--only", "veth"])
    assert result.exit_code == 0
    assert "round 1 of 1: bare veth" in result.stderr
    lines = result.stdout.splitlines()
    (at,) = [number for number, line in enumerate(lines) if "TCP, one stream" in line]
    assert lines[at].split()[-4:] == ["3", "±17%", "30", "±25%"]
    assert lines[at + 1].split()[-1] == "0.10", "the middle of 0.1, 0.2 and 0.1"
    (rtt,) = [line for line in lines if "round trip, idle, p50" in line]
    assert "–" in rtt
    assert "eight streams" not in result.stdout


@pytest.mark.usefixtures("measured")
def test_what_could_not_be_measured_is_named_below_the_rest(failures: list[str]) -> None:
    failures.append("udp64, wireguard-go: iperf3 ended")
    result = CliRunner().invoke(app, ["--only", "veth"])
    assert result.exit_code == 1
    assert "TCP, one stream" in result.stdout
    assert "tunnel: udp64, wireguard-go: iperf3 ended\n" in result.stderr


@pytest.mark.usefixtures("measured")
def test_json_and_picture_hold_the_same_figures(tmp_path: Path) -> None:
    picture = tmp_path / "x.svg"
    result = CliRunner().invoke(app, ["--only", "veth", "--json", "--plot", str(picture)])
    report = json.loads(result.stdout)
    assert report["figures"] == FIGURES
    assert report["medians"]["tunnel (python)"] == {"tcp": 3.0, "rtt_p50": 200.0}
    assert report["ratios"]["bare veth"]["tcp"]["median"] == 0.1
    assert report["metrics"]["rtt_p50"]["better"] == "lower"
    root = ET.fromstring(picture.read_text(encoding="utf-8"))
    texts = [element.text for element in root.iter() if element.text and element.text.strip()]
    assert {"tunnel (python)", "bare veth", "TCP, one stream", "30", "200"} <= set(texts)
    bars = [e for e in root.iter("{http://www.w3.org/2000/svg}rect") if e.get("height") == "12"]
    # Two in the legend, and one for each figure.
    assert len(bars) == 2 + 4


def test_a_name_of_a_subject_cannot_break_the_picture() -> None:
    drawn = ET.fromstring(draw((), {"<&>": {}}, title="<script>"))
    assert [element.text for element in drawn if element.text] == ["<script>", "<&>"]


def test_a_lab_that_cannot_be_made_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise LabError("no namespaces here")

    monkeypatch.setattr(rootless, "check", refuse)
    result = CliRunner().invoke(app, ["--only", "veth"])
    assert result.exit_code == 1
    assert "no namespaces here" in result.stderr
