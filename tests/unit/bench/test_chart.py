"""What a benchmark prints and draws, from figures that were not measured here."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tunnel.bench import rounds
from tunnel.bench.chart import draw, number
from tunnel.bench.subjects import Subject
from tunnel.cli.bench import app
from tunnel.lab import rootless
from tunnel.lab.errors import LabError

FIGURES = {
    "tunnel (python)": {"tcp": [4.0, 2.0, 3.0], "rtt_p50": [200.0]},
    "bare veth": {"tcp": [30.0], "tcp_many_peers": [0.98]},
}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A measurement that gives `FIGURES` at once."""

    def measure(
        subjects: list[Subject], *, progress: Callable[[str, int], None], **_: object
    ) -> dict[str, dict[str, list[float]]]:
        progress("round 1 of 1: bare veth", 0)
        return FIGURES

    monkeypatch.setattr(rounds, "measure", measure)
    monkeypatch.setattr(rootless, "check", lambda: None)


@pytest.mark.parametrize(
    ("value", "text"), [(12345.6, "12,346"), (0.98, "0.98"), (5.678, "5.68"), (0.0, "0")]
)
def test_three_digits_that_matter(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.usefixtures("measured")
def test_table_has_medians_and_the_ratio_to_the_first() -> None:
    result = CliRunner().invoke(app, ["--only", "veth"])
    assert result.exit_code == 0
    assert "round 1 of 1: bare veth" in result.stderr
    (tcp,) = [line for line in result.stdout.splitlines() if "TCP, one stream [" in line]
    assert [cell.strip() for cell in tcp.strip("│").split("│")][1:] == ["3", "30 (0.10)"]
    (rtt,) = [line for line in result.stdout.splitlines() if "round trip, idle, p50" in line]
    assert "–" in rtt
    assert "eight streams" not in result.stdout


@pytest.mark.usefixtures("measured")
def test_json_and_picture_hold_the_same_figures(tmp_path: Path) -> None:
    picture = tmp_path / "x.svg"
    result = CliRunner().invoke(app, ["--only", "veth", "--json", "--plot", str(picture)])
    report = json.loads(result.stdout)
    assert report["figures"] == FIGURES
    assert report["medians"]["tunnel (python)"] == {"tcp": 3.0, "rtt_p50": 200.0}
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
