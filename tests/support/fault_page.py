"""The figures of docs/faults.md.

`python -m tests.support.fault_page` runs all faults and writes the page's table. In one of them a
daemon sleeps for longer than a session lives, so it takes some five minutes.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support.fault_figures import Figure, figures_of

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "faults.md"
BEGIN, END = "<!-- figures: begin -->\n", "<!-- figures: end -->\n"
SUSPENDED = "200"


class Collected:
    """A plugin of pytest that keeps what the tests have measured."""

    def __init__(self) -> None:
        self.figures: list[Figure] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take it from each test that has ended."""
        if report.when == "call":
            self.figures += figures_of(report.user_properties)


def page(text: str, figures: list[Figure]) -> str:
    """The page with another table."""
    rows = ["| fault | recovery | lost |", "| --- | --- | --- |"]
    rows += [f"| {each.what} | {each.time} | {each.lost} |" for each in figures]
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + "\n".join(rows) + "\n" + END + rest.partition(END)[2]


def main() -> int:
    """The exit status of pytest; the page is written if all have passed."""
    os.environ.setdefault("TUNNEL_FAULTS_SUSPENDED", SUSPENDED)
    collected = Collected()
    folder = str(ROOT / "tests" / "integration" / "faults")
    status = int(pytest.main(["-q", "--timeout", "900", folder], plugins=[collected]))
    if status == 0:
        PAGE.write_text(page(PAGE.read_text(), sorted(collected.figures, key=lambda f: f.what)))
    return status


if __name__ == "__main__":
    sys.exit(main())
