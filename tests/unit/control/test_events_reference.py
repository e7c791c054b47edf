"""docs/control.md lists every event that is published, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
RECORDS = ROOT / "tunnel" / "device" / "event_log.py"
PUBLISHERS = (*(ROOT / "tunnel" / "daemon").glob("*.py"), RECORDS)
FROM_STREAMS = {"lost"}
"""What a stream itself says."""


def test_every_event_is_in_the_table() -> None:
    assert set(published()) | FROM_STREAMS == listed()


def published() -> Iterator[str]:
    """The types that are published by name, and those that records of the protocol get."""
    for file in PUBLISHERS:
        for node in ast.walk(ast.parse(file.read_text())):
            first: ast.expr | None = None
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
                (".publish", ".feed.begin")
            ):
                first = node.args[0]
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "self._report":
                first = node.args[1]
            elif file == RECORDS and isinstance(node, ast.Return):
                first = node.value.elts[0] if isinstance(node.value, ast.Tuple) else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value


def listed() -> set[str]:
    section = (ROOT / "docs" / "control.md").read_text().partition("## Events")[2]
    table = section.partition("| type | details |")[2].partition("\n\n")[0]
    rows = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}
