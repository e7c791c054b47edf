"""docs/drops.md is what the enums say, and no reason lacks a sentence."""

from __future__ import annotations

import ast
from pathlib import Path

from tunnel.engine.reference import SOURCES, page, reasons

ROOT = Path(__file__).parents[3]


def test_the_page_is_made_from_the_enums() -> None:
    written = (ROOT / "docs" / "drops.md").read_text()
    assert written == page(), "run python -m tunnel.engine.reference > docs/drops.md"


def test_every_reason_has_a_sentence() -> None:
    for enum in SOURCES:
        found = dict(reasons(enum))
        assert set(found) == set(enum)
        assert all(found.values()), found


def test_no_enum_of_reasons_is_left_out() -> None:
    classes = {
        node.name
        for file in (ROOT / "tunnel").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef) and node.name.endswith("Drop")
        if any(ast.unparse(base) == "StrEnum" for base in node.bases)
    }
    assert classes == {enum.__name__ for enum in SOURCES}
