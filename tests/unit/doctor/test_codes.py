"""Every code that the doctor can say is one that a test in the lab makes happen."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

from tunnel.doctor.reference import CODES, FAULTS, NOTES, matrix_in, page

ROOT = Path(__file__).parents[3]


def nodes_of(*patterns: str) -> Iterator[ast.AST]:
    files = sorted(file for pattern in patterns for file in ROOT.glob(pattern))
    assert files
    for file in files:
        yield from ast.walk(ast.parse(file.read_text()))


def codes_said() -> set[str]:
    """The first argument of every Finding."""
    said: set[str] = set()
    for node in nodes_of("tunnel/doctor/*.py"):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Finding":
            first = node.args[0]
            assert isinstance(first, ast.Constant), ast.unparse(node)
            said.add(str(first.value))
    return said


def strings_expected() -> set[str]:
    """All strings of the lab tests, the codes that they expect among them."""
    lab = nodes_of("tests/integration/doctor/*.py", "tests/support/doctor*.py")
    return {ast.literal_eval(node) for node in lab if is_string(node)}


def is_string(node: ast.AST) -> TypeGuard[ast.Constant]:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_every_code_is_made_in_the_lab() -> None:
    said = codes_said()
    assert len(said) > 30
    # The limit of connection tracking is the whole machine's.
    assert said - strings_expected() == {"conntrack_full"}


def test_every_code_is_in_the_reference() -> None:
    assert codes_said() == set(CODES)
    assert not FAULTS.keys() & NOTES.keys()


def test_the_page_is_made_from_the_code() -> None:
    text = (ROOT / "docs" / "doctor.md").read_text()
    assert text == page(matrix_in(text)), "run python -m tunnel.doctor.reference docs/doctor.md"
