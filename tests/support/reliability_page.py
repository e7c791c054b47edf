"""The figures of docs/RELIABILITY.md.

`python -m tests.support.reliability_page [restarts] [faults] [floods]`, as root, measures these, or
all, and writes the page's tables. In one of the faults a daemon sleeps for longer than a session
lives, so they take some five minutes; restarts take seven, and floods fifteen.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.fault_figures import Figure, figures_of

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "RELIABILITY.md"
SUSPENDED = "200"


class MeasuringError(Exception):
    """Not all could be measured; what said so is on the terminal."""


class Collected:
    """A plugin of pytest that keeps what the tests have measured."""

    def __init__(self) -> None:
        self.figures: list[Figure] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take it from each test that has ended."""
        if report.when == "call":
            self.figures += figures_of(report.user_properties)


def faults() -> list[str]:
    """The table of all faults, measured by their tests."""
    os.environ.setdefault("TUNNEL_FAULTS_SUSPENDED", SUSPENDED)
    collected = Collected()
    folder = str(ROOT / "tests" / "integration" / "faults")
    if pytest.main(["-q", "--timeout", "900", folder], plugins=[collected]):
        raise MeasuringError("a test of the faults has failed")
    return table_of(sorted(collected.figures, key=lambda figure: figure.what))


def table_of(figures: list[Figure]) -> list[str]:
    """The lines of the table of faults."""
    rows = [f"| {each.what} | {each.time} | {each.lost} |" for each in figures]
    return ["| fault | recovery | lost |", "| --- | --- | --- |", *rows]


def printed_by(module: str) -> list[str]:
    """The table that a program prints, which goes to the terminal meanwhile."""
    lines = []
    with subprocess.Popen(
        [sys.executable, "-m", module], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        for line in program.stdout:
            print(line, end="", flush=True)
            if line.startswith("|"):
                lines.append(line.rstrip())
    if program.returncode:
        raise MeasuringError(f"{module} ended with {program.returncode}")
    return lines


PARTS: dict[str, Callable[[], list[str]]] = {
    "restarts": lambda: printed_by("tests.soak.restarts"),
    "faults": faults,
    "floods": lambda: printed_by("tests.soak.floods"),
}


def page(text: str, part: str, table: list[str]) -> str:
    """The page with another table of `part`."""
    begin, end = f"<!-- {part}: begin -->\n", f"<!-- {part}: end -->\n"
    before, _, rest = text.partition(begin)
    return before + begin + "\n".join(table) + "\n" + end + rest.partition(end)[2]


def main() -> int:
    """Write each table once it is complete; 1 if one is not."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    status = 0
    for part in parser.parse_args().parts or PARTS:
        if part not in PARTS:
            parser.error(f"there is no part {part}, but {', '.join(PARTS)}")
        try:
            PAGE.write_text(page(PAGE.read_text(), part, PARTS[part]()))
        except MeasuringError as error:
            print(f"{part}: {error}; the page keeps its table", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
