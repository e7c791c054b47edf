"""docs/RELIABILITY.md names tests that there are, and all those of the faults."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.support.fault_figures import Figure
from tests.support.reliability_page import PAGE, PARTS, page, table_of

TESTS = Path(__file__).parents[1]


def functions_of(folder: Path) -> Iterator[str]:
    for path in folder.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield node.name


def test_each_test_that_it_names_is_there_and_each_fault_is_in_it() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text(encoding="utf-8")))
    assert sorted(named - set(functions_of(TESTS))) == []
    assert sorted(set(functions_of(TESTS / "integration" / "faults")) - named) == []


def test_the_drops_and_findings_that_it_names_are_there() -> None:
    docs = "".join((PAGE.parent / name).read_text() for name in ("drops.md", "doctor.md"))
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    codes = {
        code
        for row in rows
        if row.count("|") == 5
        for code in re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+)+)`", row.split("|")[3])
    }
    assert sorted(code for code in codes if f"| `{code}` |" not in docs) == []
    assert len(codes) > 15


def test_each_part_has_its_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for part in PARTS:
        assert page(text, part, ["| new |"]).count("| new |") == 1
        assert text.count(f"<!-- {part}: begin -->") == text.count(f"<!-- {part}: end -->") == 1


def test_figures_replace_those_of_before() -> None:
    text = "above\n<!-- faults: begin -->\nold\n<!-- faults: end -->\nbelow\n"
    table = table_of([Figure("a cut", 0.0123, "1 of 2"), Figure("a long one", 12.34, "–")])
    assert page(text, "faults", table) == (
        "above\n<!-- faults: begin -->\n| fault | recovery | lost |\n| --- | --- | --- |\n"
        "| a cut | 12 ms | 1 of 2 |\n| a long one | 12.3 s | – |\n<!-- faults: end -->\nbelow\n"
    )
