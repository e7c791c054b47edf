"""Every code that the doctor can say is one that a test in the lab makes happen."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]


def nodes_of(folder: str) -> Iterator[ast.AST]:
    files = sorted((ROOT / folder).glob("*.py"))
    assert files
    for file in files:
        yield from ast.walk(ast.parse(file.read_text()))


def codes_said() -> set[str]:
    """The first argument of every Finding."""
    said: set[str] = set()
    for node in nodes_of("tunnel/doctor"):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Finding":
            first = node.args[0]
            assert isinstance(first, ast.Constant), ast.unparse(node)
            said.add(str(first.value))
    return said


def codes_expected() -> set[str]:
    """Strings that the lab tests compare with, or take as a parameter's value."""
    expected = set()
    for node in nodes_of("tests/integration/doctor"):
        if isinstance(node, ast.Compare | ast.Call):
            inner = [
                *(node.comparators if isinstance(node, ast.Compare) else []),
                *(node.args if isinstance(node, ast.Call) else []),
            ]
            for each in inner:
                constants = (part for part in ast.walk(each) if isinstance(part, ast.Constant))
                expected |= {part.value for part in constants if isinstance(part.value, str)}
    return expected


def test_every_code_is_made_in_the_lab() -> None:
    said = codes_said()
    assert len(said) > 30
    assert said - codes_expected() == set()
