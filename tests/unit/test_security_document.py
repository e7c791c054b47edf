"""SECURITY.md names a test for each promise, and the tests are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "SECURITY.md").read_text()


def rows() -> list[tuple[str, list[str]]]:
    """The promises of the table of tests, each with its tests."""
    table = DOCUMENT.partition("## Which test holds what\n")[2].partition("\n## ")[0]
    lines = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return [(line[0], re.findall(r"`(tests/[^`]+)`", line[-1])) for line in lines[2:]]


def names_in(path: Path) -> set[str]:
    found = ast.parse(path.read_text()).body
    return {each.name for each in found if isinstance(each, ast.FunctionDef)}


def test_each_promise_has_a_test_and_each_test_is_there() -> None:
    found = rows()
    assert len(found) > 20
    for promise, tests in found:
        assert tests, f"no test holds that {promise}"
        for test in tests:
            path, _, name = test.partition("::")
            assert (ROOT / path).is_file(), test
            assert not name or name in names_in(ROOT / path), test
    assert DOCUMENT.count("`tests/") == sum(len(tests) for _, tests in found)
